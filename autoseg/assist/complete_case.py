"""Make the sparse annotation of a case dense: what was drawn stays, a model decides the rest within what is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.touches import promise_statement
from autoseg.annotation.untouched import exclude_untouched
from autoseg.assist.keep_annotation import Restriction, class_indices
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
    """A dense label map of a case, and where the model objects to the annotation."""

    labels: LabelMap
    """(z, y, x) file values in the axes of the file, never the ignore value or that of a label set."""
    predicted: LabelMap | None = None
    """What the model says where it may say anything; only when it was asked for its objections."""
    disputed: DisputedVoxels | None = None
    """Voxels for which the model says a class that the annotation excludes; likewise."""


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
    """Return the label map that annotation and logits mean together.

    A voxel drawn as one class keeps it. A voxel with a set of several classes gets the most probable class of the set,
    one without any knowledge what the model predicts (:meth:`autoseg.assist.keep_annotation.Restriction.apply`).
    Outside the crop, where the image is empty, a voxel is background if its set allows it, else the set's first class.

    Parameters
    ----------
    logits
        (O, *S) float32 on ``record.shape``, the plan's axes.
    record
        What preprocessing did to the case.
    labels
        What the heads mean.
    target
        The annotation in the axes and the shape of the file.
    within
        What each voxel may be, likewise, if that is less than was drawn (promises); None: as drawn.
    touches_all
        Whether every object is promised to carry an annotation of its class: then a predicted one without it is of
        another class, the most probable one for which this does not hold again, background at last. Classes that the
        annotators of the case did not look for are left alone.
    review
        Also return the prediction and the disputed voxels.
    slab_values
        Resampled logits held at a time. Label maps are all that exists at full size, however many classes there are.

    Raises
    ------
    PlanError
        If the logits do not lie on the record's grid or have another number of outputs.
    """
    within = target if within is None else within
    drawn = record.voxel_order.apply(target.codes)[box_slices(record.crop_low, record.crop_high)]
    said: list[LabelMap] = []
    disputed: list[DisputedVoxels] = []

    def compare(values: LabelMap, slab: Float32Array, first: int) -> None:
        said.append(values)
        codes = drawn[first : first + len(values)]
        disputed.append(_disputed(values, slab, codes, target.label_sets, labels, record, first))

    completed = _decide_within(logits, record, labels, within, slab_values, compare if review else None)
    left = _without_untouched(completed, labels, target, within, record.case) if touches_all else None
    while left is not None:  # ends: every time, voxels lose a class, and they have at most K
        within = left
        completed = _decide_within(logits, record, labels, within, slab_values)
        left = _without_untouched(completed, labels, target, within, record.case)
    if not review:
        return CompletedCase(completed)
    outside = _outside_crop(record)
    if outside is not None:
        disputed.append(_disputed_outside(outside, target))
    predicted: LabelMap = restore(np.concatenate(said), record, fill=background_value(labels))
    return CompletedCase(completed, predicted, DisputedVoxels.join(disputed))


def _decide_within(
    logits: Float32Array,
    record: CaseRecord,
    labels: Labels,
    within: Target,
    slab_values: int,
    watch: Callable[[LabelMap, Float32Array, int], None] | None = None,
) -> LabelMap:
    """Return the label map (z, y, x) of the file in which every voxel is of a class of its set.

    ``watch`` gets each slab as the model alone decides it, with the scores of its heads and its first plane.
    """
    restriction = Restriction(labels, within.label_sets)
    left = record.voxel_order.apply(within.codes)[box_slices(record.crop_low, record.crop_high)]

    def restrict(values: LabelMap, slab: Float32Array, first: int) -> LabelMap:
        if watch is not None:
            watch(values, slab, first)
        return restriction.apply(values, slab, left[first : first + len(values)])

    completed = decide(logits, record, labels, amend=restrict, slab_values=slab_values)
    outside = _outside_crop(record)
    if outside is not None:
        completed[outside] = restriction.apply(completed[outside], None, within.codes[outside])
    return completed


def _without_untouched(completed: LabelMap, labels: Labels, target: Target, within: Target, case: str) -> Target | None:
    statement = promise_statement(labels, case)
    return exclude_untouched(class_indices(labels)[completed], target, within, statement)


def _outside_crop(record: CaseRecord) -> BoolArray | None:
    """(z, y, x) bool of the file: where the image is empty; None if the crop is the whole case."""
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
    """Return the voxels of a slab (planes, y, x) whose predicted class is not among those that were drawn.

    With regions, classes that no region tells apart are not held against each other, and the confidence is that of the
    region, among those of which annotation and prediction say the contrary, about which the network is surest.
    """
    predicted = class_indices(labels)[values]
    is_said = np.logical_or.reduce(label_sets, axis=1)
    places: tuple[Any, ...] = np.nonzero(is_said[codes] & ~label_sets[codes, predicted])
    drawn, other, own = codes[places].astype(np.intp), predicted[places], scores[(slice(None), *places)]
    if not task_of(labels).is_exclusive:
        positive, negative = head_states(label_sets, labels.regions)
        differs = np.where(own > 0, negative[drawn].T, positive[drawn].T)
        surest = np.where(differs, np.abs(own), 0).max(axis=0, initial=0)
        probability = 1 / (1 + np.exp(-surest))
        kept = differs.any(axis=0)
    else:
        shares = np.exp(own - own.max(axis=0))
        shares /= shares.sum(axis=0)
        probability = shares[other, np.arange(len(drawn))]
        kept = np.ones(len(drawn), dtype=bool)
    index = _file_index(np.stack(places, axis=-1)[kept], record, first)
    return DisputedVoxels(index, drawn[kept], other[kept], probability[kept])


def _disputed_outside(outside: BoolArray, target: Target) -> DisputedVoxels:
    """Return foreground that was drawn where the image is empty, which is background without any doubt."""
    index = np.argwhere(outside & foreground_codes(target.label_sets)[target.codes]).astype(np.int32)
    certain = np.ones(len(index), dtype=np.float32)
    drawn = target.codes[tuple(index.T)]
    return DisputedVoxels(index, drawn, np.zeros_like(drawn), certain)


def _file_index(places: NDArray[np.intp], record: CaseRecord, first: int) -> NDArray[np.int32]:
    """Turn voxels of a slab (n, 3), the plan's axes, into voxels of the file."""
    turned = places + np.asarray(record.crop_low) + (first, 0, 0)
    last = np.asarray(record.shape_before_crop) - 1
    index = np.empty(places.shape, dtype=np.int32)
    index[:, list(record.transpose)] = np.where(record.flipped, last - turned, turned)
    return index
