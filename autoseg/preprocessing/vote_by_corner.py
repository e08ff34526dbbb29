"""Linear vote among the source voxels around an output voxel, counted without a pass per label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.preprocessing.axes import IndexArray, linear_taps, nearest_indices
from autoseg.preprocessing.tied_sets import Unions

Codes = NDArray[Any]
_CLOSE = 1e-5  # scores nearer to 0.5 than this are computed again in float64, to tell a tie from a small difference


@dataclass(frozen=True, slots=True)
class AxisTable:
    """Source voxels and weights for the vote of each output index along one axis."""

    steps: tuple[IndexArray, ...]
    """One or two (m,) arrays: flat source offsets of the voxels that vote."""
    weights: tuple[NDArray[np.float64], ...]
    """Weights of the two arrays, (m,) each; empty if there is only one."""
    nearest: IndexArray
    """(m,) flat source offset of the nearest voxel."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """Votes of the ``2**d`` source voxels around each of n output voxels."""

    votes: Codes
    """(2**d, n) codes."""
    shares: tuple[tuple[NDArray[np.float64], ...], ...]
    """Per voting axis, the weights (n,) of its lower and of its upper voxels; a vote has the product of these
    weights."""
    nearest: Codes
    """(n,) code of the nearest source voxel."""

    def weights(self, dtype: type[np.floating[Any]]) -> list[NDArray[Any]]:
        """Return 2**d arrays (n,), in the order of ``votes``, multiplied axis by axis as in ``ndimage.zoom``."""
        products: list[NDArray[Any]] = [np.ones(1, dtype=dtype)]
        for pair in self.shares:
            typed = [share.astype(dtype, copy=False) for share in pair]
            products = [product * share for product in products for share in typed]
        return products

    def subset(self, rows: NDArray[np.intp]) -> Ballot:
        """Return the ballot of the voxels at ``rows`` (m,)."""
        shares = tuple(tuple(share[rows] for share in pair) for pair in self.shares)
        return Ballot(self.votes.take(rows, axis=1), shares, self.nearest[rows])


def corner_table(before: Sequence[int], after: Sequence[int], axis: int, *, is_linear: bool) -> AxisTable:
    """Return the table of an axis between shapes ``before`` and ``after``; if not linear, only the nearest votes."""
    n, m = before[axis], after[axis]
    stride = int(np.prod(before[axis + 1 :], dtype=np.intp))
    nearest = nearest_indices(n, m) * stride
    if not is_linear:
        return AxisTable((nearest,), (), nearest)
    lower, upper, weight = linear_taps(n, m)
    return AxisTable((lower * stride, upper * stride), (1 - weight, weight), nearest)


def collect_votes(
    flat_source: Codes, chosen: NDArray[np.intp], shape: Sequence[int], tables: Sequence[AxisTable]
) -> Ballot:
    """Return the ballot of output voxels.

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
    votes = np.empty((len(offsets), len(chosen)), dtype=flat_source.dtype)
    for vote, offset in zip(votes, offsets, strict=True):
        flat_source.take(offset, out=vote, mode="clip")  # never out of range; "clip" only avoids a buffer
    return Ballot(votes, tuple(shares), flat_source.take(nearest))


def winner(ballot: Ballot) -> Codes:
    """Return the codes (n,) with the largest sum of weights.

    On a tie it is the nearest code if that is tied, otherwise the smallest.
    """
    best = ballot.nearest.copy()
    doubtful = np.flatnonzero(_score(ballot.votes, ballot.weights(np.float32), best) < 0.5 + _CLOSE)
    if len(doubtful):
        rest = ballot.subset(doubtful)
        best[doubtful] = _exact_winner(rest, rest.weights(np.float64))
    return best


