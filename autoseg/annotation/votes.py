"""Votes of several experts for the classes of voxels, reduced to the patterns of votes that occur.

Five experts and two classes have at most 243 patterns, whatever the number of voxels, so what depends on votes is
computed from patterns and their counts: exactly, and in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, CodeArray

NO_VOTE = -1
"""Vote of an expert who left a voxel unannotated."""

_LARGEST_TABLE = 2**16
"""Number of possible patterns above which those that do not occur are left out before the next expert is added."""


@dataclass(frozen=True, slots=True)
class VotePatterns:
    """Votes of E experts for K classes, as a map of indices into a table of patterns."""

    pattern_of: CodeArray
    """(*S) row of ``votes`` for each voxel."""
    votes: NDArray[np.int64]
    """(P, E) class index, or ``NO_VOTE``. All rows are different."""
    counts: NDArray[np.int64]
    """(P,) number of voxels of each pattern, at least 1. Empty without voxels."""
    n_classes: int
    """K."""

    @property
    def n_experts(self) -> int:
        """E."""
        return int(self.votes.shape[1])

    def tallies(self) -> NDArray[np.int64]:
        """Return (P, K): how many experts voted for each class."""
        return np.stack([(self.votes == index).sum(axis=1) for index in range(self.n_classes)], axis=1)

    def renumbered(self, classes: Sequence[int], n_classes: int) -> VotePatterns:
        """Return the votes for ``n_classes`` other classes.

        ``classes`` (K,) is the index of the other class that a class is part of, or ``NO_VOTE``.
        """
        votes = np.array([*classes, NO_VOTE], dtype=np.int64)[self.votes]  # NO_VOTE takes the last
        rows, row_of = np.unique(votes, axis=0, return_inverse=True)
        if len(rows) == len(votes):
            return VotePatterns(self.pattern_of, votes, self.counts, n_classes)
        row_of = row_of.reshape(-1)
        counts = np.zeros(len(rows), dtype=np.int64)
        np.add.at(counts, row_of, self.counts)
        smaller = row_of.astype(np.min_scalar_type(len(rows) - 1))
        return VotePatterns(smaller[self.pattern_of], rows, counts, n_classes)


def vote_patterns(votes: Iterable[NDArray[np.integer[Any]]], n_classes: int) -> VotePatterns:
    """Return the patterns of the votes of several experts.

    Parameters
    ----------
    votes
        One map (*S) an expert, of class indices from 0 to ``n_classes`` - 1, or ``NO_VOTE``. Read one at a time, so a
        generator holds one of them in memory.
    n_classes
        K, at least 1.

    Raises
    ------
    ValueError
        If there is no expert, shapes differ, or a vote is not one of the classes.
    """
    choices = n_classes + 1
    codes: NDArray[np.unsignedinteger[Any]] | None = None
    rows = np.zeros((1, 0), dtype=np.int64)
    for expert, vote in enumerate(votes):
        _check_votes(vote, n_classes, expert, None if codes is None else codes.shape)
        if codes is None:
            codes = np.zeros(vote.shape, dtype=np.uint8)
        if len(rows) * choices > _LARGEST_TABLE:
            codes, rows = _occurring(codes, rows)
        dtype = np.min_scalar_type(len(rows) * choices)
        choice_of = vote.astype(dtype) + dtype.type(1)  # unsigned: NO_VOTE becomes 0
        codes = codes.astype(dtype) * dtype.type(choices) + choice_of
        parents, choice = np.divmod(np.arange(len(rows) * choices), choices)
        rows = np.column_stack([rows[parents], choice - 1])
    if codes is None:
        raise ValueError("votes: no expert. Give the map of at least one.")
    codes, rows = _occurring(codes, rows)
    counts = np.bincount(codes.ravel(), minlength=len(rows)) if codes.size else np.zeros(0, dtype=np.int64)
    return VotePatterns(codes, rows, counts, n_classes)


def _occurring(codes: CodeArray, rows: NDArray[np.int64]) -> tuple[CodeArray, NDArray[np.int64]]:
    """Return codes (*S) and rows (P', E) without the rows (P, E) that no voxel has."""
    occurs: BoolArray = np.zeros(len(rows), dtype=bool)
    occurs[codes.ravel()] = True
    n_rows = int(occurs.sum())
    if n_rows == len(rows):
        return codes, rows
    new_code = (np.cumsum(occurs) - 1).clip(0).astype(np.min_scalar_type(max(n_rows - 1, 0)))
    return new_code[codes], rows[occurs]


def _check_votes(vote: NDArray[np.integer[Any]], n_classes: int, expert: int, shape: tuple[int, ...] | None) -> None:
    """Raise an ValueError if the votes (*S) of an expert do not fit those before, or the classes."""
    if shape is not None and vote.shape != shape:
        raise ValueError(
            f"votes of expert {expert}: shape {vote.shape}, but those of expert 0 have {shape}. "
            f"All experts must have labelled the same image."
        )
    if not np.issubdtype(vote.dtype, np.integer):
        raise ValueError(f"votes of expert {expert}: dtype {vote.dtype}, expected integers.")
    if vote.size and not NO_VOTE <= (lowest := int(vote.min())) <= (highest := int(vote.max())) < n_classes:
        raise ValueError(
            f"votes of expert {expert}: values from {lowest} to {highest}, expected class indices from 0 to "
            f"{n_classes - 1}, or {NO_VOTE} where the expert labelled nothing."
        )
