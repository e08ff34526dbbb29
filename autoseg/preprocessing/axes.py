"""Resampling along one axis as tables: the source voxels that each output voxel reads, and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.arrays import Float32Array

IndexArray = NDArray[np.intp]
ORDERS = (0, 1, 3)
"""Spline orders that are supported."""
_PADDING = 12  # voxels that ndimage.zoom repeats at either end before its prefilter when mode is "nearest"
_NEGLIGIBLE = 1e-9  # weights below this are dropped: the prefilter's tail decays by 0.27 per voxel
_BLOCK = 64  # output voxels per block of an operator; wide enough for BLAS, narrow enough to skip the zeros


@dataclass(frozen=True, slots=True)
class Block:
    """Rows ``start:stop`` of an axis operator; outside the columns ``low:high`` they are zero."""

    start: int
    stop: int
    low: int
    high: int
    weights: Float32Array
    """(stop - start, high - low) float32, C-contiguous."""


def positions(n: int, m: int) -> NDArray[np.float64]:
    """(m,) float64: centres of ``m`` output voxels on the axis of the ``n`` source voxels, ``(i + 0.5) n / m - 0.5``.

    Source: ``skimage.transform.resize`` (``scipy.ndimage.zoom`` with ``grid_mode=True``).
    """
    where = np.arange(m, dtype=np.float64)
    where += 0.5
    where *= n / m
    where -= 0.5
    return where


@lru_cache(maxsize=256)
def nearest_indices(n: int, m: int) -> IndexArray:
    """(m,) index of the source voxel nearest to each output voxel, the later one of two equally near. Read-only."""
    return _frozen(np.clip(np.floor(positions(n, m) + 0.5).astype(np.intp), 0, n - 1))


@lru_cache(maxsize=256)
def mapped_positions(n: int, m: int) -> NDArray[np.float64]:
    """(n,) float64: centres of ``n`` source voxels on the axis of the ``m`` output voxels, clipped to it. Read-only."""
    mapped = positions(m, n)
    np.clip(mapped, 0, m - 1, out=mapped)
    mapped.flags.writeable = False
    return mapped


@lru_cache(maxsize=256)
def linear_taps(n: int, m: int) -> tuple[IndexArray, IndexArray, NDArray[np.float64]]:
    """Return the two source voxels around each of ``m`` output voxels, and the weight of the second.

    ``(lower, upper, weight)``, each (m,), read-only. At the ends, and if ``n == m``, both are the same voxel.
    """
    where = np.clip(positions(n, m), 0, n - 1)
    lower = np.floor(where).astype(np.intp)
    weight = where - lower
    upper = np.minimum(lower + 1, n - 1)
    weight.flags.writeable = False
    return _frozen(lower), _frozen(upper), weight


@lru_cache(maxsize=64)
def operator(n: int, m: int, order: int) -> tuple[Block, ...]:
    """Return the linear map from ``n`` source to ``m`` output voxels as blocks of rows, with the spline prefilter.

    Equals ``ndimage.zoom(..., order=order, mode="nearest", grid_mode=True)`` on one axis. Each row sums to 1.
    Raises ``ValueError`` if ``order`` is not 0, 1 or 3.
    """
    if order not in ORDERS:
        raise ValueError(f"resampling: spline order {order!r} is not supported, expected one of {ORDERS}.")
    matrix = _dense_operator(n, m, order)
    blocks = []
    for start in range(0, m, _BLOCK):
        rows = matrix[start : start + _BLOCK]
        used = np.flatnonzero((np.abs(rows) > _NEGLIGIBLE).any(axis=0))
        low, high = int(used[0]), int(used[-1]) + 1
        weights = np.ascontiguousarray(rows[:, low:high], dtype=np.float32)
        weights.flags.writeable = False
        blocks.append(Block(start, start + len(rows), low, high, weights))
    return tuple(blocks)


def _dense_operator(n: int, m: int, order: int) -> NDArray[np.float64]:
    """(m, n) weights of the source voxels for each output voxel."""
    matrix = np.zeros((m, n))
    rows = np.arange(m)
    if order == 0:
        matrix[rows, nearest_indices(n, m)] = 1
        return matrix
    if order == 1:
        lower, upper, weight = linear_taps(n, m)
        np.add.at(matrix, (rows, lower), 1 - weight)
        np.add.at(matrix, (rows, upper), weight)
        return matrix
    padded = np.pad(np.eye(n), ((_PADDING, _PADDING), (0, 0)), mode="edge")
    coefficients = ndimage.spline_filter1d(padded, order=3, axis=0, mode="nearest")
    where = positions(n, m) + _PADDING
    first = np.floor(where).astype(np.intp) - 1
    for tap, weights in enumerate(_cubic_b_spline(where - np.floor(where))):
        matrix += weights[:, None] * coefficients[first + tap]
    return matrix


def _cubic_b_spline(fraction: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return the weights, (m,) each, of four coefficients around points ``fraction`` (m,) behind the second of them."""
    rest = 1 - fraction
    second = 2 / 3 - fraction**2 * (2 - fraction) / 2
    third = 2 / 3 - rest**2 * (2 - rest) / 2
    return rest**3 / 6, second, third, fraction**3 / 6


def _frozen(indices: IndexArray) -> IndexArray:
    """Return ``indices`` (m,) after they were made read-only."""
    indices.flags.writeable = False
    return indices
