"""STAPLE for any number of classes and experts: what a voxel is and how good each expert is, estimated together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import logsumexp

from autoseg.annotation.votes import NO_VOTE, VotePatterns

MAX_ITERATIONS = 10_000
"""Iterations after which an estimate that still changes is taken as it is."""
TOLERANCE = 1e-7
"""Largest change of any entry of the confusion matrices at which the estimate counts as settled."""

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StapleEstimate:
    """Result of expectation maximisation on P patterns of votes of E experts for K classes."""

    probabilities: Float64Array
    """(P, K), 0 to 1: of the classes, given the votes. All 0 where the experts contradict what is known of them."""
    confusion: Float64Array
    """(E, K, K), 0 to 1: how often expert e votes for class i (second axis) where the truth is class j (third axis)."""
    n_iterations: int
    """Iterations that were needed."""
    is_settled: bool
    """Whether the estimate had stopped changing when it ended."""


def staple(
    patterns: VotePatterns, *, max_iterations: int = MAX_ITERATIONS, tolerance: float = TOLERANCE
) -> StapleEstimate:
    """Estimate the probabilities of the classes and the confusion matrices of the experts.

    The probability that a voxel is of a class is at first the share of the votes for it. The prior probability of a
    class is its share of all votes, and stays. Votes are independent given the truth. An expert who left a voxel
    unannotated says nothing about it. A class that no voxel has leaves the experts' rates for it open; they are taken
    as 1 for the class itself.

    Parameters
    ----------
    patterns
        Of votes; without any vote, all probabilities are 0.
    max_iterations, tolerance
        When to stop: at that number, or when no entry of a confusion matrix changes by more than ``tolerance``.

    Notes
    -----
    Source: Warfield, Zou and Wells, IEEE TMI 23:903 (2004), sections II and III-E. On two classes the start, the prior
    and the steps are those of ITK's binary filter. Differs from ITK's filters in that rates of 0/0 are defined, and in
    that the multi-label form starts from shares of votes instead of majorities.
    """
    n_classes, n_experts = patterns.n_classes, patterns.n_experts
    counts = patterns.counts.astype(np.float64)
    tallies = patterns.tallies().astype(np.float64)
    n_votes = tallies.sum(axis=1, keepdims=True)
    probabilities = np.divide(tallies, n_votes, out=np.zeros_like(tallies), where=n_votes > 0)
    total = counts @ tallies
    prior = total / max(total.sum(), 1.0)
    choices = [_one_hot(patterns.votes[:, expert], n_classes) for expert in range(n_experts)]
    confusion = _confusion(choices, counts, probabilities)
    for iteration in range(1, max_iterations + 1):
        probabilities = _posterior(patterns.votes, confusion, prior)
        updated = _confusion(choices, counts, probabilities)
        change = float(np.abs(updated - confusion).max(initial=0.0))
        confusion = updated
        if change <= tolerance:
            return StapleEstimate(probabilities, confusion, iteration, is_settled=True)
    return StapleEstimate(probabilities, confusion, max_iterations, is_settled=False)


def confusion_matrices(patterns: VotePatterns, probabilities: Float64Array) -> Float64Array:
    """Return (E, K, K): the share of the votes of each expert for class i where the truth is class j.

    ``probabilities`` (P, K) says what the truth is. Columns of classes that no voxel has are those of a perfect expert.
    """
    experts = range(patterns.n_experts)
    choices = [_one_hot(patterns.votes[:, expert], patterns.n_classes) for expert in experts]
    return _confusion(choices, patterns.counts.astype(np.float64), probabilities)


def _one_hot(votes: NDArray[np.int64], n_classes: int) -> sparse.csr_array:
    """Return the votes (P,) of an expert as a matrix (K, P) of zeros and ones."""
    (voted,) = np.nonzero(votes != NO_VOTE)
    return sparse.csr_array((np.ones(len(voted)), (votes[voted], voted)), shape=(n_classes, len(votes)))


def _confusion(choices: list[sparse.csr_array], counts: Float64Array, probabilities: Float64Array) -> Float64Array:
    """Return the confusion matrices (E, K, K), columns summing to 1, from one-hot votes and probabilities (P, K)."""
    voxels = counts[:, None] * probabilities
    sums = np.stack([choice @ voxels for choice in choices])
    totals = sums.sum(axis=1, keepdims=True)
    perfect = np.broadcast_to(np.eye(sums.shape[-1]), sums.shape)
    return np.where(totals > 0, sums / np.where(totals > 0, totals, 1.0), perfect)


def _posterior(votes: NDArray[np.int64], confusion: Float64Array, prior: Float64Array) -> Float64Array:
    """Return the probabilities (P, K) of the classes, given votes (P, E), confusion matrices (E, K, K), prior (K,)."""
    with np.errstate(divide="ignore"):
        log_confusion = np.log(confusion)
        logs = np.tile(np.log(prior), (len(votes), 1))
    silent = np.zeros((1, confusion.shape[-1]))
    for expert, matrix in enumerate(log_confusion):
        logs += np.concatenate([matrix, silent])[votes[:, expert]]  # NO_VOTE is the last row
    total = logsumexp(logs, axis=1, keepdims=True)
    return np.where(np.isfinite(total), np.exp(logs - np.where(np.isfinite(total), total, 0.0)), 0.0)
