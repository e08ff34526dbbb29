"""Settings for the places of training patches."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator


def _numbers(value: Any) -> Any:
    """Read ``2,4,4`` as numbers."""
    return value.split(",") if isinstance(value, str) else value


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
    iterations_per_chunk: Annotated[int, Field(ge=0)] = 0
    """Number of iterations in which all patches lie in one chunk of the data, before another chunk is drawn: for
    volumes that do not fit in memory. 0 is off: patches lie anywhere."""
    chunks_per_case: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], BeforeValidator(_numbers)] = (1, 1, 1)
    """Number of chunks of each case along z, y and x, for example 2,4,4. Needs iterations_per_chunk."""

    @model_validator(mode="after")
    def _chunks_are_on(self) -> Self:
        """Refuse a grid of chunks that would not be used."""
        if self.chunks_per_case != (1, 1, 1) and not self.iterations_per_chunk:
            raise ValueError(
                f"chunks_per_case: found {self.chunks_per_case} without iterations_per_chunk, expected both. Set "
                "sampling.iterations_per_chunk, for example 1000."
            )
        return self

    @property
    def rejects(self) -> bool:
        """Whether any place can be rejected."""
        return self.min_annotated > 0 or (self.min_foreground_voxels > 0 and self.reject_probability > 0)
