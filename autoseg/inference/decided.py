"""Slabs of a prediction as its observers get them: what was decided, with the probabilities that it follows from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.inference.window import Slab


@dataclass(frozen=True, eq=False, slots=True)
class DecidedSlab:
    """Planes of a case on the grid between crop and resampling, in the plan's axes: (planes, y, x) of the crop."""

    first: int
    """Index of the first plane."""
    values: LabelMap
    """(planes, y, x) file values that were decided."""
    probabilities: Float32Array
    """(H, planes, y, x) in [0, 1]: mean probability of each head."""
    members: tuple[Float32Array, ...] = ()
    """M of (H, planes, y, x) in [0, 1]: the probabilities of each member, in the order of the model folders and their
    folds; empty unless an observer needs them."""
    cores: Float32Array | None = None
    """(H, planes, y, x) in [0, 1]: mean probability of the inside of an object of each head; None if the model does not
    tell the inside of objects from their boundaries."""
    affinities: Float32Array | None = None
    """(A, planes, y, x) in [0, 1]: mean affinity at each offset, whose steps are voxels of the plan's grid; None if the
    model learnt none."""


class Observer(Protocol):
    """Receiver of the slabs of a case, in the order of the planes, each plane once.

    It may be called in another thread than it was made in, one call at a time. It must not change a slab.
    """

    @property
    def needs_members(self) -> bool:
        """Whether the probabilities of each member are computed, which takes memory for M more buffers of planes."""

    def __call__(self, slab: DecidedSlab) -> None:
        """Take in a slab."""


@runtime_checkable
class LogitsObserver(Protocol):
    """Observer that also gets the logits of every model on the plan's grid, as they are made."""

    def keep_logits(self, first: int, logits: Float32Array) -> None:
        """Take in logits (O, planes, y, x) of one model, the mean of its members first; ``first`` is the first plane.

        It is called in the thread that computes them, each plane of each model once.
        """


def watched(slabs: Iterable[Slab], observers: Iterable[object]) -> Iterator[Slab]:
    """Yield the slabs of a model, each after the observers that want logits took it in."""
    receivers = [observer for observer in observers if isinstance(observer, LogitsObserver)]
    for first, logits in slabs:
        for receiver in receivers:
            receiver.keep_logits(first, logits)
        yield first, logits


def needs_members(observers: Iterable[Observer]) -> bool:
    """Whether an observer needs the probabilities of each member; without observers none does."""
    return any(observer.needs_members for observer in observers)