def known_winner(ballot: Ballot, present: Codes, unknown: int, unions: Unions | None = None) -> Codes:
    """Return the winner among known codes if the nearest is known or known votes have half of the weight.

    Otherwise the code of ``present`` (n,) stays. With ``unions``, known codes that tie give the code of the union of
    their sets. Result: (n,) codes.
    """
    weights = [
        weight * (vote != unknown) for vote, weight in zip(ballot.votes, ballot.weights(np.float64), strict=True)
    ]
    # an unknown nearest voxel scores 0 and so loses against any known vote
    best = _exact_winner(ballot, weights)
    is_known = (sum(weights) >= 0.5) | (ballot.nearest != unknown)
    chosen = np.where(is_known & (best != unknown), best, present)
    if unions is not None:
        _unite_ties_(chosen, np.flatnonzero(is_known), ballot.votes, weights, unions)
    return chosen


def _unite_ties_(
    chosen: Codes, rows: NDArray[np.intp], votes: Codes, weights: Sequence[NDArray[np.float64]], unions: Unions
) -> None:
    """Overwrite ``chosen`` (n,) at those of ``rows`` (m,) where several codes share the highest score above 0.

    ``votes`` is (2**d, n); ``weights`` are 2**d arrays (n,).
    """
    rows = rows[(votes[:, rows] != votes[0, rows]).any(axis=0)]
    votes, weights = votes[:, rows], [weight[rows] for weight in weights]
    scores = np.stack([_score(votes, weights, vote) for vote in votes])
    is_tied = (scores == scores.max(axis=0)) & (scores > 0)
    first = np.take_along_axis(votes, is_tied.argmax(axis=0)[None], axis=0)
    tied = np.sort(np.where(is_tied, votes, first), axis=0)
    several = np.flatnonzero((tied[0] != tied[-1]) & is_tied.any(axis=0))
    if len(several) == 0:
        return
    kinds, kind_of = np.unique(tied[:, several], axis=1, return_inverse=True)
    for kind, codes in enumerate(kinds.T.tolist()):
        code = unions.code_of(sorted({*codes}))
        if code is not None:
            chosen[rows[several[kind_of.reshape(-1) == kind]]] = code


def _exact_winner(ballot: Ballot, weights: Sequence[NDArray[np.float64]]) -> Codes:
    """Return the winners (n,) by scores in float64, summed in the order of ``ndimage.zoom``."""
    high, low = ballot.votes.max(axis=0), ballot.votes.min(axis=0)
    is_pair = np.logical_and.reduce((ballot.votes == high) | (ballot.votes == low))
    other = np.where(ballot.nearest == high, low, high)
    nearest_score = _score(ballot.votes, weights, ballot.nearest)
    best = np.where(_score(ballot.votes, weights, other) > nearest_score, other, ballot.nearest)
    crowded = np.flatnonzero(~is_pair)
    if len(crowded):
        best[crowded] = _winner_of_many(
            ballot.votes.take(crowded, axis=1),
            [weight.take(crowded) for weight in weights],
            ballot.nearest.take(crowded),
            nearest_score.take(crowded),
        )
    return best


def _winner_of_many(
    votes: Codes, weights: Sequence[NDArray[np.float64]], nearest: Codes, best_score: NDArray[np.float64]
) -> Codes:
    """Return the winners (n,) among more than two codes.

    ``votes`` is (2**d, n). ``best_score`` (n,) starts with the scores of ``nearest`` (n,) and is overwritten.
    """
    best = nearest.copy()
    for vote in votes:
        score = _score(votes, weights, vote)
        wins = (score > best_score) | ((score == best_score) & (best != nearest) & (vote < best))
        np.copyto(best, vote, where=wins)
        np.maximum(best_score, score, out=best_score)
    return best


def _score(votes: Codes, weights: Sequence[NDArray[Any]], code: Codes) -> NDArray[Any]:
    """(n,) sum of the weights of the votes for ``code`` (n,); ``votes`` is (2**d, n)."""
    score = np.zeros(len(code), dtype=weights[0].dtype)
    term = np.empty_like(score)
    for vote, weight in zip(votes, weights, strict=True):
        np.multiply(weight, vote == code, out=term)
        score += term
    return score
