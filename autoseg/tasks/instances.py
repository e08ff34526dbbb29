"""Segmentation of objects: one output per class, for the inside of its objects, and one for boundaries of objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.dataset.instance_numbers import LARGEST_NUMBER
from autoseg.dataset.labels import Labels
from autoseg.tasks.dice import dice_per_head

if TYPE_CHECKING:
    from torch import Tensor

BOUNDARY = "boundary"
"""Name of the output for boundaries."""
ANY, INSIDE, ON_BOUNDARY = 0, 1, 2
"""Rules of voxels: only the class is known, inside of an object, on its boundary."""


@dataclass(frozen=True)
class ObjectParts:
    """Which voxels of foreground lie inside of an object, which on its boundary, and which may be either.

    The neighbours of a voxel are the 8 (2-D) or 26 (3-D) voxels that share a face, an edge or a corner with it. A voxel
    of an object is

    * on the boundary if a neighbour certainly belongs to another object or to background;
    * otherwise either, if it is not known what a neighbour belongs to: nobody annotated it, or it lies beyond the patch
      or the image;
    * otherwise inside: all neighbours carry its own number.
    """

    n_classes: int

    @property
    def sets(self) -> BoolArray:
        """(3, K, K + 1) bool: the outputs of each class by each rule; background is always background."""
        inside = np.eye(self.n_classes, self.n_classes + 1, dtype=bool)
        boundary = np.zeros_like(inside)
        boundary[0, 0] = boundary[1:, -1] = True
        return np.stack([inside | boundary, inside, boundary])

    def rules(self, codes: Tensor, label_sets: Tensor, objects: Tensor | None) -> Tensor:
        """Return the rule of each voxel, (B, *P) int64; without ``objects`` ``ANY`` everywhere.

        Parameters
        ----------
        codes, label_sets
            As for :meth:`autoseg.tasks.task.Refinement.rules`.
        objects
            (B, *P) int32 numbers of objects, 0 for none, -1 where nothing is known. Codes and numbers are moved by
            different rules, so at edges a voxel of foreground may have no number: then it is on the boundary if it has
            a neighbour in background, or neighbours in different objects.
        """
        if objects is None:
            return codes.long() * ANY
        classes = _single_classes(codes, label_sets)
        own = _numbers_of(classes, objects)
        highest = _spread(own, -1, _higher)
        lowest = _spread(own.masked_fill(own < 0, LARGEST_NUMBER), LARGEST_NUMBER, _lower)
        has_unknown = _spread((own < 0).int(), 1, _higher) > 0
        differs = ((own != highest) | (own != lowest)).where(own > 0, (lowest == 0) | (lowest < highest))
        rules = (INSIDE * (~has_unknown).long()).masked_fill(differs, ON_BOUNDARY)
        return rules.masked_fill(classes <= 0, ANY)


def known_numbers(codes: Tensor, label_sets: Tensor, objects: Tensor) -> Tensor:
    """Return the object (B, *P) int32 of each voxel, 0 in background, -1 where it is not known.

    Parameters as for :meth:`ObjectParts.rules`.
    """
    return _numbers_of(_single_classes(codes, label_sets), objects)


def _numbers_of(classes: Tensor, objects: Tensor) -> Tensor:
    """Return :func:`known_numbers` for the single class (B, *P) of each voxel, -1 for several."""
    own = objects.where((classes > 0) & (objects > 0), objects.new_full((), -1))
    return own.masked_fill((classes == 0) & (objects >= 0), 0)


def _single_classes(codes: Tensor, label_sets: Tensor) -> Tensor:
    """Return the class (B, *P) int64 of each voxel of codes (B, *P) with sets (B, N, K); -1 for several."""
    class_of = label_sets.int().argmax(2).masked_fill(label_sets.sum(2) != 1, -1)  # (B, N)
    return class_of.gather(1, codes.flatten(1).long()).view(codes.shape)


def _higher(one: Tensor, other: Tensor) -> Tensor:
    return one.maximum(other)


def _lower(one: Tensor, other: Tensor) -> Tensor:
    return one.minimum(other)


def _spread(values: Tensor, outside: int, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return what ``choose`` leaves of each voxel of (B, *P) and its neighbours; beyond the patch is ``outside``."""
    for axis in range(1, values.ndim):
        edge = list(values.shape)
        edge[axis] = 1
        beyond = values.new_full(edge, outside)
        before = values.new_empty(values.shape)
        before.narrow(axis, 0, 1).copy_(beyond)
        before.narrow(axis, 1, values.shape[axis] - 1).copy_(values.narrow(axis, 0, values.shape[axis] - 1))
        after = values.new_empty(values.shape)
        after.narrow(axis, values.shape[axis] - 1, 1).copy_(beyond)
        after.narrow(axis, 0, values.shape[axis] - 1).copy_(values.narrow(axis, 1, values.shape[axis] - 1))
        values = choose(choose(values, before), after)
    return values


@dataclass(frozen=True)
class Instances:
    """Outputs are the classes, whose foreground is the inside of objects, and the boundary of any object.

    Rows are the classes: for scores, probabilities and label maps an object is a region of its class. Which voxels are
    one object follows from the probability of being inside, see :mod:`autoseg.tasks.separation`.
    """

    labels: Labels
    is_exclusive: ClassVar[bool] = True
    regions: ClassVar[None] = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """(K + 1,) names of the classes, then ``BOUNDARY``."""
        return (*self.labels.class_names, BOUNDARY)

    @property
    def refinement(self) -> ObjectParts:
        """Rule that tells the inside of objects from their boundaries."""
        return ObjectParts(self.labels.n_classes)

    def scores(self, logits: Tensor) -> Tensor:
        """Return logits of classes (B, K, *P): a boundary belongs to classes as they are probable inside, there."""
        logs = logits.log_softmax(1)
        background, inside, boundary = logs[:, :1], logs[:, 1:-1], logs[:, -1:]
        result = logs[:, :-1].clone()
        result[:, 1:] = inside.logaddexp(boundary + inside.log_softmax(1))
        result[:, :1] = background
        return result

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class, (B, K, *P) in [0, 1]."""
        return self.scores(logits).exp()

    def cores(self, logits: Tensor) -> Tensor:
        """Return the probability of the inside of an object of each class, (B, K, *P) in [0, 1]; see ``Task.cores``."""
        return logits.softmax(1)[:, :-1]

    def score(self, counts: Tensor) -> list[float | None]:
        """Return the Dice of each of the classes from counts (3, K); None where it shows nowhere."""
        return dice_per_head(counts)

    def decode(self, logits: NDArray[np.floating[Any]]) -> LabelMap:
        """Return the values (*S) of the classes with the largest probability, boundaries included."""
        peak = logits.max(axis=0, keepdims=True)
        parts = np.exp(logits - peak)
        background, inside, boundary = parts[:1], parts[1:-1], parts[-1:]
        total = inside.sum(axis=0, keepdims=True)
        share = inside / np.maximum(total, np.finfo(parts.dtype).tiny)
        return self.labels.decode(np.concatenate([background, inside + boundary * share]))

    def finish(self, label_map: LabelMap) -> LabelMap:
        """Return the map of classes (z, y, x) as it is; objects are parted by :mod:`autoseg.tasks.separation`."""
        return label_map
