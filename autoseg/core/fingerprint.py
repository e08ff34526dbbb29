"""Fingerprint of a data set: the shapes, spacings, intensities and annotation statistics that planning needs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from autoseg.core.geometry import Direction


class IntensityProperties(BaseModel):
    """Statistics of one channel over informative foreground voxels or, if these are too few, inside the body.

    In units of the image files.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_99_5: float
    percentile_00_5: float


class TargetProperties(BaseModel):
    """Statistics of one target of a regression over all voxels where it is known, in the units of the label files."""

    model_config = ConfigDict(frozen=True)

    mean: float
    std: float
    min: float
    max: float
    n_voxels: int
    """Known voxels of all cases; 0 if there is none, and then all statistics are 0."""

    @property
    def scale(self) -> float:
        """What numbers are divided by: the standard deviation, or 1 if all numbers are the same."""
        return self.std if self.std > 0 else 1.0


class Fingerprint(BaseModel):
    """Content of ``dataset_fingerprint.json``: nnU-Net's keys, then further ones.

    Axes are (z, y, x) of the files, after each case was turned to the voxel order in which most of them are stored.
    """

    model_config = ConfigDict(frozen=True)

    spacings: tuple[tuple[float, float, float], ...]
    """mm, one per case, in case order."""
    shapes_after_crop: tuple[tuple[int, int, int], ...]
    """Voxels (z, y, x), one per case. The shape of the whole image if nothing is cropped."""
    foreground_intensity_properties_per_channel: dict[str, IntensityProperties]
    """Channel number as a string -> statistics."""
    median_relative_size_after_cropping: float
    """Median over cases of the share of voxels that cropping leaves, 0 to 1."""
    cases: tuple[str, ...] = ()
    """Names of the cases, in the order of the lists above."""
    intensity_source: dict[str, str] = Field(default_factory=dict)
    """Channel number -> ``"foreground"``, or ``"body"`` if too few foreground voxels are annotated."""
    foreground_voxels: int = 0
    """Number of informative foreground voxels behind the intensity statistics."""
    annotated_fraction: dict[str, float] = Field(default_factory=dict)
    """Case -> share of informative voxels (label set smaller than all classes), 0 to 1."""
    drawn_fraction: dict[str, float] = Field(default_factory=dict)
    """Case -> share of annotated voxels, 0 to 1. Voxels whose set only lacks absent classes do not count."""
    annotated_in_slices: dict[str, float] = Field(default_factory=dict)
    """Case -> share of the annotated voxels that lie in slices annotated by at least half, 0 to 1; 0 for scribbles."""
    annotated_classes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Case -> indices of the heads (classes, or regions) to which at least one voxel certainly belongs; ascending."""
    direction: Direction | None = None
    """Direction cosines of the voxel order in which most cases are stored, see
    :class:`autoseg.core.geometry.Geometry`. None if no file states the direction of its axes."""
    turned: dict[str, str] = Field(default_factory=dict)
    """Case -> voxel order of its file (``RAS``: x to the right, y to anterior, z to superior), for the cases that must
    be turned to ``direction``."""
    foreground_outside: dict[str, int] = Field(default_factory=dict)
    """Case -> number of voxels annotated as foreground outside the box of non-zero voxels, for cases that have any. If
    there is any, no case is cropped."""
    background_outside: dict[str, int] = Field(default_factory=dict)
    """Case -> number of voxels annotated as background outside that box, for cases that have any."""
    targets: dict[str, TargetProperties] = Field(default_factory=dict)
    """Name of each target of a regression -> its statistics; empty for classes."""
    source_hash: str = ""
    """Hash of the source files and dataset.json. A fingerprint with another hash is stale."""

    has_volumes: bool = False
    """Whether cases are parts of volumes."""

    @property
    def crop(self) -> bool:
        """Whether images can be cropped to their non-zero box without losing annotated foreground.

        Never for regression, whose predictions have a number in every voxel, nor for parts of volumes, which are
        predicted block by block.
        """
        return not (self.foreground_outside or self.targets or self.has_volumes)

    @property
    def informative_cases(self) -> tuple[str, ...]:
        """Cases with at least one informative voxel, in case order. Training uses these."""
        return tuple(case for case in self.cases if self.annotated_fraction.get(case, 1.0) > 0)
