"""Settings for the places of training patches."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


class SamplingConfig(BaseModel):
    """Settings for the places of patches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    forced_fraction: Fraction = 1 / 3
    """Share of patches that must contain a voxel of a foreground class, all classes of the data set equally often."""
    context_fraction: Fraction = 0.0
    """Share of the other patches of sparse cases that may lie anywhere ("context patches"). Scribbled data: 0.7."""
    min_annotated: Fraction = 0.0
    """Smallest annotated share of the voxels of a patch within the image; places with less are rejected. Context
    patches are exempt. 0 is off."""
    min_foreground_voxels: Annotated[int, Field(ge=0)] = 0
    """Smallest number of annotated foreground voxels in a patch; places with fewer are rejected with probability
    reject_probability. Context patches are exempt. 0 is off."""
    reject_probability: Fraction = 0.95
    """Probability that a place with fewer than min_foreground_voxels is rejected."""
    max_attempts: Annotated[int, Field(ge=1)] = 20
    """Number of places drawn for a patch; if all are rejected, the best of them is taken."""

    @property
    def rejects(self) -> bool:
        """Whether any place can be rejected."""
        return self.min_annotated > 0 or (self.min_foreground_voxels > 0 and self.reject_probability > 0)
