"""Kinds of cases, by what is annotated in them, and their distribution over the folds.

Each fold shall contain every kind, so that it can learn and validate all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.findings import listed
from autoseg.core.fingerprint import Fingerprint
from autoseg.dataset.schema import BACKGROUND
from autoseg.inspection.integrity import IntegrityReport

THIN, NEARLY_DENSE = 0.02, 0.6
"""Limits of the annotated share: scribbles and points lie below the first, dense cases above the second."""
LEVELS = (
    "annotated with absent classes only",
    f"sparsely annotated (under {100 * THIN:.0f} % of its voxels)",
    f"partly annotated ({100 * THIN:.0f} % to {100 * NEARLY_DENSE:.0f} % of its voxels)",
    f"densely annotated ({100 * NEARLY_DENSE:.0f} % of its voxels or more)",
)
"""Densities of annotation, as shown to users after "is"."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CaseProfile:
    """Annotation of one case."""

    heads: frozenset[int]
    """Indices of the heads (classes or regions) that certainly have a voxel."""
    share: float
    """Share of annotated voxels, 0 to 1."""

    @property
    def level(self) -> int:
        """Density of the annotation: an index into ``LEVELS``."""
        if not self.heads:
            return 0
        return 1 + (self.share >= THIN) + (self.share >= NEARLY_DENSE)


@dataclass(frozen=True, slots=True)
class FoldGap:
    """Classes, or densities of annotation, that one part of a fold lacks."""

    fold: int
    part: str
    """``"train"`` or ``"val"``."""
    heads: tuple[str, ...]
    """Names of the classes or regions that it lacks."""
    densities: tuple[str, ...] = ()
    """Entries of ``LEVELS`` that it lacks."""

    def __str__(self) -> str:
        """Return one line for the user."""
        part, verb = ("training", "learnt") if self.part == "train" else ("validation", "validated")
        lines = []
        if self.heads:
            names = listed(self.heads, 20)
            lines.append(f"fold {self.fold}: {names} cannot be {verb}: no {part} case has an annotated voxel")
        if self.densities:
            levels = " or ".join(self.densities)
            lines.append(f"fold {self.fold}: no {part} case is {levels}, so scores do not cover such cases")
        return "; ".join(lines)


def profiles_from_fingerprint(fingerprint: Fingerprint) -> dict[str, CaseProfile]:
    """Return case -> profile from a fingerprint; empty for fingerprints of earlier versions, which lack these data."""
    return {
        case: CaseProfile(frozenset(heads), fingerprint.drawn_fraction.get(case, 1.0))
        for case, heads in fingerprint.annotated_classes.items()
    }


def profiles_from_report(report: IntegrityReport) -> dict[str, CaseProfile]:
    """Return case -> profile from the check of a data set."""
    return {
        case: CaseProfile(
            frozenset(index for index, head in enumerate(report.heads) if annotation.positive[head]),
            annotation.drawn_fraction,
        )
        for case, annotation in report.cases.items()
    }


def spread(folds: Sequence[Sequence[int]], units: Sequence[Sequence[CaseProfile]]) -> list[list[int]]:
    """Swap units between folds until every kind of case occurs in every fold, as far as swaps can achieve it.

    A kind is a head or a density of annotation. A kind with fewer units than folds shall be in as many folds as it has
    units. Each swap is the one that fills most gaps; of equals, the one after which these kinds are distributed most
    evenly, then the first. Without gaps nothing is swapped, so that the folds stay those of nnU-Net.

    Parameters
    ----------
    folds
        Per fold, the indices of its units.
    units
        Per unit (a case, or a group of cases that stays together), the profiles of its cases.

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
    """Return the classes and the densities of annotation that a fold lacks.

    Parameters
    ----------
    splits
        (training cases, validation cases) of each fold. A part without cases is skipped.
    profiles
        Case -> profile; cases without one count as not annotated. If empty, no gap is returned.
    heads
        Names of the classes or regions, in order.

    Returns
    -------
    Every head that the training or the validation part of a fold lacks (background only in training, because it is not
    scored), and every density that a validation part lacks although enough cases for all folds have it.
    """
    levels_of_cases = [
        profiles[name].level for name in sorted({name for _, val in splits for name in val}) if name in profiles
    ]
    levels = {level for level in range(len(LEVELS)) if levels_of_cases.count(level) >= len(splits)}
    gaps = []
    for fold, (train, val) in enumerate(splits if profiles else ()):
        for part, names in (("train", train), ("val", val)):
            present = [profiles[name] for name in names if name in profiles]
            drawn = frozenset[int]().union(*(item.heads for item in present))
            scored = heads if part == "train" else [name for name in heads if name != BACKGROUND]
            missing = tuple(name for name in scored if heads.index(name) not in drawn)
            absent = sorted(levels - {item.level for item in present}) if part == "val" else []
            if names and (missing or absent):
                gaps.append(FoldGap(fold, part, missing, tuple(LEVELS[level] for level in absent)))
    return tuple(gaps)


def _kinds(units: Sequence[Sequence[CaseProfile]]) -> Counts:
    """(U, L) int64, 0 or 1: the unit has a case with that head, or of that density. U units; L heads and densities."""
    n_heads = 1 + max((head for unit in units for profile in unit for head in profile.heads), default=-1)
    kinds = np.zeros((len(units), n_heads + len(LEVELS)), dtype=np.int64)
    for row, unit in zip(kinds, units, strict=True):
        for profile in unit:
            row[[*profile.heads, n_heads + profile.level]] = 1
    return kinds


def _best_swap(kinds: Counts, fold_of: NDArray[np.intp], counts: Counts, wanted: Counts) -> tuple[int, int] | None:
    """Return the two units whose swap removes most gaps; None if no swap removes any.

    Parameters
    ----------
    kinds
        (U, L) 0 or 1, see :func:`_kinds`.
    fold_of
        (U,) fold of each unit.
    counts
        (F, L) units of each kind in each fold.
    wanted
        (L,) number of folds that shall contain the kind.
    """
    lacked = np.flatnonzero((counts > 0).sum(axis=0) < wanted)
    best, swap = (0, 0), None
    for first_unit in np.flatnonzero(kinds[:, lacked].any(axis=1)):
        lacks = (counts[:, lacked] == 0) & (kinds[first_unit, lacked] > 0)  # (F, lacked)
        others = np.flatnonzero(lacks.any(axis=1)[fold_of])
        if len(others) == 0:
            continue
        here, there = np.broadcast_arrays(counts[fold_of[first_unit]], counts[fold_of[others]])  # (V, L) each
        moved = kinds[others] - kinds[first_unit]
        before, after = np.stack([here, there]), np.stack([here + moved, there - moved])
        empty = ((after == 0).sum(axis=(0, 2)) - (before == 0).sum(axis=(0, 2))).tolist()
        uneven = ((after**2)[..., lacked].sum(axis=(0, 2)) - (before**2)[..., lacked].sum(axis=(0, 2))).tolist()
        change, best_index = min((pair, index) for index, pair in enumerate(zip(empty, uneven, strict=True)))
        if change < best:
            best, swap = change, (int(first_unit), int(others[best_index]))
    return swap
