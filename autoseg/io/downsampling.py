"""Halving of arrays for the coarser levels of a pyramid: by the mean of intensities, the majority of labels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Shape3

Reduction = Literal["mean", "majority", "nearest"]


def downsampled(array: NDArray[Any], factors: Shape3, reduction: Reduction) -> NDArray[Any]:
    """Return an array (C, z, y, x) reduced by ``factors`` (z, y, x), each 1 or 2, of the same type.

    Each new voxel stands for a cell of up to 8: ``mean`` is their mean, of integers rounded (halves to even);
    ``majority`` is their most frequent value, of equally frequent ones the largest, so that thin objects win over a
    background of 0; ``nearest`` is the first. Cells at the end of an axis of odd length hold what is there.
    """
    far = [(0, -length % factor) for length, factor in zip(array.shape[1:], factors, strict=True)]
    array = np.pad(array, [(0, 0), *far], mode="edge")  # a voxel twice: neither mean nor majority of the cell changes
    if reduction == "nearest":
        z, y, x = factors
        return array[:, ::z, ::y, ::x]
    cells = _cells(array, factors)
    if reduction == "majority":
        return _majority(cells)
    dtype = np.float32 if array.dtype.itemsize <= 2 else np.float64
    mean = cells.mean(axis=0, dtype=dtype)
    if array.dtype.kind in "iu":
        np.rint(mean, out=mean)
    return np.asarray(mean.astype(array.dtype))


def halving(shape: Shape3, spacing: tuple[float, float, float]) -> Shape3:
    """Return the factors (z, y, x), 1 or 2, that lead to the next level: voxels become no less like cubes.

    An axis is halved if it has more than one voxel and its spacing is less than twice the finest. If none has, all are
    1.
    """
    finest = min(spacing)
    z, y, x = (2 if length > 1 and edge < 2 * finest else 1 for length, edge in zip(shape, spacing, strict=True))
    return (z, y, x)


def _cells(array: NDArray[Any], factors: Shape3) -> NDArray[Any]:
    """Return the voxels of each cell along a new first axis: (n, C, z, y, x)."""
    c, z, y, x = array.shape
    fz, fy, fx = factors
    cells = array.reshape(c, z // fz, fz, y // fy, fy, x // fx, fx)
    return cells.transpose(2, 4, 6, 0, 1, 3, 5).reshape(fz * fy * fx, c, z // fz, y // fy, x // fx)


def _majority(cells: NDArray[Any]) -> NDArray[Any]:
    ordered = np.sort(cells, axis=0)[::-1]
    counts = np.stack([(ordered == value).sum(axis=0, dtype=np.uint8) for value in ordered])
    winner = counts.argmax(axis=0)[None]
    return np.asarray(np.take_along_axis(ordered, winner, axis=0)[0])
