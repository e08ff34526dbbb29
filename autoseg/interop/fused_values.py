"""File values of fused labels: of classes, of sets of classes, and of classes that count less in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.fusion import Fusion

STEPS = 20
"""Number of weights above 0: probabilities are rounded to multiples of 1 / ``STEPS``."""

Meaning = tuple[frozenset[int], int]
"""Indices of the classes that a voxel may be, and its weight in units of 1 / ``STEPS``, from 1 to ``STEPS``."""


@dataclass(frozen=True, slots=True)
class FileValues:
    """File values of the fused labels of a data set."""

    classes: tuple[int, ...]
    """(K,) value of each class."""
    unknown: int
    """Value of voxels that may be any class."""
    further: Mapping[Meaning, int]
    """Value of everything else."""

    def of_patterns(self, fusion: Fusion, *, soft: bool) -> NDArray[np.uint16]:
        """Return (P,) the file value of each pattern of votes."""
        known = {(frozenset({index}), STEPS): value for index, value in enumerate(self.classes)} | {**self.further}
        known[frozenset(range(len(self.classes))), STEPS] = self.unknown
        return np.array([known[meaning] for meaning in meanings(fusion, soft=soft)], dtype=np.uint16)

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the keys ``label_sets`` and ``label_weights`` of a dataset.json; a key without values is left out.

        ``names`` (K,) are those of the classes.
        """
        keys: dict[str, Any] = {"label_sets": {}, "label_weights": {}}
        for (members, steps), value in self.further.items():
            of_members = [names[index] for index in sorted(members)]
            if steps == STEPS:
                keys["label_sets"][str(value)] = of_members
            else:
                keys["label_weights"][str(value)] = {"label": of_members[0], "weight": steps / STEPS}
        return {key: entries for key, entries in keys.items() if entries}


def meanings(fusion: Fusion, *, soft: bool) -> list[Meaning]:
    """Return what a voxel of each pattern of votes (P,) is.

    With ``soft``, a voxel decided for a class has the probability of that class as weight, rounded, and at least one
    step; otherwise all weights are 1. Voxels that may be any class have weight 1.
    """
    sets = [frozenset(np.flatnonzero(row).tolist()) for row in fusion.label_sets]
    n_classes = fusion.label_sets.shape[1]
    steps = np.full(len(fusion.code_of), STEPS)
    if soft:
        is_class = fusion.code_of < n_classes
        chosen = fusion.probabilities[np.flatnonzero(is_class), fusion.code_of[is_class]]
        steps[is_class] = np.clip(np.rint(chosen * STEPS), 1, STEPS)
    return [(sets[code], step) for code, step in zip(fusion.code_of.tolist(), steps.tolist(), strict=True)]


def further_values(
    found: Iterable[Meaning], n_classes: int, first: int, taken: Iterable[int] = ()
) -> dict[Meaning, int]:
    """Return meaning -> file value from ``first`` on, without those of ``taken``, for all but classes and "unknown".

    Sets come first, smaller ones before larger ones; then classes, each with ascending weights.
    """
    wanted = {
        (members, steps) for members, steps in found if len(members) < n_classes and (len(members) > 1 or steps < STEPS)
    }
    ordered = sorted(wanted, key=lambda item: (item[1] < STEPS, len(item[0]), sorted(item[0]), item[1]))
    used, values, value = set(taken), {}, first
    for meaning in ordered:
        while value in used:
            value += 1
        values[meaning] = value
        value += 1
    return values
