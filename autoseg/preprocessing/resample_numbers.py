"""Resampling of numbers that are known in some voxels, so that no value of an unknown voxel is mixed in."""

from __future__ import annotations

import numpy as np

from autoseg.core.arrays import Float32Array, Shape3
from autoseg.preprocessing.resample_image import resample_image

KNOWN_SHARE = 0.5
"""Least share of the weights of an interpolation that must belong to known voxels."""
_ROUNDING = 1e-5


def resample_numbers(numbers: Float32Array, shape: Shape3, *, separate_axis: int | None = None) -> Float32Array:
    """Resample numbers to another number of voxels in the same field of view, by linear interpolation.

    A voxel gets the mean of its known neighbours by the weights of linear interpolation, unless less than half of the
    weight belongs to known voxels: then it is unknown. Splines of higher order have negative weights, with which such a
    mean may lie far outside the range of its neighbours.

    Parameters
    ----------
    numbers
        (C, *S) float32, NaN where unknown. Not changed.
    shape
        New *S, every length at least 1.
    separate_axis
        Axis along which the nearest slice is taken, or None; see :func:`resample_image`.

    Returns
    -------
    (C, *shape) float32, NaN where unknown.
    """
    is_known = ~np.isnan(numbers)
    resampled = np.full((len(numbers), *shape), np.nan, dtype=np.float32)
    for values, known, result in zip(numbers, is_known, resampled, strict=True):
        if not known.any():
            continue
        middle = np.float32(values[known].mean(dtype=np.float64))  # so that a large offset costs no accuracy
        pair = np.stack([np.where(known, values - middle, np.float32(0)), known.astype(np.float32)])
        total, weight = resample_image(pair, shape, order=1, separate_axis=separate_axis)
        np.divide(total, weight, out=result, where=weight >= KNOWN_SHARE - _ROUNDING)
        result += middle
    return resampled
