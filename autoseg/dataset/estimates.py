"""Quantities of annotators' promises that are estimated from annotation: reaches, and the axis of the slices."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ReachEstimate(BaseModel):
    """Estimate of the reach of one class over a whole data set; lengths in mm."""

    model_config = ConfigDict(frozen=True)

    reach_mm: float
    diameter_mm: float
    """Upper bound of the distance between two voxels of the class in a case, over the densely annotated cases and the
    annotation of the others."""
    n_cases: int
    """Number of cases in which the class is densely annotated."""


class PromiseEstimates(BaseModel):
    """Content of ``annotation_promises.json``: estimated once per data set, used for every case."""

    model_config = ConfigDict(frozen=True)

    classes: dict[int, ReachEstimate]
    """Class index -> estimate; a class without an estimate is missing and promises nothing."""
    slice_axis: int | None
    """Axis of the file, 0 to 2, perpendicular to the annotated slices of all cases; None: by the spacing."""
    unclear: tuple[str, ...]
    """Cases in which neither annotation nor spacing determines the axis of the slices."""
    source_hash: str = ""
    """Hash over the source files and dataset.json; estimates with another hash are stale."""
