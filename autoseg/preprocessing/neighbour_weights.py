"""Linear interpolation of codes, voxel by voxel: the code whose source voxels around an output voxel weigh most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.preprocessing.axes import AxisPart, IndexArray
from autoseg.preprocessing.label_set_unions import LabelSetUnions

Codes = NDArray[Any]
_CLOSE = 1e-5  # sums nearer to 0.5 than this are computed again in float64, to tell a tie from a small difference


@dataclass(frozen=True, slots=True)
class AxisNeighbours:
    """Neighbours and their weights of each output index along one axis."""

    steps: tuple[IndexArray, ...]
    """One or two (m,) arrays: flat source offsets of the neighbours."""
    weights: tuple[NDArray[np.float64], ...]
    """Weights of the two arrays, (m,) each; empty if there is only one."""
    nearest: IndexArray
    """(m,) flat source offset of the nearest voxel."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The ``2**d`` source voxels around each of n output voxels, d the number of interpolated axes."""

    codes: Codes
    """(2**d, n) codes."""
    shares: tuple[tuple[NDArray[np.float64], ...], ...]
    """Per interpolated axis, weights (n,) of its lower and of its upper voxels; a neighbour has the product of its
    weights."""
    nearest: Codes
    """(n,) code of the nearest source voxel."""

    def weights(self, dtype: type[np.floating[Any]]) -> list[NDArray[Any]]:
        """Return 2**d arrays (n,), in the order of ``codes``, multiplied axis by axis as in ``ndimage.zoom``."""
        products: list[NDArray[Any]] = [np.ones(1, dtype=dtype)]
        for pair in self.shares:
            typed = [share.astype(dtype, copy=False) for share in pair]
            products = [product * share for product in products for share in typed]
        return products

    def subset(self, rows: NDArray[np.intp]) -> Neighbours:
        """Return the neighbours of the voxels at ``rows`` (m,)."""
        shares = tuple(tuple(share[rows] for share in pair) for pair in self.shares)
        return Neighbours(self.codes.take(rows, axis=1), shares, self.nearest[rows])


def axis_neighbours(before: Sequence[int], part: AxisPart, axis: int, *, is_linear: bool) -> AxisNeighbours:
    """Return the table of an axis of an array of shape ``before``; if not linear, only the nearest voxels."""
    stride = int(np.prod(before[axis + 1 :], dtype=np.intp))
    nearest = part.nearest() * stride
    if not is_linear:
        return AxisNeighbours((nearest,), (), nearest)
    lower, upper, weight = part.taps()
    return AxisNeighbours((lower * stride, upper * stride), (1 - weight, weight), nearest)


def gather_neighbours(
    flat_source: Codes, chosen: NDArray[np.intp], shape: Sequence[int], tables: Sequence[AxisNeighbours]
) -> Neighbours:
    """Return the neighbours of output voxels.

    Parameters
    ----------
    flat_source
        (source voxels,) codes.
    chosen
        (n,) flat indices into ``shape``.
    shape
        Shape (z, y, x) of the output.
    tables
        One per axis.
    """
    rows = chosen // shape[2]
    z = rows // shape[1]
    coordinates = (z, rows - z * shape[1], chosen - rows * shape[2])
    offsets = [np.zeros(1, dtype=np.intp)]
    nearest = np.zeros(len(chosen), dtype=np.intp)
    shares = []
    for coordinate, table in zip(coordinates, tables, strict=True):
        steps = [step.take(coordinate) for step in table.steps]
        offsets = [offset + step for offset in offsets for step in steps]
        nearest += table.nearest.take(coordinate)
        if table.weights:
            shares.append(tuple(weight.take(coordinate) for weight in table.weights))
    codes = np.empty((len(offsets), len(chosen)), dtype=flat_source.dtype)
    for neighbour, offset in zip(codes, offsets, strict=True):
        flat_source.take(offset, out=neighbour, mode="clip")  # never out of range; "clip" only avoids a buffer
    return Neighbours(codes, tuple(shares), flat_source.take(nearest))


def heaviest_code(neighbours: Neighbours) -> Codes:
    """Return the codes (n,) with the largest sum of weights.

    On a tie it is the nearest code if that is tied, otherwise the smallest.
    """
    best = neighbours.nearest.copy()
    doubtful = np.flatnonzero(_weight_of(neighbours.codes, neighbours.weights(np.float32), best) < 0.5 + _CLOSE)
    if len(doubtful):
        rest = neighbours.subset(doubtful)
        best[doubtful] = _exact_heaviest_code(rest, rest.weights(np.float64))
    return best


