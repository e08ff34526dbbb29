"""Make the sparse annotation of a case dense: what was drawn stays, a model decides the rest within what is open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.review import DisputedVoxels
from autoseg.core.case import BoolArray, CaseRecord, CodeArray, Float32Array, Target
from autoseg.core.labels import Labels
from autoseg.inference.export import LabelMap, decide
from autoseg.inference.restriction import Restriction
from autoseg.preprocessing import restore
from autoseg.preprocessing.crop import box_slices


@dataclass(frozen=True)
class CompletedCase:
    """A dense label map of a case, and where the model objects to the annotation."""

    labels: LabelMap
    """(z, y, x) file values in the axes of the file, never the ignore value or that of a label set."""
    predicted: LabelMap | None = None
    """What the model says where it may say anything; only when it was asked for its objections."""
    disputed: DisputedVoxels | None = None
    """Voxels drawn as one class for which the model says another; likewise."""


def complete_case(
    logits: Float32Array,
    record: CaseRecord,
    labels: Labels,
    target: Target,
    *,
    within: Target | None = None,
    review: bool = False,
    slab_values: int | None = None,
) -> CompletedCase:
    """Return the label map that annotation and logits mean together.

    A voxel drawn as one class keeps it. A voxel with a set of several classes gets the most probable class of the set,
    one without any knowledge what the model predicts (:meth:`autoseg.inference.restriction.Restriction.apply`).
    Outside the crop, where the image is empty, a voxel is background if its set allows it, else the set's first class.

    Parameters
    ----------
    logits
        (H, *S) float32 on ``record.shape``, the plan's axes.
    record
        What preprocessing did to the case.
    labels
        What the heads mean.
    target
        The annotation in the axes and the shape of the file.
    within
        What each voxel may be, likewise, if that is less than was drawn (promises); None: as drawn.
    review
        Also return the prediction and the disputed voxels.
    slab_values
        Resampled logits held at a time; None for the default of :func:`autoseg.inference.export.decide`. Label maps
        are all that exists at full size, however many classes there are.

    Raises
    ------
    PlanError
        If the logits do not lie on the record's grid or have another number of heads.
    """
    within = target if within is None else within
    restriction = Restriction(labels, within.label_sets)
    box = box_slices(record.crop_low, record.crop_high)
    drawn, left = (item.codes.transpose(record.transpose)[box] for item in (target, within))
    said: list[LabelMap] = []
    disputed: list[DisputedVoxels] = []

    def amend(values: LabelMap, slab: Float32Array, first: int) -> LabelMap:
        planes = slice(first, first + len(values))
        if review:
            said.append(values)
            disputed.append(_disputed(values, slab, drawn[planes], labels, record, first))
        return restriction.apply(values, slab, left[planes])

    options = {} if slab_values is None else {"slab_values": slab_values}
    completed = decide(logits, record, labels, amend=amend, **options)
    if record.shape_after_crop != record.shape_before_crop:
        outside = ~restore(np.ones(record.shape_after_crop, dtype=bool), record, fill=0)
        completed[outside] = restriction.apply(completed[outside], None, within.codes[outside])
        if review:
            disputed.append(_disputed_outside(outside, target.codes, labels))
    if not review:
        return CompletedCase(completed)
    predicted: LabelMap = restore(np.concatenate(said), record, fill=0)
    return CompletedCase(completed, predicted, DisputedVoxels.join(disputed))


def _disputed(
    values: LabelMap, logits: Float32Array, codes: CodeArray, labels: Labels, record: CaseRecord, first: int
) -> DisputedVoxels:
    """Return the voxels of a slab (planes, y, x) that were drawn as one class and are predicted as another.

    With regions, classes that no region tells apart are not held against each other, and the confidence is that of the
    region, among those in which the two classes differ, about which the network is surest.
    """
    classes = np.zeros(max(labels.class_values) + 1, dtype=np.intp)
    classes[list(labels.class_values)] = np.arange(labels.n_classes)
    predicted = classes[values]
    places: tuple[Any, ...] = np.nonzero((codes < labels.n_classes) & (codes != predicted))
    drawn, other, own = codes[places].astype(np.intp), predicted[places], logits[(slice(None), *places)]
    if labels.has_regions:
        differs = (own > 0) != labels.regions[:, drawn]
        surest = np.where(differs, np.abs(own), 0).max(axis=0, initial=0)
        probability = 1 / (1 + np.exp(-surest))
        margin = 2 * probability - 1
        kept = differs.any(axis=0)
    else:
        shares = np.exp(own - own.max(axis=0))
        shares /= shares.sum(axis=0)
        columns = np.arange(len(drawn))
        probability = shares[other, columns]
        margin = probability - shares[drawn, columns]
        kept = np.ones(len(drawn), dtype=bool)
    index = _file_index(np.stack(places, axis=-1)[kept], record, first)
    return DisputedVoxels(index, drawn[kept], other[kept], probability[kept], margin[kept])


def _disputed_outside(outside: BoolArray, codes: CodeArray, labels: Labels) -> DisputedVoxels:
    """Return foreground that was drawn where the image is empty, which is background without any doubt."""
    index = np.argwhere(outside & (codes > 0) & (codes < labels.n_classes)).astype(np.int32)
    certain = np.ones(len(index), dtype=np.float32)
    drawn = codes[tuple(index.T)]
    return DisputedVoxels(index, drawn, np.zeros_like(drawn), certain, certain)


def _file_index(places: NDArray[np.intp], record: CaseRecord, first: int) -> NDArray[np.int32]:
    """Turn voxels of a slab (n, 3), the plan's axes, into voxels of the file."""
    index = np.empty(places.shape, dtype=np.int32)
    index[:, list(record.transpose)] = places + np.asarray(record.crop_low) + (first, 0, 0)
    return index
