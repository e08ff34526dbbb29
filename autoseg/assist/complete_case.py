"""Completion of the sparse annotation of a case: annotated classes stay, a model decides where several are possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.touches import promise_statement
from autoseg.annotation.untouched import exclude_untouched
from autoseg.assist.keep_annotation import Restriction, index_table
from autoseg.cases.case import CaseRecord, Target
from autoseg.core.arrays import BoolArray, CodeArray, Float32Array, LabelMap
from autoseg.dataset.labels import Labels, background_value, foreground_codes, head_states
from autoseg.evaluation.disagreement import DisputedVoxels
from autoseg.inference.export import decide
from autoseg.inference.window import SLAB_VALUES
from autoseg.preprocessing import restore
from autoseg.preprocessing.crop import box_slices
from autoseg.tasks.task import task_of


@dataclass(frozen=True)
class CompletedCase:
    """A dense label map of a case, and the voxels where the model disagrees with the annotation."""

    labels: LabelMap
    """(z, y, x) file values in the axes of the file, never the ignore value or that of a label set."""
    predicted: LabelMap | None = None
    """(z, y, x) file values as predicted without regard to the annotation; None without a review."""
    disputed: DisputedVoxels | None = None
    """Voxels predicted as a class that the annotation excludes; None without a review."""


def complete_case(
    logits: Float32Array,
    record: CaseRecord,
    labels: Labels,
    target: Target,
    *,
    within: Target | None = None,
    touches_all: bool = False,
    review: bool = False,
    slab_values: int = SLAB_VALUES,
) -> CompletedCase:
    """Return the label map that follows from annotation and logits.

    A voxel annotated as one class keeps it. A voxel whose label set has several classes gets the most probable of them,
    an unannotated voxel the predicted class (:meth:`autoseg.assist.keep_annotation.Restriction.apply`). Outside the
    crop, where the image is empty, a voxel becomes background if its set has it, otherwise the first class of its set.

    Parameters
    ----------
    logits
        (O, *S) float32 on ``record.shape``, the plan's axes.
    record
        Record of the preprocessing of the case.
    labels
        Meaning of the heads.
    target
        Annotation (z, y, x) in the axes and the shape of the file.
    within
        Classes that each voxel may have, likewise, where promises exclude some; None: those of ``target``.
    touches_all
        Whether annotators promised to annotate at least a voxel of every object. Then a predicted object without an
        annotation of its class gets its next most probable class, and so on; background in the end. Classes that the
        annotators of the case did not look for are exempt.
    review
        Also return the prediction and the disputed voxels.
    slab_values
        Number of resampled logits in memory at a time. Only label maps exist at full size, for any number of classes.

    Raises
    ------
    PlanError
        If the logits do not lie on the record's grid or have another number of outputs.
    """
    within = target if within is None else within
    drawn = record.voxel_order.apply(target.codes)[box_slices(record.crop_low, record.crop_high)]
    predictions: list[LabelMap] = []
    disputed: list[DisputedVoxels] = []

    def compare(values: LabelMap, slab: Float32Array, first: int) -> None:
        predictions.append(values)
        codes = drawn[first : first + len(values)]
        disputed.append(_disputed(values, slab, codes, target.label_sets, labels, record, first))

    completed = _decide_within(logits, record, labels, within, slab_values, compare if review else None)
    remaining = _without_untouched(completed, labels, target, within, record.case) if touches_all else None
    while remaining is not None:  # ends, since in every round voxels lose one of their at most K classes
        within = remaining
        completed = _decide_within(logits, record, labels, within, slab_values)
        remaining = _without_untouched(completed, labels, target, within, record.case)
    if not review:
        return CompletedCase(completed)
    outside = _outside_crop(record)
    if outside is not None:
        disputed.append(_disputed_outside_crop(outside, target))
    predicted: LabelMap = restore(np.concatenate(predictions), record, fill=background_value(labels))
    return CompletedCase(completed, predicted, DisputedVoxels.join(disputed))


def _decide_within(
    logits: Float32Array,
    record: CaseRecord,
    labels: Labels,
    within: Target,
    slab_values: int,
    watch: Callable[[LabelMap, Float32Array, int], None] | None = None,
) -> LabelMap:
    """Return the label map (z, y, x) in the file's axes in which every voxel has a class of its set.

    ``watch`` is called with each slab (planes, y, x) before it is restricted, the scores (H, planes, y, x) and the
    index of the first plane.
    """
    restriction = Restriction(labels, within.label_sets)
    codes = record.voxel_order.apply(within.codes)[box_slices(record.crop_low, record.crop_high)]

    def restrict(values: LabelMap, slab: Float32Array, first: int) -> LabelMap:
        if watch is not None:
            watch(values, slab, first)
        return restriction.apply(values, slab, codes[first : first + len(values)])

    completed = decide(logits, record, labels, amend=restrict, slab_values=slab_values)
    outside = _outside_crop(record)
    if outside is not None:
        completed[outside] = restriction.apply(completed[outside], None, within.codes[outside])
    return completed


def _without_untouched(completed: LabelMap, labels: Labels, target: Target, within: Target, case: str) -> Target | None:
    """Return ``within`` without the class of each object of ``completed`` (z, y, x) that has no annotation; or None."""
    statement = promise_statement(labels, case)
    return exclude_untouched(index_table(labels)[completed], target, within, statement)


def _outside_crop(record: CaseRecord) -> BoolArray | None:
    """Return (z, y, x) bool in the file's axes: voxels outside the crop; None if the crop is the whole case."""
    if record.shape_after_crop == record.shape_before_crop:
        return None
    outside: BoolArray = ~restore(np.ones(record.shape_after_crop, dtype=bool), record, fill=0)
    return outside


