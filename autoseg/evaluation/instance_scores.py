"""Scores of objects of each class in a case, and over cases: matched objects, and the division of voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.core.means import mean_known
from autoseg.dataset.labels import Labels, head_states
from autoseg.dataset.objects import objects_of_class
from autoseg.evaluation.contingency import Contingency
from autoseg.evaluation.instances import InstanceCounts, add_counts, count_matches
from autoseg.evaluation.partitions import PartitionCounts, count_partitions

MATCH_SCORES = ("AP50", "AP", "PQ")
"""Scores of matched objects, higher is better; null without any object."""
PARTITION_SCORES = ("VI_split", "VI_merge", "rand_error", "rand_precision", "rand_recall")
"""Scores of the division of voxels into objects; see :mod:`autoseg.evaluation.partitions`."""
INSTANCE_SCORES = (*MATCH_SCORES, *PARTITION_SCORES)


class InstanceScores(BaseModel):
    """Scores of the objects of one class, over the voxels that the reference decides for it."""

    model_config = ConfigDict(frozen=True)

    AP50: float | None
    """Average precision TP / (TP + FP + FN), where objects match from an intersection over union of 0.5 on."""
    AP: float | None
    """Mean of the average precision from 0.5, 0.55 ... 0.95 on."""
    PQ: float | None
    """Panoptic quality: sum of the intersection over union of matches at 0.5 / (TP + FP / 2 + FN / 2)."""
    VI_split: float | None = None
    """Variation of information, bits per decided voxel: objects of the reference that are split. Null without any
    object."""
    VI_merge: float | None = None
    """The part of objects of the reference that are merged."""
    rand_error: float | None = None
    """Adapted Rand error 1 - F, over the voxels of reference objects. Null without a pair of voxels in any object."""
    rand_precision: float | None = None
    """Share of the predicted pairs of voxels that belong together; null without a pair."""
    rand_recall: float | None = None
    """Share of the pairs of voxels that belong together that are predicted so; null without a pair."""
    n_pred: int
    n_ref: int
    matched: tuple[int, ...]
    """Matched pairs from 0.5, 0.55 ... 0.95 on."""
    matched_iou: float
    """Sum of the intersection over union of the pairs that match at 0.5."""
    partition: PartitionCounts = PartitionCounts()
    """Sums that the scores from ``VI_split`` on follow from."""

    @classmethod
    def of(cls, counts: InstanceCounts, partition: PartitionCounts) -> InstanceScores:
        """Return the scores that follow from counts."""
        has_objects = bool(counts.n_predicted or counts.n_reference)
        return cls(
            AP50=counts.average_precision(),
            AP=counts.mean_average_precision,
            PQ=counts.panoptic_quality,
            VI_split=partition.split if has_objects else None,
            VI_merge=partition.merge if has_objects else None,
            rand_error=partition.rand_error,
            rand_precision=partition.precision,
            rand_recall=partition.recall,
            n_pred=counts.n_predicted,
            n_ref=counts.n_reference,
            matched=counts.matched,
            matched_iou=counts.matched_iou,
            partition=partition,
        )

    @property
    def counts(self) -> InstanceCounts:
        """The counts of matched objects."""
        return InstanceCounts(self.matched, self.n_pred, self.n_ref, self.matched_iou)


class InstanceMeans(BaseModel):
    """Scores of the objects of one class over cases."""

    model_config = ConfigDict(frozen=True)

    mean: dict[str, float | None]
    """``INSTANCE_SCORES``: means over the cases with an object in reference or prediction in which they are not null;
    null without any."""
    n_cases: int
    """Number of cases with an object in reference or prediction."""
    pooled: InstanceScores
    """Scores of the objects of all cases together, so that a case with many objects, or many voxels, weighs more."""


def instance_scores(
    reference: tuple[NDArray[np.integer[Any]], LabelMap],
    prediction: tuple[NDArray[np.integer[Any]], LabelMap],
    labels: Labels,
    *,
    case: str = "",
) -> dict[str, InstanceScores]:
    """Return key of a foreground class -> the scores of its objects, over the voxels that the reference decides for it.

    Parameters as for :func:`instance_tables`.
    """
    tables = instance_tables(reference, prediction, labels, case=case)
    return {key: InstanceScores.of(count_matches(table), count_partitions(table)) for key, table in tables.items()}


def instance_tables(
    reference: tuple[NDArray[np.integer[Any]], LabelMap],
    prediction: tuple[NDArray[np.integer[Any]], LabelMap],
    labels: Labels,
    *,
    case: str = "",
    valid: BoolArray | None = None,
) -> dict[str, Contingency]:
    """Return key of a foreground class -> the overlaps of its objects, over the voxels that the reference decides.

    Parameters
    ----------
    reference, prediction
        File values of classes and numbers of objects, both (*S); see ``dataset.objects.split_instances``.
    labels
        Meaning of the values.
    case
        Name of the case in ``dataset.json: cases``.
    valid
        (*S) mask of voxels that are annotated, whatever their value; None: all.
    """
    classes, objects = reference
    codes, label_sets = labels.encode(classes, case, valid=valid)
    positive, negative = head_states(label_sets, labels.regions)  # (N, H)
    tables = {}
    for index in labels.foreground_heads:
        head = labels.heads[index]
        decided = (positive[:, index] | negative[:, index])[codes]
        (value,) = head.values
        drawn, predicted = (objects_of_class(numbers, of, value) for of, numbers in ((classes, objects), prediction))
        tables[head.key] = Contingency.of(predicted, drawn, decided)
    return tables


def mean_instance_scores(
    cases: Sequence[Mapping[str, InstanceScores]], keys: Sequence[str]
) -> dict[str, InstanceMeans]:
    """Return key of a class -> its scores over cases; {} if no case has scores of objects."""
    if not any(cases):
        return {}
    means = {}
    for key in keys:
        rows = [scores[key] for scores in cases if key in scores]
        occurring = [row for row in rows if row.n_pred or row.n_ref]
        means[key] = InstanceMeans(
            mean={name: mean_known([getattr(row, name) for row in occurring]) for name in INSTANCE_SCORES},
            n_cases=len(occurring),
            pooled=InstanceScores.of(
                add_counts([row.counts for row in rows]), sum((row.partition for row in rows), PartitionCounts())
            ),
        )
    return means
