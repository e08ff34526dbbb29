"""Decide each voxel within the set of classes that its annotation leaves open."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.dataset.labels import Labels

Values = NDArray[np.unsignedinteger[Any]]


def class_indices(labels: Labels) -> NDArray[np.intp]:
    """Return the table that turns a file value of a class into the index of the class; 0 for values of no class."""
    indices = np.zeros(max(labels.class_values) + 1, dtype=np.intp)
    indices[list(labels.class_values)] = np.arange(labels.n_classes)
    return indices


class Restriction:
    """The label sets of one case, ready to be held against decided voxels."""

    def __init__(self, labels: Labels, label_sets: BoolArray) -> None:
        """Prepare for codes of ``label_sets`` (N, K); an empty set leaves every class open."""
        self._labels = labels
        self._sets = label_sets | ~label_sets.any(axis=1, keepdims=True)
        self._class_of = class_indices(labels)

    def apply(self, values: Values, logits: NDArray[np.float32] | None, codes: CodeArray) -> Values:
        """Return ``values`` with every voxel that its set forbids changed to the most probable class of the set.

        Softmax: the most probable class of the set under the network's probabilities. Regions: what the network paints
        stays where the set allows it; else the class of the set whose regions (in, and not in) are most probable
        together, so that a region that the set excludes is off and one that it implies is on.

        Parameters
        ----------
        values
            (*P) file values, as ``Labels.decode`` gives.
        logits
            (H, *P); None where there is no prediction: then the first class of a set counts as its most probable.
        codes
            (*P) codes of the sets.
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
        """Return for each voxel of ``where`` the position in ``members`` of the most probable class.

        The logarithm of a class's probability is the sum of the logits of the heads that stand for it, up to a term
        that is the same for all classes: a single logit under the softmax, those of its regions else.
        """
        if len(members) == 1:
            return np.zeros(1, dtype=np.intp)
        heads = self._labels.regions[:, members].T.astype(np.float32)
        best: NDArray[np.intp] = np.argmax(heads @ logits[:, where], axis=0)
        return best

    def _ordered(self, members: NDArray[np.intp]) -> NDArray[np.intp]:
        """Put the classes that regions are painted with first: they win a tie."""
        painted = self._labels.paint_values
        if painted is None:
            return members
        first = np.isin(np.asarray(self._labels.class_values)[members], painted)
        return np.concatenate((members[first], members[~first]))
