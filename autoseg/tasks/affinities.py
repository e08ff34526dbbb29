"""Segmentation of objects by affinities: one output per class, and one per offset for "both voxels are one object"."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.dataset.instance_numbers import Offset
from autoseg.dataset.labels import Labels
from autoseg.tasks.dice import dice_per_head
from autoseg.tasks.instances import known_numbers

if TYPE_CHECKING:
    from torch import Tensor

OPEN, SAME, DIFFERENT = 0, 1, 2
"""States of a pair of voxels: not known, one object, not one object."""


@dataclass(frozen=True)
class PairStates:
    """What is known of the pairs of each voxel v and v + offset: whether both lie in one object.

    A pair is known if it is known for both voxels which object they belong to, or that they belong to none; in
    background they are not one object. A pair with a voxel beyond the patch or the image is not known. Rules are all
    combinations of the states of the A pairs of a voxel, 3 to the power of A of them; columns are all combinations of a
    class and of A answers.
    """

    n_classes: int
    offsets: tuple[Offset, ...]

    @property
    def answers(self) -> BoolArray:
        """(2^A, A) bool: the answers "one object" of each combination."""
        return np.array(list(product((False, True), repeat=len(self.offsets))), dtype=bool)

    @property
    def sets(self) -> BoolArray:
        """(3^A, K, K 2^A) bool: the columns that each rule leaves each class."""
        states = np.array(list(product((OPEN, SAME, DIFFERENT), repeat=len(self.offsets))))  # (M, A)
        is_left = ((states[:, None] == OPEN) | ((states[:, None] == SAME) == self.answers)).all(axis=2)  # (M, 2^A)
        of_class = np.eye(self.n_classes, dtype=bool)
        columns: BoolArray = of_class[None, :, :, None] & is_left[:, None, None]
        return columns.reshape(len(states), self.n_classes, -1)

    def rules(self, codes: Tensor, label_sets: Tensor, objects: Tensor | None) -> Tensor:
        """Return the rule of each voxel, (B, *P) int64; see :meth:`autoseg.tasks.task.Refinement.rules`."""
        rules = codes.long() * 0
        if objects is None:
            return rules
        own = known_numbers(codes, label_sets, objects)
        for offset in self.offsets:
            rules = 3 * rules + pair_states(own, offset[3 - (own.ndim - 1) :])
        return rules.masked_fill(own < 0, 0)


def pair_states(own: Tensor, offset: tuple[int, ...]) -> Tensor:
    """Return the state of the pair of each voxel and the one at ``offset`` from it, (B, *P) int64.

    ``own`` are (B, *P) numbers of objects, 0 in background, -1 where they are not known.
    """
    other = own
    for axis, step in enumerate(offset, start=1):
        edge = own.shape[axis]
        moved = own.new_full(own.shape, -1)
        if abs(step) < edge:
            n_left = edge - abs(step)
            moved.narrow(axis, max(0, -step), n_left).copy_(other.narrow(axis, max(0, step), n_left))
        other = moved
    is_same = (own == other) & (own > 0)
    states = is_same.long() * SAME + (~is_same).long() * DIFFERENT
    return states.masked_fill((own < 0) | (other < 0), OPEN)


@dataclass(frozen=True)
class Affinities:
    """Outputs are the foreground classes, then the affinity at each offset, all of them sigmoids.

    Rows are the classes. Those of a voxel are a softmax over 0 for background and the outputs of the classes: what
    independent sigmoids say of classes of which a voxel has exactly one.
    """

    labels: Labels
    is_exclusive: ClassVar[bool] = True

    @property
    def offsets(self) -> tuple[Offset, ...]:
        """(A,) offsets (z, y, x) in voxels of the plan's grid."""
        return () if self.labels.instances is None else self.labels.instances.offsets

    @property
    def outputs(self) -> tuple[str, ...]:
        """(K - 1 + A,) names: those of the foreground classes, then "affinity z y x" with the offset."""
        return (*self.labels.class_names[1:], *(f"affinity {z} {y} {x}" for z, y, x in self.offsets))

    @property
    def refinement(self) -> PairStates:
        """Rule that tells which pairs of voxels are one object."""
        return PairStates(self.labels.n_classes, self.offsets)

    @property
    def regions(self) -> BoolArray:
        """(K - 1 + A, K 2^A) bool: the columns of ``PairStates.sets`` for which each output is positive."""
        answers, n_classes = self.refinement.answers, self.labels.n_classes
        of_class = np.eye(n_classes, dtype=bool)[1:].repeat(len(answers), axis=1)
        return np.concatenate([of_class, np.tile(answers.T, (1, n_classes))])

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits of classes (B, K, *P) for a softmax: 0 for background, then those of the classes."""
        scores = logits[:, : self.labels.n_classes].clone()
        scores[:, 1:] = logits[:, : self.labels.n_classes - 1]
        scores[:, 0] = 0
        return scores

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class, (B, K, *P) in [0, 1]."""
        return self.scores(logits).softmax(1)

    def cores(self, logits: Tensor) -> Tensor:
        """Return how probably a voxel is one object with its nearest neighbours, (B, K, *P) in [0, 1].

        It is the smallest of the affinities to the neighbours that share a face, the same for all classes. The mean is
        2/3 at a plane between two objects in 3-D, so no threshold of it would part them well. Along the first of three
        axes only the neighbour at the offset counts, so that a prediction can come in slabs of planes.
        """
        affinities = logits[:, self.labels.n_classes - 1 :].sigmoid()
        smallest = affinities.new_ones(()).expand(logits[:, :1].shape)
        for index, offset in enumerate(self.offsets):
            if sum(map(abs, offset)) > 1:
                continue
            own = affinities[:, index : index + 1]
            smallest = smallest.minimum(own)
            for axis, step in zip((-2, -1), offset[1:], strict=True):
                if step:
                    smallest = smallest.minimum(_moved(own, axis, step))
        return smallest.expand(-1, self.labels.n_classes, *[-1] * (logits.ndim - 2))

    def affinity_logits(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return the logits of the affinity at each offset, (A, *S), of logits (O, *S), which more may follow."""
        first = self.labels.n_classes - 1
        return logits[first : first + len(self.offsets)]

    def score(self, counts: Tensor) -> list[float | None]:
        """Return the Dice of each of the classes from counts (3, K); None where it shows nowhere."""
        return dice_per_head(counts)

    def decode(self, logits: NDArray[np.floating[Any]]) -> LabelMap:
        """Return the values (*S) of the classes with the largest probability."""
        classes = logits[: self.labels.n_classes - 1]
        return self.labels.decode(np.concatenate([np.zeros_like(classes[:1]), classes]))

    def finish(self, label_map: LabelMap) -> LabelMap:
        """Return the map of classes (z, y, x) as it is; objects are parted by :mod:`autoseg.tasks.separation`."""
        return label_map


def _moved(affinities: Tensor, axis: int, step: int) -> Tensor:
    """Return affinities at the other voxel of each pair, ``step`` of 1 or -1 voxels along an axis; 1 without a pair."""
    n_left = affinities.shape[axis] - 1
    moved = affinities.new_ones(affinities.shape)
    moved.narrow(axis, max(0, step), n_left).copy_(affinities.narrow(axis, max(0, -step), n_left))
    return moved


def output_offsets(labels: Labels) -> tuple[Offset, ...]:
    """Return the offset of each output of the network, (O,), 0 0 0 for classes; () if no output is an affinity.

    Mirrored copies of a patch see each pair from its other end, so affinities are moved by their offset there.
    """
    if labels.instances is None or not labels.instances.offsets:
        return ()
    return (*[(0, 0, 0)] * (labels.n_classes - 1), *labels.instances.offsets)
