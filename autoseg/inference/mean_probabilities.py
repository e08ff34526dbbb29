"""Mean of the probabilities of several models of one case, slab by slab, and the label map that follows from it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing

from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.dataset.labels import Labels
from autoseg.inference.decided import DecidedSlab, Observer
from autoseg.inference.export import ProbabilitySlab
from autoseg.tasks.task import task_of

Slabs = Generator[ProbabilitySlab, None, None]
"""Slabs of one model, which cover the planes of a crop in order."""


def decided_mean_slabs(
    models: Sequence[Slabs], heads: Sequence[Sequence[int]], labels: Labels, observers: Sequence[Observer] = ()
) -> Iterator[tuple[int, LabelMap]]:
    """Yield ``(first plane, file values (planes, y, x))`` of the mean of the probabilities of several models, in order.

    Parameters
    ----------
    models
        Slabs of each model, of any sizes; they are closed at the end. A few slabs of each are in memory.
    heads
        For each model the index of its head for each head of ``labels``.
    labels
        Classes, or regions: a class has the largest probability (the lower one on ties), a region one above 0.5.
    observers
        Called with each slab, in order, in this thread.
    """
    task = task_of(labels)

    def decided(slab: ProbabilitySlab) -> tuple[int, LabelMap]:
        values = labels.decode(slab.mean if task.is_exclusive else slab.mean - 0.5)
        for observe in observers:
            observe(DecidedSlab(slab.first, values, slab.mean, slab.members, slab.cores, slab.affinities))
        return slab.first, values

    return map(decided, mean_slabs(models, heads))


def mean_slabs(models: Sequence[Slabs], heads: Sequence[Sequence[int]]) -> Iterator[ProbabilitySlab]:
    """Yield the mean over models, and the members of all of them, of the planes that every model has next.

    Every model counts as much as any other, however many members it has. Parameters as for :func:`decided_mean_slabs`.
    """
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(closing(model))
        waiting = [next(model, None) for model in models]
        while slabs := [slab for slab in waiting if slab is not None]:
            first, stop = max(slab.first for slab in slabs), min(slab.stop for slab in slabs)
            cuts = [_cut(slab, first, stop, order) for slab, order in zip(slabs, heads, strict=True)]
            members = tuple(member for cut in cuts for member in cut.members)
            cores, pairs = ([cut.cores for cut in cuts], [cut.affinities for cut in cuts])
            mean = _mean([cut.mean for cut in cuts])
            yield ProbabilitySlab(first, mean, members, _mean_of_known(cores), _mean_of_known(pairs))
            waiting = [
                slab if slab.stop > stop else next(model, None) for slab, model in zip(slabs, models, strict=True)
            ]


def _mean(parts: Sequence[Float32Array]) -> Float32Array:
    """Return the mean of at least one array of any shape."""
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    total /= len(parts)
    return total


def _mean_of_known(parts: Sequence[Float32Array | None]) -> Float32Array | None:
    """Return the mean of the arrays that are there; None if none is."""
    known = [part for part in parts if part is not None]
    return _mean(known) if known else None


def _cut(slab: ProbabilitySlab, first: int, stop: int, heads: Sequence[int]) -> ProbabilitySlab:
    """Return the planes from ``first`` to ``stop`` of a slab that has them, with its heads in another order."""
    planes, order = slice(first - slab.first, stop - slab.first), list(heads)
    is_same = order == list(range(len(order)))

    def cut(values: Float32Array) -> Float32Array:
        return values[:, planes] if is_same else values[order, planes]

    cores = None if slab.cores is None else cut(slab.cores)
    affinities = None if slab.affinities is None else slab.affinities[:, planes]
    return ProbabilitySlab(first, cut(slab.mean), tuple(map(cut, slab.members)), cores, affinities)
