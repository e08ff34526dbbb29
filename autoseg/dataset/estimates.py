"""What the promises of a data set leave to be found in its annotation: reaches, and the axis of the slices."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ReachEstimate(BaseModel):
    """The reach of one class over a whole data set, and what it was estimated from; mm."""

    model_config = ConfigDict(frozen=True)

    reach_mm: float
    diameter_mm: float
    """Farthest that two voxels of the class lie apart in one case, at most: in the cases that are densely annotated,
    and as far as the annotation of the others reaches."""
    n_cases: int
    """Cases in which the class is densely annotated."""


class PromiseEstimates(BaseModel):
    """``annotation_promises.json``: estimated once per data set, used by every case."""

    model_config = ConfigDict(frozen=True)

    classes: dict[int, ReachEstimate]
    """Class index -> estimate; a class without evidence is left out and promises nothing."""
    slice_axis: int | None
    """Axis of the file, 0 to 2, across which the annotation of all cases lies in slices; None leaves it to spacings."""
    unclear: tuple[str, ...]
    """Cases in which neither tells across which axis the slices lie."""
    source_hash: str = ""
    """Hash over the source files and dataset.json; estimates with another hash are stale."""
