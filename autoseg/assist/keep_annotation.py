"""Restriction of predicted voxels to the classes that their annotation leaves possible."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.dataset.labels import Labels

Values = NDArray[np.unsignedinteger[Any]]


def index_table(labels: Labels) -> NDArray[np.intp]:
    """Return the class index of each file value: (largest value + 1,) intp, 0 for values of no class."""
    indices = np.zeros(max(labels.class_values) + 1, dtype=np.intp)
    indices[list(labels.class_values)] = np.arange(labels.n_classes)
    return indices


class Restriction:
    """Restriction of decided voxels to the label sets of one case."""

    def __init__(self, labels: Labels, label_sets: BoolArray) -> None:
        """Prepare the label sets (N, K) bool, one row per code; an empty set allows every class."""
        self._labels = labels
        self._sets = label_sets | ~label_sets.any(axis=1, keepdims=True)
        self._class_of = index_table(labels)

    def apply(self, values: Values, logits: NDArray[np.float32] | None, codes: CodeArray) -> Values:
        """Return ``values`` (*P) where every voxel that its set excludes is changed to the set's most probable class.

        Softmax: the class of the set with the highest probability. Regions: the class of the set whose regions (in, and
        not in) are most probable together, so that a region that the set excludes is off and one that it implies is on.

        Parameters
        ----------
        values
            (*P) file values, as ``Labels.decode`` returns them.
        logits
            (H, *P) float32; None without a prediction: then the first class of a set counts as its most probable.
        codes
            (*P) integer codes of the sets.
        """
        wrong = ~self._sets[codes, self._class_of[values]]
        if not wrong.any():
            return values
        result = values.copy()
        for code in np.unique(codes[wrong]):
            members = self._ordered(np.flatnonzero(self._sets[code]))
            where = wrong & (codes == code)
            best = np.zeros(1, dtype=np.intp) if logits is None else self._best(logits, where, members)
            result[where] = np.asarray(self._labels.class_values)[members][best]
        return result

    def _best(self, logits: NDArray[np.float32], where: BoolArray, members: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the position in ``members`` (m,) of the most probable class, (n,) for the n voxels of ``where`` (*P).

        ``logits`` are (H, *P). The logarithm of a class's probability is, up to a term that is the same for all
        classes, its logit under the softmax, and the sum of the logits of its regions otherwise. With one member the
        result has shape (1,).
        """
        if len(members) == 1:
            return np.zeros(1, dtype=np.intp)
        heads = self._labels.regions[:, members].T.astype(np.float32)
        best: NDArray[np.intp] = np.argmax(heads @ logits[:, where], axis=0)
        return best

    def _ordered(self, members: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return class indices ``members`` (m,) with those that regions are painted with first: they win a tie."""
        painted = self._labels.paint_values
        if painted is None:
            return members
        first = np.isin(np.asarray(self._labels.class_values)[members], painted)
        return np.concatenate((members[first], members[~first]))
