"""What counts as annotation of a class: a voxel drawn as the class, alone or in a set with others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoseg.core.arrays import BoolArray
from autoseg.dataset.labels import CaseStatement, Labels, drawn_codes, undrawn_set


def promise_statement(labels: Labels, case: str) -> CaseStatement:
    """Return what is said of a case, with those classes alone as annotated of which promises may speak.

    A drawn set of all classes that are not absent from the case has the code of voxels that nobody drew. Where somebody
    touched its members is then unknown, and silence says nothing of them. A set of all classes means "nobody drew it".
    """
    statement = labels.statements.get(case, CaseStatement())
    everything, undrawn = frozenset(range(labels.n_classes)), undrawn_set(labels, case)
    if not any(members - statement.absent == undrawn for members in labels.set_values.values() if members < everything):
        return statement
    annotated = everything if statement.annotated is None else statement.annotated
    return replace(statement, annotated=annotated - undrawn)


def touched_classes(label_sets: BoolArray, statement: CaseStatement) -> BoolArray:
    """(N, K) bool: the classes that a voxel of each code is annotation of.

    A drawn set touches each of its members, since nobody knows which of them the annotator saw. What is only known
    from the classes that are absent from the case was drawn by nobody, and touches none.
    """
    undrawn = np.ones(label_sets.shape[1], dtype=bool)
    undrawn[list(statement.absent)] = False
    single = label_sets.sum(axis=1, keepdims=True) == 1
    touched: BoolArray = label_sets & (single | drawn_codes(label_sets, undrawn)[:, None])
    return touched


def promised_classes(n_classes: int, statement: CaseStatement) -> tuple[int, ...]:
    """Return the foreground classes that the annotators of a case looked for, so that their silence says something."""
    return tuple(index for index in range(1, n_classes) if statement.annotated is None or index in statement.annotated)
