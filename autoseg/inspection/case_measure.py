"""Measures of one case, from which the fingerprint of a data set is made."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.core.geometry import Geometry
from autoseg.inspection.annotation_outside import BorderAnnotation
from autoseg.inspection.intensities import Sketch
from autoseg.inspection.target_sums import TargetSums


@dataclass(frozen=True, slots=True)
class CaseMeasure:
    """Measures of one case for the fingerprint."""

    geometry: Geometry
    """Geometry of the image, without the metadata of its format."""
    shape: tuple[int, int, int]
    """Voxels, axes as in the file."""
    shape_after_crop: tuple[int, int, int]
    annotated: float
    """Share of informative voxels, 0 to 1: their label set excludes a class."""
    drawn: float
    """Share of voxels that somebody annotated, 0 to 1, see :func:`autoseg.dataset.labels.annotated_codes`."""
    in_slices: float
    """Share of these in slices annotated as a whole, see :func:`autoseg.inspection.coverage.share_in_slices`."""
    heads: tuple[int, ...]
    """Indices of the heads that certainly have a voxel."""
    n_foreground: int
    """Number of voxels that are certainly foreground."""
    outside: BorderAnnotation
    """Annotated voxels outside the box around all non-zero voxels."""
    intensities: tuple[Sketch | None, ...]
    """One sketch per channel; None without foreground."""
    targets: tuple[TargetSums, ...] = ()
    """One per target of a regression; () for classes."""
