"""Settings of where training patches lie."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


class SamplingConfig(BaseModel):
    """How patches are placed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    forced_fraction: Fraction = 1 / 3
    """Share of patches centred on a foreground class, classes balanced over the data set."""
    context_fraction: Fraction = 0.0
    """Share of the other patches that is placed anywhere, where annotation is sparse. Scribbled data: 0.7."""
    min_annotated: Fraction = 0.0
    """Smallest share of annotated voxels in a patch, of those in the image, context patches apart; poorer places are
    drawn again. 0 is off."""
    min_foreground_voxels: Annotated[int, Field(ge=0)] = 0
    """Patches with fewer annotated foreground voxels, context patches apart, are drawn again, with reject_probability.
    0 is off."""
    reject_probability: Fraction = 0.95
    """How often a patch with fewer than min_foreground_voxels is refused."""
    max_attempts: Annotated[int, Field(ge=1)] = 20
    """Places drawn for a patch before the best of those refused is taken."""

    @property
    def rejects(self) -> bool:
        """Whether any place can be refused."""
        return self.min_annotated > 0 or (self.min_foreground_voxels > 0 and self.reject_probability > 0)
