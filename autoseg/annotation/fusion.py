"""One target from the labels of several experts: decided by STAPLE or majority, or the set of classes they named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.staple import Float64Array, confusion_matrices, staple
from autoseg.annotation.votes import VotePatterns, vote_patterns
from autoseg.core.arrays import BoolArray, CodeArray, Float32Array

FusionMethod = Literal["staple", "majority", "sets"]

_TIE = 1e-6
"""Probabilities that differ by less are equal: what is left of rounding after the iterations of STAPLE."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """Fused annotation of E experts: a map of codes with a table of label sets, and how the experts agree with it."""

    codes: CodeArray
    """(*S) row of ``label_sets`` for each voxel. Codes below K are classes."""
    code_of: NDArray[np.int64]
    """(P,) row of ``label_sets`` for each pattern of votes."""
    label_sets: BoolArray
    """(N, K): the classes that a voxel of each code may be. Rows 0 to K - 1 are the single classes, row K (undecided)
    is all classes, and with ``sets`` further rows follow for the other sets of classes that experts named."""
    patterns: VotePatterns
    """The votes."""
    probabilities: Float64Array
    """(P, K), 0 to 1: of the classes for each pattern of votes. With ``staple`` as estimated, otherwise the shares of
    the votes. All 0 where nobody voted, and where votes contradict what STAPLE estimates of the experts."""
    confusion: Float64Array
    """(E, K, K): how often expert e votes for class i where the truth is class j, by ``probabilities``."""
    is_settled: bool
    """False if STAPLE ended at its largest number of iterations."""

    @property
    def undecided(self) -> int:
        """Code of the voxels of which nothing is known, K."""
        return int(self.label_sets.shape[1])

    @property
    def sensitivity(self) -> Float64Array:
        """(E, K), 0 to 1: how often an expert votes for a class where it is the truth; 1 if it is nowhere."""
        diagonals: Float64Array = np.diagonal(self.confusion, axis1=1, axis2=2).copy()
        return diagonals

    @property
    def specificity(self) -> Float64Array:
        """(E, K), 0 to 1: how often an expert does not vote for a class where something else is the truth.

        1 if nothing else is.
        """
        voxels = self.patterns.counts.astype(np.float64) @ self.probabilities
        others = voxels.sum() - voxels
        wrong = (self.confusion * voxels).sum(axis=2) - self.sensitivity * voxels
        rates: Float64Array = np.divide(wrong, others, out=np.zeros_like(wrong), where=others > 0)
        return 1.0 - rates

    def class_probabilities(self) -> Float32Array:
        """Return (K, *S) float32, 0 to 1: ``probabilities`` of each voxel."""
        by_class = np.ascontiguousarray(self.probabilities.T, dtype=np.float32)
        return np.stack([row[self.patterns.pattern_of] for row in by_class])

    def vote_counts(self, index: int) -> NDArray[np.uint8]:
        """Return (*S): how many experts voted for class ``index``."""
        return self.patterns.tallies()[:, index].astype(np.uint8)[self.patterns.pattern_of]


def fuse(
    votes: Iterable[NDArray[np.integer[Any]]],
    n_classes: int,
    method: FusionMethod = "staple",
    *,
    undecided: int | None = None,
) -> Fusion:
    """Fuse the annotation of several experts.

    ``staple`` takes the class that is most probable when the experts are rated by each other (see the module staple),
    ``majority`` the one with most votes. A voxel without a single best class is undecided. ``sets`` decides nothing: a
    voxel may be any of the classes that experts named. In all of them a voxel that nobody labelled is unknown, and an
    expert who labelled nothing there is left out.

    Parameters
    ----------
    votes
        (E, *S), or one map (*S) an expert: class indices from 0 to K - 1, or -1 where the expert labelled nothing. A
        single expert's labels come back as they are.
    n_classes
        K, at least 1.
    method
        ``staple``, ``majority`` or ``sets``.
    undecided
        Class of the voxels for which experts voted without a decision; None leaves them unknown. Without meaning for
        ``sets``.

    Raises
    ------
    ValueError
        If there is no expert, shapes differ, a vote is no class, or ``method`` is another word.
    """
    return fuse_patterns(vote_patterns(votes, n_classes), method, undecided=undecided)


def fuse_patterns(patterns: VotePatterns, method: FusionMethod = "staple", *, undecided: int | None = None) -> Fusion:
    """Fuse the annotation of several experts, given as patterns of votes; see :func:`fuse`, also for errors."""
    if method not in get_args(FusionMethod):
        raise ValueError(f"method {method!r}: expected one of {', '.join(get_args(FusionMethod))}.")
    if undecided is not None and not 0 <= undecided < patterns.n_classes:
        raise ValueError(f"undecided {undecided}: expected a class index from 0 to {patterns.n_classes - 1}, or None.")
    tallies = patterns.tallies()
    if method == "staple":
        estimate = staple(patterns)
        possible = _decided(estimate.probabilities, tallies, undecided)
        return _fusion(patterns, possible, estimate.probabilities, estimate.confusion, estimate.is_settled)
    shares = tallies / np.maximum(tallies.sum(axis=1, keepdims=True), 1)
    possible = tallies > 0 if method == "sets" else _decided(shares, tallies, undecided)
    return _fusion(patterns, possible, shares, confusion_matrices(patterns, shares), is_settled=True)


def _decided(probabilities: Float64Array, tallies: NDArray[np.int64], undecided: int | None) -> BoolArray:
    """Return (P, K): the most probable class alone; where several are or none is, all classes, or class ``undecided``.

    Patterns without any vote, a row of zeros in ``tallies`` (P, K), are all classes.
    """
    highest = probabilities.max(axis=1, keepdims=True)
    best: BoolArray = (probabilities >= highest - _TIE) & (highest > 0)
    is_voted = tallies.any(axis=1)
    is_open = (best.sum(axis=1) != 1) | ~is_voted
    if undecided is not None:
        best[is_open & is_voted] = np.arange(best.shape[1]) == undecided
        is_open = ~is_voted
    best[is_open] = True
    return best


def _fusion(
    patterns: VotePatterns, possible: BoolArray, probabilities: Float64Array, confusion: Float64Array, is_settled: bool
) -> Fusion:
    """Return the fusion whose voxels may be the classes ``possible`` (P, K); a row without any is unknown."""
    n_classes = patterns.n_classes
    single = np.eye(n_classes, dtype=bool)
    everything = np.ones((1, n_classes), dtype=bool)
    possible = np.where(possible.any(axis=1, keepdims=True), possible, everything)
    is_other = (possible.sum(axis=1) > 1) & ~possible.all(axis=1)
    others, other_of = _distinct(possible[is_other])
    code_of = np.where(possible.all(axis=1), n_classes, possible.argmax(axis=1))
    code_of[is_other] = n_classes + 1 + other_of
    label_sets = np.concatenate([single, everything, others])
    dtype = np.min_scalar_type(len(label_sets) - 1)
    codes = code_of.astype(dtype)[patterns.pattern_of]
    return Fusion(codes, code_of, label_sets, patterns, probabilities, confusion, is_settled)


def _distinct(rows: BoolArray) -> tuple[BoolArray, NDArray[np.intp]]:
    """Return the distinct ones (N, K) of ``rows`` (P, K), in order of first occurrence, and the index of each row."""
    index: dict[bytes, int] = {}
    row_of = np.array([index.setdefault(row.tobytes(), len(index)) for row in rows], dtype=np.intp)
    distinct = np.frombuffer(b"".join(index), dtype=bool).reshape(-1, rows.shape[1])
    return distinct, row_of
