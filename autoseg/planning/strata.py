"""Kinds of cases by what is annotated in them, spread over the folds so that each can learn and judge all kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.fingerprint import Fingerprint
from autoseg.dataset.schema import BACKGROUND
from autoseg.inspection.integrity import FoldGap, IntegrityReport

THIN, NEARLY_DENSE = 0.02, 0.6
"""Annotated shares that part scribbles and points from slices and patches, and these from all but dense cases."""
LEVELS = (
    "only statements of what is not there",
    f"under {100 * THIN:.0f} % of its voxels annotated",
    f"{100 * THIN:.0f} % to {100 * NEARLY_DENSE:.0f} % of its voxels annotated",
    f"{100 * NEARLY_DENSE:.0f} % or more of its voxels annotated",
)
"""How densely a case is annotated, in words."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CaseProfile:
    """What is annotated in a case, as far as folds care."""

    heads: frozenset[int]
    """Indices of the heads (classes or regions) with a voxel that is certainly theirs."""
    share: float
    """Share of voxels that somebody drew, 0 to 1."""

    @property
    def level(self) -> int:
        """How densely the case is annotated: an index into ``LEVELS``."""
        if not self.heads:
            return 0
        return 1 + (self.share >= THIN) + (self.share >= NEARLY_DENSE)


def profiles_from_fingerprint(fingerprint: Fingerprint) -> dict[str, CaseProfile]:
    """Return what the fingerprint knows of each case; one that was made by an earlier version knows nothing."""
    return {
        case: CaseProfile(frozenset(heads), fingerprint.drawn_fraction.get(case, 1.0))
        for case, heads in fingerprint.annotated_classes.items()
    }


def profiles_from_report(report: IntegrityReport) -> dict[str, CaseProfile]:
    """Return what the check of a data set found in each case."""
    return {
        case: CaseProfile(
            frozenset(index for index, head in enumerate(report.heads) if found.positive[head]),
            found.drawn_fraction,
        )
        for case, found in report.cases.items()
    }


def spread(folds: Sequence[Sequence[int]], units: Sequence[Sequence[CaseProfile]]) -> list[list[int]]:
    """Swap units between folds until each head and each density occurs in every fold, as far as swaps can do it.

    A kind (head or density) with fewer units than folds shall be in as many folds as it has units. Each swap is the
    one that mends most; of equals the one after which the kinds concerned lie most evenly, then the first. Where
    nothing is amiss nothing is swapped, so that the folds stay those of nnU-Net.

    Parameters
    ----------
    folds
        Per fold the indices of its units.
    units
        Per unit (a case, or a group of cases that stays together) the profiles of its cases.

    Returns
    -------
    The folds, each with as many units as before.
    """
    kinds = _kinds(units)  # (U, L)
    fold_of = np.zeros(len(units), dtype=np.intp)
    for fold, members in enumerate(folds):
        fold_of[list(members)] = fold
    wanted = np.minimum(kinds.sum(axis=0), len(folds))  # (L,) folds that shall hold the kind
    for _ in range(kinds.size):
        counts = np.stack([kinds[fold_of == fold].sum(axis=0) for fold in range(len(folds))])  # (F, L)
        swap = _best_swap(kinds, fold_of, counts, wanted)
        if swap is None:
            break
        one, other = swap
        fold_of[one], fold_of[other] = fold_of[other], fold_of[one]
    return [np.flatnonzero(fold_of == fold).tolist() for fold in range(len(folds))]


def find_gaps(
    splits: Sequence[tuple[Sequence[str], Sequence[str]]], profiles: Mapping[str, CaseProfile], heads: Sequence[str]
) -> tuple[FoldGap, ...]:
    """Return the classes, and the densities of annotation, that a fold does not have.

    Parameters
    ----------
    splits
        (training cases, validation cases) of each fold. A part without cases is passed over.
    profiles
        Of the cases; those without one count as not annotated. None at all: nothing is known, and nothing is found.
    heads
        Names of the classes or regions, in order.

    Returns
    -------
    Every head missing in the training or validation part of a fold (background, which is not scored, in the former
    only); every density missing in its validation part
    though enough cases for all folds have it.
    """
    common = [profiles[name].level for name in sorted({name for _, val in splits for name in val}) if name in profiles]
    levels = {level for level in range(len(LEVELS)) if common.count(level) >= len(splits)}
    gaps = []
    for fold, (train, val) in enumerate(splits if profiles else ()):
        for part, names in (("train", train), ("val", val)):
            found = [profiles[name] for name in names if name in profiles]
            drawn = frozenset[int]().union(*(item.heads for item in found))
            scored = heads if part == "train" else [name for name in heads if name != BACKGROUND]
            missing = tuple(name for name in scored if heads.index(name) not in drawn)
            absent = sorted(levels - {item.level for item in found}) if part == "val" else []
            if names and (missing or absent):
                gaps.append(FoldGap(fold, part, missing, tuple(LEVELS[level] for level in absent)))
    return tuple(gaps)


def _kinds(units: Sequence[Sequence[CaseProfile]]) -> Counts:
    """(U, L) 0 or 1: the unit has a case with that head, or of that density."""
    n_heads = 1 + max((head for unit in units for profile in unit for head in profile.heads), default=-1)
    kinds = np.zeros((len(units), n_heads + len(LEVELS)), dtype=np.int64)
    for row, unit in zip(kinds, units, strict=True):
        for profile in unit:
            row[[*profile.heads, n_heads + profile.level]] = 1
    return kinds


def _best_swap(kinds: Counts, fold_of: NDArray[np.intp], counts: Counts, wanted: Counts) -> tuple[int, int] | None:
    """Return the two units whose swap lowers (folds lacked, unevenness of the kinds lacked) most; None if none does."""
    lacked = np.flatnonzero((counts > 0).sum(axis=0) < wanted)
    best, swap = (0, 0), None
    for one in np.flatnonzero(kinds[:, lacked].any(axis=1)):
        lacks = (counts[:, lacked] == 0) & (kinds[one, lacked] > 0)  # (F, lacked)
        others = np.flatnonzero(lacks.any(axis=1)[fold_of])
        if len(others) == 0:
            continue
        here, there = np.broadcast_arrays(counts[fold_of[one]], counts[fold_of[others]])  # (V, L) each
        moved = kinds[others] - kinds[one]
        before, after = np.stack([here, there]), np.stack([here + moved, there - moved])
        empty = ((after == 0).sum(axis=(0, 2)) - (before == 0).sum(axis=(0, 2))).tolist()
        uneven = ((after**2)[..., lacked].sum(axis=(0, 2)) - (before**2)[..., lacked].sum(axis=(0, 2))).tolist()
        change, first = min((pair, index) for index, pair in enumerate(zip(empty, uneven, strict=True)))
        if change < best:
            best, swap = change, (int(one), int(others[first]))
    return swap
