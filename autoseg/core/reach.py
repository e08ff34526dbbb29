"""How far a class lies from its annotated voxels at most, where a data set leaves that to be estimated."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReachEstimate(BaseModel):
    """The reach of one class over a whole data set, and what it was estimated from; mm."""

    model_config = ConfigDict(frozen=True)

    reach_mm: float
    extent_mm: float
    """Half of how far the annotation of the class extends, 95th percentile over cases."""
    background_mm: float | None
    """From annotated background to the class, median over cases; None without sparsely annotated background."""
    gap_mm: float
    """Widest gap between annotated slices, 95th percentile over cases; 0 where each slice is annotated."""
    n_cases: int
    """Cases in which the class is annotated."""


class ReachEstimates(BaseModel):
    """``annotation_promises.json``: estimated once per data set, used by every case."""

    model_config = ConfigDict(frozen=True)

    classes: dict[int, ReachEstimate] = Field(default_factory=dict)
    """Class index -> estimate; a class without evidence is left out and promises nothing."""
    source_hash: str = ""
    """Hash over the source files and dataset.json; estimates with another hash are stale."""