def heaviest_known_code(
    neighbours: Neighbours, present: Codes, unknown: int, unions: LabelSetUnions | None = None
) -> Codes:
    """Return the known code with the largest sum of weights, if the nearest is known or known codes have half of all.

    Otherwise the code of ``present`` (n,) stays. With ``unions``, known codes that tie give the code of the union of
    their sets. Result: (n,) codes.
    """
    weights = [
        weight * (neighbour != unknown)
        for neighbour, weight in zip(neighbours.codes, neighbours.weights(np.float64), strict=True)
    ]
    # an unknown nearest voxel weighs 0 and so loses against any known neighbour
    best = _exact_heaviest_code(neighbours, weights)
    is_known = (sum(weights) >= 0.5) | (neighbours.nearest != unknown)
    chosen = np.where(is_known & (best != unknown), best, present)
    if unions is not None:
        _unite_ties_(chosen, np.flatnonzero(is_known), neighbours.codes, weights, unions)
    return chosen


def _unite_ties_(
    chosen: Codes, rows: NDArray[np.intp], codes: Codes, weights: Sequence[NDArray[np.float64]], unions: LabelSetUnions
) -> None:
    """Overwrite ``chosen`` (n,) at those of ``rows`` (m,) where several codes share the largest sum of weights above 0.

    ``codes`` is (2**d, n); ``weights`` are 2**d arrays (n,).
    """
    rows = rows[(codes[:, rows] != codes[0, rows]).any(axis=0)]
    codes, weights = codes[:, rows], [weight[rows] for weight in weights]
    sums = np.stack([_weight_of(codes, weights, neighbour) for neighbour in codes])
    is_tied = (sums == sums.max(axis=0)) & (sums > 0)
    first = np.take_along_axis(codes, is_tied.argmax(axis=0)[None], axis=0)
    tied = np.sort(np.where(is_tied, codes, first), axis=0)
    several = np.flatnonzero((tied[0] != tied[-1]) & is_tied.any(axis=0))
    if len(several) == 0:
        return
    kinds, kind_of = np.unique(tied[:, several], axis=1, return_inverse=True)
    for kind, tied_codes in enumerate(kinds.T.tolist()):
        code = unions.code_of(sorted({*tied_codes}))
        if code is not None:
            chosen[rows[several[kind_of.reshape(-1) == kind]]] = code


def _exact_heaviest_code(neighbours: Neighbours, weights: Sequence[NDArray[np.float64]]) -> Codes:
    """Return the codes (n,) of the largest sums in float64, summed in the order of ``ndimage.zoom``."""
    high, low = neighbours.codes.max(axis=0), neighbours.codes.min(axis=0)
    is_pair = np.logical_and.reduce((neighbours.codes == high) | (neighbours.codes == low))
    other = np.where(neighbours.nearest == high, low, high)
    nearest_weight = _weight_of(neighbours.codes, weights, neighbours.nearest)
    best = np.where(_weight_of(neighbours.codes, weights, other) > nearest_weight, other, neighbours.nearest)
    crowded = np.flatnonzero(~is_pair)
    if len(crowded):
        best[crowded] = _heaviest_of_many(
            neighbours.codes.take(crowded, axis=1),
            [weight.take(crowded) for weight in weights],
            neighbours.nearest.take(crowded),
            nearest_weight.take(crowded),
        )
    return best


def _heaviest_of_many(
    codes: Codes, weights: Sequence[NDArray[np.float64]], nearest: Codes, best_weight: NDArray[np.float64]
) -> Codes:
    """Return the codes (n,) of the largest sums among more than two codes.

    ``codes`` is (2**d, n). ``best_weight`` (n,) starts as the sum of ``nearest`` (n,) and is overwritten.
    """
    best = nearest.copy()
    for neighbour in codes:
        total = _weight_of(codes, weights, neighbour)
        wins = (total > best_weight) | ((total == best_weight) & (best != nearest) & (neighbour < best))
        np.copyto(best, neighbour, where=wins)
        np.maximum(best_weight, total, out=best_weight)
    return best


def _weight_of(codes: Codes, weights: Sequence[NDArray[Any]], code: Codes) -> NDArray[Any]:
    """(n,) sum of the weights of the neighbours that have ``code`` (n,); ``codes`` is (2**d, n)."""
    total = np.zeros(len(code), dtype=weights[0].dtype)
    term = np.empty_like(total)
    for neighbour, weight in zip(codes, weights, strict=True):
        np.multiply(weight, neighbour == code, out=term)
        total += term
    return total
