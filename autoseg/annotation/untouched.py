"""What follows from the promise that every object was touched: a predicted one without annotation is none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.annotation.touches import promised_classes, touched_classes
from autoseg.cases.case import Target
from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.dataset.labels import CaseStatement

_NOTHING_SAID = CaseStatement()


def untouched_components(
    prediction: NDArray[np.integer[Any]],
    codes: CodeArray,
    label_sets: BoolArray,
    statement: CaseStatement = _NOTHING_SAID,
    *,
    is_whole: bool = False,
) -> BoolArray:
    """(*S) bool: predicted foreground that, if every object was touched by its annotators, is not what is predicted.

    A component of a class (neighbours share a face, an edge or a corner) is untouched if no voxel in it or next to it
    was drawn as that class, alone or in a set, and if it does not reach the border of a patch, behind which an
    annotation may lie. An axis of one voxel has no border. Of classes that the annotators of the case did not look for
    (``statement.annotated``) nothing is said.

    Parameters
    ----------
    prediction
        (*S) class indices.
    codes, label_sets
        The drawn target on the same grid: (*S) and (N, K).
    statement
        What is said of the case.
    is_whole
        Whether the arrays are a whole case, with nothing behind their border.
    """
    neighbours = np.ones((3,) * prediction.ndim, dtype=bool)
    touched = touched_classes(label_sets, statement)
    untouched = np.zeros(prediction.shape, dtype=bool)
    for index in promised_classes(label_sets.shape[1], statement):
        components, n_components = ndimage.label(prediction == index, structure=neighbours)
        if n_components == 0:
            continue
        is_open = np.ones(n_components + 1, dtype=bool)
        is_open[0] = False
        drawn = touched[:, index][codes]
        if drawn.any():
            is_open[np.unique(components[ndimage.binary_dilation(drawn, structure=neighbours)])] = False
        for axis in range(prediction.ndim):
            if prediction.shape[axis] > 1 and not is_whole:
                for end in (0, -1):
                    is_open[np.unique(components.take(end, axis=axis))] = False
        untouched |= is_open[components]
    return untouched


def exclude_untouched(
    prediction: NDArray[np.integer[Any]], drawn: Target, within: Target, statement: CaseStatement = _NOTHING_SAID
) -> Target | None:
    """Return ``within`` without the predicted class where the predicted object of a whole case is untouched.

    Parameters
    ----------
    prediction
        (*S) class indices.
    drawn
        What was drawn in the case.
    within
        What each voxel may be. A voxel that may only be what is predicted keeps it.
    statement
        What is said of the case.

    Returns
    -------
    Narrower sets, or None if there is nothing to exclude.
    """
    untouched = untouched_components(prediction, drawn.codes, drawn.label_sets, statement, is_whole=True)
    untouched &= within.label_sets.sum(axis=1)[within.codes] > 1
    untouched &= within.label_sets[within.codes, prediction]
    if not untouched.any():
        return None
    pairs = np.stack([within.codes[untouched], prediction[untouched]])
    kinds, kind_of = np.unique(pairs, axis=1, return_inverse=True)
    rows = within.label_sets[kinds[0]].copy()
    rows[np.arange(len(rows)), kinds[1]] = False
    n_codes = len(within.label_sets)
    codes = within.codes.astype(np.min_scalar_type(n_codes + len(rows) - 1))
    codes[untouched] = n_codes + kind_of.reshape(-1)
    return Target(codes, np.concatenate([within.label_sets, rows]))
