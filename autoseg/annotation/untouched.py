"""Predicted objects without annotation, which are wrong if the annotators promise that they touched every object."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.annotation.touches import promised_classes, touched_classes
from autoseg.cases.case import Target
from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.dataset.labels import CaseStatement

_NO_STATEMENT = CaseStatement()


def untouched_components(
    prediction: NDArray[np.integer[Any]],
    codes: CodeArray,
    label_sets: BoolArray,
    statement: CaseStatement = _NO_STATEMENT,
    *,
    is_whole: bool = False,
) -> BoolArray:
    """Return a mask (*S) of the predicted foreground components that contain no annotation of their class.

    A component of a class (neighbours share a face, an edge or a corner) is untouched if no voxel in it or next to it
    was drawn as that class, alone or in a set. A component at the border of a patch is never untouched, because
    annotation may lie beyond the border; an axis of one voxel has no border. Classes that are not in
    ``statement.annotated`` are left out.

    Parameters
    ----------
    prediction
        (*S) class indices.
    codes, label_sets
        The drawn target on the same grid: (*S) and (N, K).
    statement
        Statement of dataset.json about the case.
    is_whole
        Whether the arrays are a whole case, so that nothing lies beyond their border.
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
    prediction: NDArray[np.integer[Any]], drawn: Target, within: Target, statement: CaseStatement = _NO_STATEMENT
) -> Target | None:
    """Return ``within`` without the predicted class at the voxels of untouched predicted objects of a whole case.

    Parameters
    ----------
    prediction
        (*S) class indices.
    drawn
        Drawn label sets of the case, on the grid of ``prediction``.
    within
        Label sets to narrow, on the same grid. A set of the predicted class alone stays as it is.
    statement
        Statement of dataset.json about the case.

    Returns
    -------
    The narrower label sets, or None if no set changes.
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
    return Target(codes, np.concatenate([within.label_sets, rows]), within.undrawn)
