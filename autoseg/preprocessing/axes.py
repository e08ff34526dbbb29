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
_REACH = 40  # source voxels beyond which the prefilter's tail is below the precision of float64
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


@dataclass(frozen=True, slots=True)
class AxisPart:
    """Some voxels of an axis that is resampled from ``n`` to ``m`` voxels; indices count from the first of them.

    A part behaves as the whole axis does, but for voxels near its ends that are not ends of the axis.
    """

    n: int
    m: int
    sources: tuple[int, int]
    """First source voxel, and one past the last."""
    outputs: tuple[int, int]
    """First output voxel, and one past the last."""

    @classmethod
    def whole(cls, n: int, m: int) -> AxisPart:
        """Return all voxels of an axis."""
        return cls(n, m, (0, n), (0, m))

    @property
    def is_whole(self) -> bool:
        """Whether the part is all of the axis."""
        return self == AxisPart.whole(self.n, self.m)

    @property
    def n_outputs(self) -> int:
        """Number of output voxels."""
        return self.outputs[1] - self.outputs[0]

    def nearest(self) -> IndexArray:
        """Return the source voxel nearest to each output voxel, as :func:`nearest_indices`."""
        return self._inside(nearest_indices(self.n, self.m)[slice(*self.outputs)])

    def taps(self) -> tuple[IndexArray, IndexArray, NDArray[np.float64]]:
        """Return the two source voxels around each output voxel, as :func:`linear_taps`."""
        outputs = slice(*self.outputs)
        lower, upper, weight = linear_taps(self.n, self.m)
        return self._inside(lower[outputs]), self._inside(upper[outputs]), weight[outputs]

    def mapped(self) -> NDArray[np.float64]:
        """Return the centres of the source voxels on the axis of the output voxels, as :func:`mapped_positions`."""
        inside = mapped_positions(self.n, self.m)[slice(*self.sources)] - self.outputs[0]
        return inside if self.is_whole else np.clip(inside, 0, self.n_outputs - 1)

    def mapped_voxels(self) -> IndexArray:
        """Return the output voxel at the centre of each source voxel."""
        return np.floor(self.mapped() + 0.5).astype(np.intp)

    def distance(self, outputs: IndexArray, sources: IndexArray) -> NDArray[np.float64]:
        """Return the distance between the centres of output and source voxels, in source voxels."""
        centres = positions(self.n, self.m)[outputs + self.outputs[0]]
        away: NDArray[np.float64] = np.abs(centres - (sources + self.sources[0]))
        return away

    def _inside(self, indices: IndexArray) -> IndexArray:
        """Return indices of source voxels, counted from the first; those outside are the first or last."""
        if self.sources == (0, self.n):
            return indices
        return np.clip(indices - self.sources[0], 0, self.sources[1] - self.sources[0] - 1)


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


@lru_cache(maxsize=256)
def operator_rows(n: int, m: int, order: int, start: int, stop: int) -> Block:
    """Return the rows ``start`` to ``stop - 1``, at least one, of the map of :func:`operator`, whatever its size.

    Weights differ from those of :func:`operator` by less than 1e-9. If ``n == m`` the map is the identity.
    Raises ``ValueError`` if ``order`` is not 0, 1 or 3.
    """
    if order not in ORDERS:
        raise ValueError(f"resampling: spline order {order!r} is not supported, expected one of {ORDERS}.")
    if n == m:
        matrix, first = np.eye(stop - start), start
    else:
        where = np.clip(positions(n, m)[start:stop], 0, n - 1)
        first, last = max(0, int(where[0]) - _REACH), min(n, int(where[-1]) + _REACH + 2)
        matrix = _dense_rows(n, m, order, slice(start, stop), slice(first, last))
    used = np.flatnonzero((np.abs(matrix) > _NEGLIGIBLE).any(axis=0))
    low, high = int(used[0]), int(used[-1]) + 1
    weights = np.ascontiguousarray(matrix[:, low:high], dtype=np.float32)
    weights.flags.writeable = False
    return Block(start, stop, first + low, first + high, weights)


def _dense_operator(n: int, m: int, order: int) -> NDArray[np.float64]:
    """(m, n) weights of the source voxels for each output voxel."""
    return _dense_rows(n, m, order, slice(0, m), slice(0, n))


def _dense_rows(n: int, m: int, order: int, outputs: slice, sources: slice) -> NDArray[np.float64]:
    """Return the weights of some source voxels for some output voxels, one row for each output voxel.

    A spline depends on all source voxels: further ones than those of ``sources`` are taken to repeat its ends.
    """
    first, n_sources = sources.start, sources.stop - sources.start
    matrix = np.zeros((outputs.stop - outputs.start, n_sources))
    rows = np.arange(len(matrix))
    if order == 0:
        matrix[rows, nearest_indices(n, m)[outputs] - first] = 1
        return matrix
    if order == 1:
        lower, upper, weight = (table[outputs] for table in linear_taps(n, m))
        np.add.at(matrix, (rows, lower - first), 1 - weight)
        np.add.at(matrix, (rows, upper - first), weight)
        return matrix
    padded = np.pad(np.eye(n_sources), ((_PADDING, _PADDING), (0, 0)), mode="edge")
    coefficients = ndimage.spline_filter1d(padded, order=3, axis=0, mode="nearest")
    where = positions(n, m)[outputs] + _PADDING
    first_tap = np.floor(where).astype(np.intp) - 1 - first
    for tap, weights in enumerate(_cubic_b_spline(where - np.floor(where))):
        matrix += weights[:, None] * coefficients[first_tap + tap]
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
