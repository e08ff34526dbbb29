"""Scores of objects: average precision and panoptic quality of each class in a case, and over cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.core.arrays import LabelMap
from autoseg.core.means import mean_known
from autoseg.dataset.labels import Labels, head_states
from autoseg.dataset.objects import objects_of_class
from autoseg.evaluation.instances import InstanceCounts, add_counts, match_instances

INSTANCE_SCORES = ("AP50", "AP", "PQ")
"""Scores that are null without any object."""


class InstanceScores(BaseModel):
    """Scores of the objects of one class, over the voxels that the reference decides for it."""

    model_config = ConfigDict(frozen=True)

    AP50: float | None
    """Average precision TP / (TP + FP + FN), where objects match from an intersection over union of 0.5 on."""
    AP: float | None
    """Mean of the average precision from 0.5, 0.55 ... 0.95 on."""
    PQ: float | None
    """Panoptic quality: sum of the intersection over union of matches at 0.5 / (TP + FP / 2 + FN / 2)."""
    n_pred: int
    n_ref: int
    matched: tuple[int, ...]
    """Matched pairs from 0.5, 0.55 ... 0.95 on."""
    matched_iou: float
    """Sum of the intersection over union of the pairs that match at 0.5."""

    @classmethod
    def of(cls, counts: InstanceCounts) -> InstanceScores:
        """Return the scores that follow from counts."""
        return cls(
            AP50=counts.average_precision(),
            AP=counts.mean_average_precision,
            PQ=counts.panoptic_quality,
            n_pred=counts.n_predicted,
            n_ref=counts.n_reference,
            matched=counts.matched,
            matched_iou=counts.matched_iou,
        )

    @property
    def counts(self) -> InstanceCounts:
        """The counts that the scores follow from."""
        return InstanceCounts(self.matched, self.n_pred, self.n_ref, self.matched_iou)


class InstanceMeans(BaseModel):
    """Scores of the objects of one class over cases."""

    model_config = ConfigDict(frozen=True)

    mean: dict[str, float | None]
    """AP50, AP and PQ: means over the cases with an object in reference or prediction; null without any."""
    n_cases: int
    """Number of these cases."""
    pooled: InstanceScores
    """Scores of the objects of all cases together, so that a case with many objects weighs more."""


def instance_scores(
    reference: tuple[NDArray[np.integer[Any]], LabelMap],
    prediction: tuple[NDArray[np.integer[Any]], LabelMap],
    labels: Labels,
    *,
    case: str = "",
) -> dict[str, InstanceScores]:
    """Return key of a foreground class -> the scores of its objects, over the voxels that the reference decides for it.

    Parameters
    ----------
    reference, prediction
        File values of classes and numbers of objects, both (z, y, x); see ``dataset.objects.split_instances``.
    labels
        Meaning of the values.
    case
        Name of the case in ``dataset.json: cases``.
    """
    classes, objects = reference
    codes, label_sets = labels.encode(classes, case)
    positive, negative = head_states(label_sets, labels.regions)  # (N, H)
    scores = {}
    for index in labels.foreground_heads:
        head = labels.heads[index]
        decided = (positive[:, index] | negative[:, index])[codes]
        (value,) = head.values
        drawn, predicted = (objects_of_class(numbers, of, value) for of, numbers in ((classes, objects), prediction))
        scores[head.key] = InstanceScores.of(match_instances(predicted, drawn, decided))
    return scores


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
            pooled=InstanceScores.of(add_counts([row.counts for row in rows])),
        )
    return means
