"""Statistics of the intensities of an image, by which all of its parts are normalised alike."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Moments(BaseModel):
    """Mean and spread of the finite intensities among some voxels."""

    model_config = ConfigDict(frozen=True)

    mean: float
    std: float
    """Population standard deviation."""


class ChannelStatistics(BaseModel):
    """Intensities of one channel of a volume. 0 everywhere if no voxel is there."""

    model_config = ConfigDict(frozen=True)

    everywhere: Moments
    """Of all voxels that are there."""
    nonzero: Moments
    """Of those at which any channel is not 0."""
    low: float
    """Smallest intensity."""
    high: float
    """Largest intensity."""
