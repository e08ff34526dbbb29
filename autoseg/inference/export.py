"""Conversion of logits on the plan's grid to a label map in the file's axes, slab by slab to bound memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.core.errors import PlanError
from autoseg.core.pipelined import map_in_background
from autoseg.dataset.labels import Labels, background_value
from autoseg.inference.decided import DecidedSlab, Observer
from autoseg.inference.window import SLAB_VALUES, Slab
from autoseg.preprocessing import anisotropic_axis, restore
from autoseg.preprocessing.axes import IndexArray, linear_taps, nearest_indices
from autoseg.tasks.affinities import Affinities
from autoseg.tasks.decoded import decoded, finished
from autoseg.tasks.instances import Instances
from autoseg.tasks.task import Task, task_of

Logits = Float32Array | Iterable[Slab]
"""(O, *S) float32 on ``CaseRecord.shape``, the plan's axes: as one array, or as slabs in the order of the planes."""
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
    task = task_of(labels)

    def decided(part: Part) -> tuple[int, LabelMap]:
        own, *others = _split(part, n_outputs)
        slab = resampled(own, record)
        values = decoded(task, slab.numpy())
        if amend is not None:
            values = amend(values, scores(slab, task).numpy(), part.first)
        if observers:
            mean = _probabilities(slab, task)
            cores = _cores(slab, task)
            each = _of_members(mean, others, record, task, n_members)
            for observe in observers:
                observe(DecidedSlab(part.first, values, mean, each, cores))
        return part.first, values

    n_outputs = len(task.outputs)
    parts = _stacked_parts(logits, record, n_outputs, n_members, slab_values)
    return joined(map(decided, parts) if pool is None else map_in_background(pool, decided, parts), record, task)


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
    for part in parts_of(checked_slabs(logits, record, len(task.outputs)), record, slab_values):
        result[:, part.first : part.stop] = _probabilities(resampled(part, record), task)
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

    @property
    def stop(self) -> int:
        """One past the index of the last plane."""
        return self.first + int(self.mean.shape[1])


def probability_slabs(
    logits: Logits,
    record: CaseRecord,
    labels: Labels,
    *,
    n_members: int = 0,
    pool: Executor | None = None,
    slab_values: int = SLAB_VALUES,
) -> Generator[ProbabilitySlab, None, None]:
    """Yield the probabilities within the crop, slab by slab in the order of the planes.

    Parameters and errors as for :func:`decide`; with ``pool``, at most two slabs are in process.
    """
    task = task_of(labels)

    def converted(part: Part) -> ProbabilitySlab:
        own, *others = _split(part, n_outputs)
        slab = resampled(own, record)
        mean = _probabilities(slab, task)
        return ProbabilitySlab(part.first, mean, _of_members(mean, others, record, task, n_members), _cores(slab, task))

    n_outputs = len(task.outputs)
    parts = _stacked_parts(logits, record, n_outputs, n_members, slab_values)
    yield from map(converted, parts) if pool is None else map_in_background(pool, converted, parts)


def _cores(slab: Tensor, task: Task) -> Float32Array | None:
    """Return ``DecidedSlab.cores`` of logits (O, planes, y, x): (H, planes, y, x), or None."""
    if not isinstance(task, Instances | Affinities):
        return None
    cores: Float32Array = task.cores(slab[None])[0].numpy()
    return cores


def outside_probabilities(labels: Labels) -> tuple[int, ...]:
    """Return the probability of each head outside the crop, where the image is empty: 1 for background, 0 otherwise."""
    return tuple(int(head.is_background) for head in labels.heads)


def scores(slab: Tensor, task: Task) -> Tensor:
    """Return the scores of heads (H, planes, y, x) that follow from the logits of outputs (O, planes, y, x)."""
    return task.scores(slab[None])[0]


