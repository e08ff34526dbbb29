"""Conversion of logits on the plan's grid to a label map in the file's axes, slab by slab to bound memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit
from torch import Tensor

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.core.boxes import Box
from autoseg.core.errors import PlanError
from autoseg.core.pipelined import map_in_background
from autoseg.dataset.labels import Labels, background_value
from autoseg.inference.decided import DecidedSlab, Observer
from autoseg.inference.logit_resampling import (
    Logits,
    Part,
    Resampling,
    checked_slabs,
    parts_of,
    resampled,
    resampling_of,
)
from autoseg.inference.window import SLAB_VALUES
from autoseg.preprocessing import restore
from autoseg.tasks.affinities import Affinities
from autoseg.tasks.decoded import decoded, finished
from autoseg.tasks.instances import Instances
from autoseg.tasks.task import Task, task_of

Amend = Callable[[LabelMap, Float32Array, int], LabelMap]
"""Function that returns a changed slab of file values (planes, y, x), given the slab, the scores of heads
(H, planes, y, x) and the index of the first plane."""


def decide(
    logits: Logits,
    record: CaseRecord,
    labels: Labels,
    *,
    amend: Amend | None = None,
    observers: Sequence[Observer] = (),
    n_members: int = 0,
    pool: Executor | None = None,
    slab_values: int = SLAB_VALUES,
) -> LabelMap:
    """Return the label map (z, y, x) that follows from logits, in the axes and shape of the case's file.

    Parameters
    ----------
    logits
        On the plan's grid, as an array or as slabs, such as :func:`autoseg.inference.window.stream_logits` yields:
        with slabs, only one slab and the few planes between two slabs are in memory. They decide the labels.
    record
        Record of the preprocessing of the case.
    labels
        Meaning of the heads, and the task that decodes the outputs; the ignore value never occurs in the result. Voxels
        outside the crop are background.
    amend
        Called last with each slab, on the grid between crop and resampling (the plan's axes); None changes nothing.
    observers
        Called with each slab, in order; its probabilities are those of :func:`probabilities`, for the crop only.
    n_members
        Number of members M whose logits follow in ``logits``, which then have (1 + M) O outputs; with 1, nothing
        follows, since the logits are those of the member. 0 if no observer needs the members.
    pool
        Executor with one thread, which resamples and decides while the calling thread makes the next slab; with None
        the calling thread does both.
    slab_values
        Number of resampled logits in memory at a time; at least one plane of all outputs.

    Notes
    -----
    Logits are resampled linearly (along a coarse axis to the nearest plane) before they are decided. Source: nnU-Net
    ``inference/export_prediction.py``; differs in that one slab is resampled at a time, in float32.

    Raises
    ------
    PlanError
        If the logits do not lie on the record's grid or have another number of outputs.
    """
    pieces = decided_slabs(
        logits, record, labels, amend=amend, observers=observers, n_members=n_members, pool=pool,
        slab_values=slab_values,
    )  # fmt: skip
    return joined(pieces, record, task_of(labels))


def decided_slabs(
    logits: Logits,
    record: CaseRecord,
    labels: Labels,
    *,
    box: Box | None = None,
    amend: Amend | None = None,
    observers: Sequence[Observer] = (),
    n_members: int = 0,
    pool: Executor | None = None,
    slab_values: int = SLAB_VALUES,
) -> Iterator[tuple[int, LabelMap]]:
    """Yield ``(first plane, file values (planes, y, x))`` of the crop, or of a box of it, in the order of the planes.

    Parameters and errors as for :func:`decide`. With ``box``, voxels of the crop in the plan's axes, the logits are
    those of ``resampling_of(record, box).source``, and planes count from the first of the box.
    """
    task = task_of(labels)
    grid, n_outputs = resampling_of(record, box), len(task.outputs)

    def decided(part: Part) -> tuple[int, LabelMap]:
        own, *others = _split(part, n_outputs)
        slab = resampled(own, grid)
        values = decoded(task, slab.numpy())
        if amend is not None:
            values = amend(values, scores(slab, task).numpy(), part.first)
        if observers:
            mean = _probabilities(slab, task)
            each = _of_members(mean, others, grid, task, n_members)
            decided = DecidedSlab(part.first, values, mean, each, _cores(slab, task), _affinities(slab, task))
            for observe in observers:
                observe(decided)
        return part.first, values

    parts = _stacked_parts(logits, grid, n_outputs, n_members, slab_values)
    return map(decided, parts) if pool is None else map_in_background(pool, decided, parts)


def joined(pieces: Iterable[tuple[int, LabelMap]], record: CaseRecord, task: Task) -> LabelMap:
    """Return the label map (z, y, x) in the file's axes, from ``(first plane, values (planes, y, x))`` of the crop.

    Raises ``PlanError`` if there is no piece.
    """
    whole: LabelMap | None = None
    for first, values in pieces:
        if whole is None:
            whole = np.zeros(record.shape_after_crop, dtype=values.dtype)
        whole[first : first + len(values)] = values
    if whole is None:
        raise PlanError(f"case {record.case}: found an empty crop, expected at least one voxel. Preprocess it again.")
    restored: LabelMap = restore(whole, record, fill=background_value(task.labels))
    return finished(task, restored)


def probabilities(
    logits: Logits, record: CaseRecord, labels: Labels, *, slab_values: int = SLAB_VALUES
) -> Float32Array:
    """Return (H, *S) float32 in [0, 1] in the file's axes: the probability of each class or region.

    Parameters and errors as for :func:`decide`. Outside the crop background has probability 1 and every other head 0
    (regions: all 0). Source: nnU-Net ``export_prediction.py`` (resampled logits first, then softmax).
    """
    task = task_of(labels)
    result = np.zeros((labels.n_heads, *record.shape_after_crop), dtype=np.float32)
    grid = resampling_of(record)
    for part in parts_of(checked_slabs(logits, grid, len(task.outputs)), grid, slab_values):
        result[:, part.first : part.stop] = _probabilities(resampled(part, grid), task)
    restored: Float32Array = restore(result, record, fill=0)
    for values, own, fill in zip(restored, result, outside_probabilities(labels), strict=True):
        if fill:
            values[...] = restore(own, record, fill=fill)
    return restored


@dataclass(frozen=True, eq=False, slots=True)
class ProbabilitySlab:
    """Probabilities of planes on the grid between crop and resampling, in the plan's axes."""

    first: int
    """Index of the first plane."""
    mean: Float32Array
    """(H, planes, y, x) of the mean logits."""
    members: tuple[Float32Array, ...] = ()
    """M of (H, planes, y, x), or none."""
    cores: Float32Array | None = None
    """(H, planes, y, x), or None; see :class:`autoseg.inference.decided.DecidedSlab`."""
    affinities: Float32Array | None = None
    """(A, planes, y, x), or None."""

    @property
    def stop(self) -> int:
        """One past the index of the last plane."""
        return self.first + int(self.mean.shape[1])


def probability_slabs(
    logits: Logits,
    record: CaseRecord,
    labels: Labels,
    *,
    box: Box | None = None,
    n_members: int = 0,
    pool: Executor | None = None,
    slab_values: int = SLAB_VALUES,
) -> Generator[ProbabilitySlab, None, None]:
    """Yield the probabilities within the crop, or a box of it, slab by slab in the order of the planes.

    Parameters and errors as for :func:`decided_slabs`; with ``pool``, at most two slabs are in process.
    """
    task = task_of(labels)
    grid, n_outputs = resampling_of(record, box), len(task.outputs)

    def converted(part: Part) -> ProbabilitySlab:
        own, *others = _split(part, n_outputs)
        slab = resampled(own, grid)
        mean = _probabilities(slab, task)
        each = _of_members(mean, others, grid, task, n_members)
        return ProbabilitySlab(part.first, mean, each, _cores(slab, task), _affinities(slab, task))

    parts = _stacked_parts(logits, grid, n_outputs, n_members, slab_values)
    yield from map(converted, parts) if pool is None else map_in_background(pool, converted, parts)


def _cores(slab: Tensor, task: Task) -> Float32Array | None:
    """Return ``DecidedSlab.cores`` of logits (O, planes, y, x): (H, planes, y, x), or None."""
    if not isinstance(task, Instances | Affinities):
        return None
    cores: Float32Array = task.cores(slab[None])[0].numpy()
    return cores


def _affinities(slab: Tensor, task: Task) -> Float32Array | None:
    """Return ``DecidedSlab.affinities`` of logits (O, planes, y, x): (A, planes, y, x), or None."""
    if not isinstance(task, Affinities):
        return None
    affinities: Float32Array = expit(task.affinity_logits(slab.numpy()))
    return affinities


def outside_probabilities(labels: Labels) -> tuple[int, ...]:
    """Return the probability of each head outside the crop, where the image is empty: 1 for background, 0 otherwise."""
    return tuple(int(head.is_background) for head in labels.heads)


def scores(slab: Tensor, task: Task) -> Tensor:
    """Return the scores of heads (H, planes, y, x) that follow from the logits of outputs (O, planes, y, x)."""
    return task.scores(slab[None])[0]


def _probabilities(slab: Tensor, task: Task) -> Float32Array:
    """Return the probabilities (H, planes, y, x) float32 of logits (O, planes, y, x)."""
    values: Float32Array = task.probabilities(slab[None])[0].numpy()
    return values


def _stacked_parts(
    logits: Logits, grid: Resampling, n_outputs: int, n_members: int, slab_values: int
) -> Iterator[Part]:
    """Return the parts of checked logits, in which ``n_outputs`` for each of several members may follow the mean.

    A part has as many planes as without members, so that its mean is resampled to the same numbers, bit for bit.
    """
    n_stacked = 1 + n_members if n_members > 1 else 1
    return parts_of(checked_slabs(logits, grid, n_outputs * n_stacked), grid, slab_values * n_stacked)


def _of_members(
    mean: Float32Array, others: Sequence[Part], grid: Resampling, task: Task, n_members: int
) -> tuple[Float32Array, ...]:
    """Return the probabilities (H, planes, y, x) of each member; those of a single one are the mean."""
    if n_members == 1:
        return (mean,)
    return tuple(_probabilities(resampled(other, grid), task) for other in others)


def _split(part: Part, n_outputs: int) -> list[Part]:
    """Return the mean of the members, and then each member, of a part whose source holds ``n_outputs`` of each."""
    firsts = range(0, len(part.source), n_outputs)
    return [replace(part, source=part.source[first : first + n_outputs]) for first in firsts]
