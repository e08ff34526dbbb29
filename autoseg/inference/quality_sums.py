"""Sums over a prediction, slab by slab, that tell how sure the model is of each class of the case."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.dataset.labels import Labels
from autoseg.inference.decided import DecidedSlab
from autoseg.tasks.task import task_of


@dataclass(frozen=True, slots=True)
class HeadConfidence:
    """Confidence of a model in one class or region of a case."""

    soft_dice: float | None
    """Soft Dice confidence, 0 to 1; 0 where nothing is predicted, None if its probability is 0 everywhere, too."""
    pairwise_dice: float | None
    """Mean Dice of pairs of members, 0 to 1; None with fewer than two members, or if they were not asked for."""
    n_voxels: int
    """Voxels predicted as the head."""


class QualitySums:
    """Observer that sums, for every foreground head, probabilities and predicted voxels in one pass.

    Attributes
    ----------
    needs_members
        Whether it asks for the members. Their pairwise Dice is measured wherever a slab has several of them.
    heads
        The foreground heads, in the order of the labels.
    """

    def __init__(self, labels: Labels, *, needs_members: bool = False) -> None:
        self.needs_members = needs_members
        self._heads = labels.foreground_heads
        self.heads = tuple(labels.heads[head] for head in self._heads)
        self._is_exclusive = task_of(labels).is_exclusive
        self._sums = np.zeros((3, len(self._heads)))
        self._sizes: NDArray[np.int64] = np.zeros((0, len(self._heads)), dtype=np.int64)
        self._shared: NDArray[np.int64] = np.zeros((0, len(self._heads)), dtype=np.int64)

    def __call__(self, slab: DecidedSlab) -> None:
        """Add a slab."""
        for index, (number, head) in enumerate(zip(self._heads, self.heads, strict=True)):
            values = head.values
            predicted = slab.values == values[0] if len(values) == 1 else np.isin(slab.values, values)
            probability = slab.probabilities[number]
            inside = float(probability[predicted].sum(dtype=np.float64))
            total, size = float(probability.sum(dtype=np.float64)), int(np.count_nonzero(predicted))
            self._sums[:, index] += (inside, total, size)
        if len(slab.members) > 1:
            self._add_members(slab.members)

    def _add_members(self, members: tuple[Float32Array, ...]) -> None:
        """Add the sizes of the heads of each member, and of their overlap in each pair of members."""
        pairs = tuple(combinations(range(len(members)), 2))
        if not len(self._sizes):
            self._sizes, self._shared = (np.zeros((n, len(self._heads)), np.int64) for n in (len(members), len(pairs)))
        if self._is_exclusive:
            chosen = [np.argmax(member, axis=0) for member in members]
        for index, head in enumerate(self._heads):
            masks: list[BoolArray] = (
                [most == head for most in chosen] if self._is_exclusive else [member[head] > 0.5 for member in members]
            )
            self._sizes[:, index] += [np.count_nonzero(mask) for mask in masks]
            self._shared[:, index] += [np.count_nonzero(masks[first] & masks[second]) for first, second in pairs]

    def confidences(self) -> tuple[HeadConfidence, ...]:
        """Return the confidence in each foreground head of the slabs so far, in the order of the labels.

        Notes
        -----
        Soft Dice confidence: 2 sum(p y) / (sum p + sum y) over all voxels of the crop, with the mean probability p of
        the head and the mask y of its predicted voxels. Source: Borges et al. 2024 (arXiv 2402.10665), for one class
        against background; here each head is one, and y is what was decided over all heads instead of p > 0.5. By the
        formula it is 0 without a predicted voxel: the Dice is then 0, too, wherever the class is there.

        Pairwise Dice: mean over the pairs of members of 2 |A and B| / (|A| + |B|), where each member decides by its own
        probabilities. Source of the measure: Zenk et al. 2025 (MedIA 101:103392). Two members that predict nothing
        count as 1 here, since they agree.
        """
        pairwise = self._pairwise()
        return tuple(
            HeadConfidence(2 * inside / (total + size) if total + size > 0 else None, agreement, int(size))
            for inside, total, size, agreement in zip(*self._sums, pairwise, strict=True)
        )

    def _pairwise(self) -> list[float | None]:
        """Return the mean Dice of pairs of members for each head."""
        if not len(self._sizes):
            return [None] * len(self._heads)
        sizes = np.array([first + second for first, second in combinations(self._sizes, 2)])
        dice = np.where(sizes > 0, 2 * self._shared / np.maximum(sizes, 1), 1.0)
        means: list[float | None] = dice.mean(axis=0).tolist()
        return means
