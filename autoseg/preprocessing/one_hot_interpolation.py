"""Linear interpolation of codes, code by code: cheaper than voxel by voxel where nearly all source voxels differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.core.chunks import CACHED_VOXELS, chunks
from autoseg.preprocessing.axes import AxisPart, Block, IndexArray, operator

Codes = NDArray[Any]
_CLOSE = 1e-5  # scores nearer to each other than this are left to exact weights
_OUTPUT_COST = 4  # cost of an output voxel relative to a source voxel when a code is interpolated
_NEIGHBOUR_COST = 80  # cost of weighing the neighbours of one contested voxel, in the same unit


@dataclass(frozen=True, slots=True)
class _Axis:
    """Interpolation along one axis."""

    lower: IndexArray
    """(m,) index of the lower source voxel."""
    upper: IndexArray
    """(m,) index of the upper source voxel."""
    weight: Float32Array | None
    """(m,) weight of the upper voxel; None if only the lower one is used."""
    blocks: tuple[Block, ...]
    """The same as matrices; empty for a part, and without weights."""

    def part(self, outputs: slice) -> tuple[_Axis, slice]:
        """Return the axis for some outputs only, and the slice of source voxels that they read.

        The indices of the new axis count from the first of these source voxels.
        """
        lower, upper = self.lower[outputs], self.upper[outputs]
        first, last = int(lower[0]), int(upper[-1]) + 1
        weight = None if self.weight is None else self.weight[outputs]
        return _Axis(lower - first, upper - first, weight, ()), slice(first, last)


def decide_by_one_hot(
    source: Codes, result: Codes, contested: BoolArray, axes: Sequence[int], parts: Sequence[AxisPart]
) -> None:
    """Decide the slabs of a dense map that are so fragmented that interpolation costs less than weighing neighbours.

    Parameters
    ----------
    source
        (z, y, x) codes. Not changed.
    result
        (z', y', x') codes; in these slabs overwritten with the code of the largest sum of linear weights.
    contested
        (z', y', x') bool, True where source voxels differ. In these slabs it is overwritten: True only where the two
        largest sums are so close that rounding could decide between them.
    axes
        Axes that are interpolated; along the others the nearest voxel is taken.
    parts
        The parts of the three axes that ``source`` and ``result`` are.
    """
    lead = next((axis for axis in range(3) if max(source.shape[axis], result.shape[axis]) > 1), 0)
    tables = [_axis(part, is_linear=axis in axes) for axis, part in enumerate(parts)]
    first, others = tables.pop(lead), tables
    source, result, contested = (np.moveaxis(array, lead, 0) for array in (source, result, contested))
    planes = max(source[0].size, result[0].size)
    for slab in chunks(len(result), max(1, 4 * CACHED_VOXELS // planes)):
        part, needed = (None, slab) if first is None else first.part(slab)
        piece = source[needed]
        effort = piece.size + _OUTPUT_COST * result[slab].size
        n_affordable = _NEIGHBOUR_COST * int(np.count_nonzero(contested[slab])) // effort
        codes = _distinct(piece, n_affordable) if n_affordable > 1 else ()
        if codes:
            result[slab], contested[slab] = _highest(piece, codes, (part, *others), result[slab].shape)


def _axis(part: AxisPart, *, is_linear: bool) -> _Axis | None:
    """Return the interpolation along an axis; None if its length does not change."""
    if part.n == part.m:
        return None
    if not is_linear:
        nearest = part.nearest()
        return _Axis(nearest, nearest, None, ())
    lower, upper, weight = part.taps()
    return _Axis(lower, upper, weight.astype(np.float32), operator(part.n, part.m, 1) if part.is_whole else ())


def _distinct(codes: Codes, at_most: int) -> tuple[Any, ...]:
    """Return the different values of ``codes`` (any shape), in any order; empty if there are more than ``at_most``.

    A few passes that compare cost a hundredth of counting or sorting.
    """
    unsigned = codes.view(f"u{codes.itemsize}") if codes.dtype.kind == "i" else codes
    values, last = [unsigned.min()], unsigned.max()
    while values[-1] != last:
        if len(values) == at_most:
            return ()
        above = values[-1] + 1
        values.append(above + (unsigned - above).min())  # smaller codes wrap round to larger differences
    return tuple(np.array(values).view(codes.dtype))


def _highest(
    piece: Codes, codes: Sequence[Any], tables: Sequence[_Axis | None], shape: tuple[int, ...]
) -> tuple[Codes, BoolArray]:
    """Return the codes with the highest score, and bool where another score is close, both of ``shape`` (z', y', x').

    ``piece`` is (z, y, x) codes.
    """
    order = sorted(range(3), key=lambda axis: shape[axis] / piece.shape[axis])
    steps = [(axis, table) for axis in order if (table := tables[axis]) is not None]
    best = _interpolated(piece == codes[0], steps)
    winner = np.full(shape, codes[0])
    is_close = np.zeros(shape, dtype=bool)
    rest = 1 - best
    for code in codes[1:]:
        if code == codes[-1]:
            score = rest  # the weights of all codes sum to 1
        else:
            score = _interpolated(piece == code, steps)
            rest -= score
        lead = score - best
        np.maximum(best, score, out=best)
        np.copyto(winner, code, where=lead > 0)
        is_close &= lead < _CLOSE
        np.abs(lead, out=lead)
        is_close |= lead < _CLOSE
    return winner, is_close


def _interpolated(indicator: BoolArray, steps: Sequence[tuple[int, _Axis]]) -> Float32Array:
    """Interpolate an indicator (z, y, x) along some axes, one after the other."""
    values: NDArray[Any] = indicator
    for axis, table in steps:
        if table.blocks and axis == 2:
            values = _times_matrix(np.ascontiguousarray(values, dtype=np.float32), table.blocks)
            continue
        below = values.take(table.lower, axis=axis).astype(np.float32, copy=False)  # bool is picked as bytes
        if table.weight is not None:
            above = values.take(table.upper, axis=axis).astype(np.float32, copy=False)
            above -= below
            above *= table.weight.reshape([-1 if other == axis else 1 for other in range(3)])
            below += above
        values = below
    return values


def _times_matrix(values: Float32Array, blocks: tuple[Block, ...]) -> Float32Array:
    """Interpolate ``values`` (z, y, x) along the last axis, where a matrix product is faster than picking voxels."""
    flat = values.reshape(-1, values.shape[2])
    result = np.empty((len(flat), blocks[-1].stop), dtype=np.float32)
    for block in blocks:
        np.matmul(flat[:, block.low : block.high], block.weights.T, out=result[:, block.start : block.stop])
    return result.reshape(*values.shape[:2], -1)
