"""Annotation of a class: the voxels that were drawn as the class, alone or in a set with others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoseg.core.arrays import BoolArray
from autoseg.dataset.labels import CaseStatement, Labels, informative_codes, undrawn_set


def promise_statement(labels: Labels, case: str) -> CaseStatement:
    """Return the statement about a case, with ``annotated`` reduced to the classes for which promises can hold.

    A drawn set of all classes that are not absent from the case has the same code as unannotated voxels. It is then
    unknown where the classes of that set were annotated, and promises about them can exclude nothing. A file value
    whose set is all classes means "unannotated" and removes no class.
    """
    statement = labels.statements.get(case, CaseStatement())
    everything, undrawn = frozenset(range(labels.n_classes)), undrawn_set(labels, case)
    if not any(members - statement.absent == undrawn for members in labels.set_values.values() if members < everything):
        return statement
    annotated = everything if statement.annotated is None else statement.annotated
    return replace(statement, annotated=annotated - undrawn)


def touched_classes(label_sets: BoolArray, statement: CaseStatement) -> BoolArray:
    """Return (N, K) bool: classes that a voxel of each code annotates. ``label_sets`` is (N, K).

    A drawn set annotates each of its classes, because nobody knows which of them the annotator saw. All classes that
    are not absent from the case together annotate none: the set adds nothing to ``statement``, whoever drew it.
    """
    possible = np.ones(label_sets.shape[1], dtype=bool)
    possible[list(statement.absent)] = False
    is_single = label_sets.sum(axis=1) == 1
    says_more = informative_codes(label_sets) & (label_sets != possible).any(axis=1)
    touched: BoolArray = label_sets & (is_single | says_more)[:, None]
    return touched


def promised_classes(n_classes: int, statement: CaseStatement) -> tuple[int, ...]:
    """Return the foreground classes that the annotators of a case looked for; promises hold for these alone."""
    return tuple(index for index in range(1, n_classes) if statement.annotated is None or index in statement.annotated)