def _disputed(
    values: LabelMap,
    scores: Float32Array,
    codes: CodeArray,
    label_sets: BoolArray,
    labels: Labels,
    record: CaseRecord,
    first: int,
) -> DisputedVoxels:
    """Return the voxels of a slab (planes, y, x) whose predicted class is excluded by the annotation.

    ``values`` and ``codes`` are (planes, y, x), ``scores`` (H, planes, y, x), ``label_sets`` (N, K). With regions,
    voxels count only if annotation and prediction differ in a region, and the probability is the highest of those
    regions.
    """
    predicted = index_table(labels)[values]
    is_annotated = np.logical_or.reduce(label_sets, axis=1)
    places: tuple[Any, ...] = np.nonzero(is_annotated[codes] & ~label_sets[codes, predicted])
    drawn, other, own = codes[places].astype(np.intp), predicted[places], scores[(slice(None), *places)]
    if not task_of(labels).is_exclusive:
        positive, negative = head_states(label_sets, labels.regions)
        differs = np.where(own > 0, negative[drawn].T, positive[drawn].T)
        surest = np.where(differs, np.abs(own), 0).max(axis=0, initial=0)
        probability = 1 / (1 + np.exp(-surest))
        is_disputed = differs.any(axis=0)
    else:
        shares = np.exp(own - own.max(axis=0))
        shares /= shares.sum(axis=0)
        probability = shares[other, np.arange(len(drawn))]
        is_disputed = np.ones(len(drawn), dtype=bool)
    index = _file_index(np.stack(places, axis=-1)[is_disputed], record, first)
    return DisputedVoxels(index, drawn[is_disputed], other[is_disputed], probability[is_disputed])


def _disputed_outside_crop(outside: BoolArray, target: Target) -> DisputedVoxels:
    """Return the voxels of ``outside`` (z, y, x) annotated as foreground; they are predicted as background with 1."""
    index = np.argwhere(outside & foreground_codes(target.label_sets)[target.codes]).astype(np.int32)
    certain = np.ones(len(index), dtype=np.float32)
    drawn = target.codes[tuple(index.T)]
    return DisputedVoxels(index, drawn, np.zeros_like(drawn), certain)


def _file_index(places: NDArray[np.intp], record: CaseRecord, first: int) -> NDArray[np.int32]:
    """Return voxels (n, 3) of the file for voxels (n, 3) of a slab, in the plan's axes from plane ``first``."""
    turned = places + np.asarray(record.crop_low) + (first, 0, 0)
    last = np.asarray(record.shape_before_crop) - 1
    index = np.empty(places.shape, dtype=np.int32)
    index[:, list(record.transpose)] = np.where(record.flipped, last - turned, turned)
    return index
