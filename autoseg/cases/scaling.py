"""Normalisation of a channel as numbers, by which a box of a volume is normalised wherever it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.core.arrays import Float32Array


class Scaling(BaseModel):
    """Normalisation of one channel: intensities are clipped to ``low`` and ``high``, shifted, and scaled."""

    model_config = ConfigDict(frozen=True)

    shift: float = 0.0
    """Intensity that becomes 0."""
    scale: float = 1.0
    """Difference of intensities that becomes 1; above 0."""
    low: float | None = None
    """Smallest intensity that is kept; None keeps all."""
    high: float | None = None
    """Largest intensity that is kept; None keeps all."""
    keeps_zero: bool = False
    """Whether voxels that are 0 in every channel stay 0."""


def scaled(values: NDArray[Any], scalings: Sequence[Scaling]) -> Float32Array:
    """Return the normalised intensities (C, *box) float32, C-contiguous, of ``values`` (C, *box), which stay."""
    result = np.empty(values.shape, dtype=np.float32)
    for channel, out, scaling in zip(values, result, scalings, strict=True):
        source = channel
        if scaling.low is not None and scaling.high is not None:
            source = np.clip(channel, np.float32(scaling.low), np.float32(scaling.high), out=out)
        np.subtract(source, np.float32(scaling.shift), out=out)
        out /= np.float32(scaling.scale)
    if any(scaling.keeps_zero for scaling in scalings):
        outside = (values == 0).all(axis=0)
        for out, scaling in zip(result, scalings, strict=True):
            if scaling.keeps_zero:
                out[outside] = 0
    return result