def resampled_slabs(
    logits: Logits, record: CaseRecord, *, slab_values: int = SLAB_VALUES
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(first plane, logits (O, planes, y, x) float32)`` on the grid between crop and resampling, in order."""
    for part in parts_of(_as_slabs(logits), record, slab_values):
        yield part.first, resampled(part, record)


def _as_slabs(logits: Logits) -> Iterable[Slab]:
    """Return an array (O, *S) as one slab; slabs as they are."""
    return [(0, logits)] if isinstance(logits, np.ndarray) else logits


def checked_slabs(logits: Logits, record: CaseRecord, n_outputs: int) -> Iterator[Slab]:
    """Yield the slabs; raise ``PlanError`` unless they cover the planes of the record's grid in order."""
    n_planes, *plane = record.shape
    done = 0
    for first, slab in _as_slabs(logits):
        planes = slab.shape[1]
        if (len(slab), *slab.shape[2:]) != (n_outputs, *plane) or first != done or done + planes > n_planes:
            raise _other_grid(f"logits of shape {slab.shape} for the planes from {first} on", record, n_outputs)
        yield first, slab
        done += planes
    if done != n_planes:
        raise _other_grid(f"logits of {done} planes", record, n_outputs)


def _other_grid(given: str, record: CaseRecord, n_outputs: int) -> PlanError:
    return PlanError(
        f"case {record.case}: found {given}, expected {(n_outputs, *record.shape)} (outputs, then the grid of the "
        "plan). Predict with the model's own plan and labels."
    )


def _probabilities(slab: Tensor, task: Task) -> Float32Array:
    """Return the probabilities (H, planes, y, x) float32 of logits (O, planes, y, x)."""
    values: Float32Array = task.probabilities(slab[None])[0].numpy()
    return values


@dataclass(frozen=True, slots=True)
class Part:
    """Planes of the grid between crop and resampling, with the source planes that they are resampled from.

    Planes, rows and columns of context are left out after resampling.
    """

    first: int
    """Index of the first plane of the crop."""
    stop: int
    """One past the index of the last plane."""
    source: Tensor
    """(O, planes, y', x') float32 on the plan's grid."""
    source_first: int
    """Index of the first source plane."""


def _stacked_parts(
    logits: Logits, record: CaseRecord, n_outputs: int, n_members: int, slab_values: int
) -> Iterator[Part]:
    """Return the parts of checked logits, in which ``n_outputs`` for each of several members may follow the mean.

    A part has as many planes as without members, so that its mean is resampled to the same numbers, bit for bit.
    """
    n_stacked = 1 + n_members if n_members > 1 else 1
    return parts_of(checked_slabs(logits, record, n_outputs * n_stacked), record, slab_values * n_stacked)


def _of_members(
    mean: Float32Array, others: Sequence[Part], record: CaseRecord, task: Task, n_members: int
) -> tuple[Float32Array, ...]:
    """Return the probabilities (H, planes, y, x) of each member; those of a single one are the mean."""
    if n_members == 1:
        return (mean,)
    return tuple(_probabilities(resampled(other, record), task) for other in others)


def _split(part: Part, n_outputs: int) -> list[Part]:
    """Return the mean of the members, and then each member, of a part whose source holds ``n_outputs`` of each."""
    firsts = range(0, len(part.source), n_outputs)
    return [replace(part, source=part.source[first : first + n_outputs]) for first in firsts]


def parts_of(slabs: Iterable[Slab], record: CaseRecord, slab_values: int) -> Iterator[Part]:
    """Cut slabs into parts that can be resampled alone; planes that the next part also needs stay in memory."""
    shape, context = record.shape_before_resampling, record.context_low[0]
    taps = _taps(record.shape[0], shape[0], nearest=_coarse_axis(record) == 0)
    last = shape[0] - record.context_high[0]
    buffer, buffer_first, done = torch.empty(0), 0, context
    for first, slab in slabs:
        tensor = torch.from_numpy(np.require(slab, np.float32, ["W"]))
        buffer = torch.cat((buffer, tensor), dim=1) if first > buffer_first else tensor
        end = first + tensor.shape[1]
        most = max(1, slab_values // max(1, len(tensor) * math.prod(shape[1:])))
        ready = min(last, int(np.searchsorted(taps.upper, end)))  # one past the planes whose sources have all arrived
        while done < ready:
            stop = min(done + most, ready)
            low, high = int(taps.lower[done]), int(taps.upper[stop - 1]) + 1
            yield Part(done - context, stop - context, buffer[:, low - buffer_first : high - buffer_first], low)
            done = stop
        keep_from = min(end, int(taps.lower[done])) if done < last else end
        buffer, buffer_first = buffer[:, keep_from - buffer_first :], keep_from


def resampled(part: Part, record: CaseRecord) -> Tensor:
    """Return the logits (O, planes, y, x) float32 of a part on the grid between crop and resampling."""
    shape, coarse = record.shape_before_resampling, _coarse_axis(record)
    first, stop = part.first + record.context_low[0], part.stop + record.context_low[0]
    slab = _taps(record.shape[0], shape[0], nearest=coarse == 0).take(part.source, 1, first, stop, part.source_first)
    if coarse in (1, 2):
        for axis in (1, 2):
            slab = _taps(record.shape[axis], shape[axis], nearest=coarse == axis).take(slab, axis + 1, 0, shape[axis])
    elif tuple(slab.shape[2:]) != shape[1:]:
        slab = nn.functional.interpolate(slab, size=shape[1:], mode="bilinear", align_corners=False)
    for axis in (1, 2):
        slab = slab.narrow(axis + 1, record.context_low[axis], record.shape_after_crop[axis])
    return slab


def _coarse_axis(record: CaseRecord) -> int | None:
    return anisotropic_axis(record.spacing, record.spacing_before)


@dataclass(frozen=True, slots=True)
class _Taps:
    """Source points that each of m points along an axis is interpolated from, ascending."""

    lower: IndexArray
    """(m,) index of the source point below."""
    upper: IndexArray
    """(m,) index of the source point above."""
    weight: NDArray[np.float64] | None
    """(m,) weight of the upper point, 0 to 1; None where upper and lower are the same."""
    is_same: bool
    """Whether input and output points are the same, so that nothing is resampled."""

    def take(self, values: Tensor, axis: int, first: int, stop: int, offset: int = 0) -> Tensor:
        """Return the points ``first`` to ``stop`` along ``axis`` of ``values``; the other axes keep their shape.

        ``offset`` is the index of the source point at which ``values`` begins.
        """
        if self.is_same:
            return values
        lower, upper = (torch.from_numpy(index[first:stop] - offset) for index in (self.lower, self.upper))
        if self.weight is None:
            return values.index_select(axis, lower)
        shape = [1] * values.ndim
        shape[axis] = -1
        weight = torch.from_numpy(self.weight[first:stop].astype(np.float32)).view(shape)
        return torch.lerp(values.index_select(axis, lower), values.index_select(axis, upper), weight)


def _taps(n: int, m: int, *, nearest: bool) -> _Taps:
    """Return the source points for resampling ``n`` points along an axis to ``m``.

    Linear between voxel centres and constant beyond the outermost centres. With ``nearest``, the nearest source point;
    the higher index on a tie.
    """
    if n == m:
        return _Taps(np.arange(n), np.arange(n), None, is_same=True)
    if nearest:
        return _Taps(nearest_indices(n, m), nearest_indices(n, m), None, is_same=False)
    return _Taps(*linear_taps(n, m), is_same=False)
