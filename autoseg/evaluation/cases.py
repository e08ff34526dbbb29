"""Metrics of one case, computed from voxel counts, with the kind of reference on which each score is based.

A score of a head in a case is **dense** if the reference decides every voxel for the head. Otherwise it is based on
**annotated voxels** only. This depends on the reference, never on the prediction. A case can have both kinds, if one
class is annotated completely and another one is not.

A head has no Dice in a case in three situations, because it could only be 0 or undefined: ``cases.<case>.annotated``
omits the head and no voxel of it is annotated; the head occurs only in sets with other classes ("liver or tumour"); or
the head is declared absent from a case that is not dense. Its false positives are counted all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoseg.dataset.labels import CaseStatement, Head, Labels
from autoseg.evaluation.instance_scores import InstanceScores
from autoseg.evaluation.metrics import HeadCounts
from autoseg.evaluation.surface_scores import SurfaceScores

ScoredOn = Literal["dense", "annotated voxels"]
_NO_SURFACE: Mapping[str, SurfaceScores] = MappingProxyType({})


class HeadMetrics(BaseModel):
    """Metrics of one class or region in one case, over the voxels that the reference decides for it."""

    model_config = ConfigDict(frozen=True)

    Dice: float | None
    IoU: float | None
    TP: int
    FP: int
    FN: int
    TN: int
    n_pred: int
    n_ref: int
    ref_volume_mm3: float
    """``n_ref`` times the volume of a voxel, by the spacing of the reference. In 2-D the area, mm²."""
    pred_volume_mm3: float
    """``n_pred`` times the volume of a voxel. In 2-D the area, mm²."""
    n_decided: int
    """TP + FP + FN + TN: voxels that the reference decides for the head."""


class FalsePositives(BaseModel):
    """Voxels predicted as a class that is certainly absent from a case."""

    model_config = ConfigDict(frozen=True)

    voxels: int
    volume_mm3: float
    """1000 mm³ are 1 ml. In 2-D the area, mm²."""


class CaseMetrics(BaseModel):
    """Metrics of one case."""

    model_config = ConfigDict(frozen=True)

    case: str
    reference_file: str
    prediction_file: str
    decided_fraction: float
    """Share of (voxel, foreground head) pairs that the reference decides, 0 to 1. 1 for a dense reference."""
    metrics: dict[str, HeadMetrics]
    """Key of a foreground head (``"1"``, ``"(1, 2)"``) -> metrics."""
    scored_on: dict[str, ScoredOn | None]
    """Key of a foreground head -> kind of reference behind its Dice and IoU. None if it has no Dice and IoU."""
    absent: dict[str, FalsePositives] = {}
    """Key of a head -> false positives, for heads all of whose classes are in ``cases.<case>.absent``."""
    surface: dict[str, SurfaceScores] = {}
    """Key of a foreground head -> surface scores, if they were asked for; heads without Dice are left out."""
    instances: dict[str, InstanceScores] = {}
    """Key of a foreground class -> scores of its objects, if label files hold numbers of objects."""


def case_metrics(
    case: str,
    reference_file: str,
    prediction_file: str,
    labels: Labels,
    counts: Sequence[HeadCounts],
    *,
    n_voxels: int,
    voxel_volume: float,
    surface: Mapping[str, SurfaceScores] = _NO_SURFACE,
) -> CaseMetrics:
    """Return the metrics of a case, computed from the counts of every head.

    ``n_voxels`` is the number of voxels of the label map, ``voxel_volume`` is in mm³ (mm² in 2-D). An empty label map
    counts as dense. ``surface``: key of a head -> surface scores.
    """
    foreground = [(labels.heads[index], counts[index]) for index in labels.foreground_heads]
    statement = labels.statements.get(case, CaseStatement())
    is_dense = all(head_counts.n_decided == n_voxels for _, head_counts in foreground)
    scored_on = {
        head.key: None
        if statement.absent.issuperset(head.classes) and not is_dense
        else _scored_on(head, head_counts, statement, n_voxels)
        for head, head_counts in foreground
    }
    pairs = n_voxels * len(foreground)
    decided = sum(head_counts.n_decided for _, head_counts in foreground)
    return CaseMetrics(
        case=case,
        reference_file=reference_file,
        prediction_file=prediction_file,
        decided_fraction=decided / pairs if pairs else 1.0,
        metrics={
            head.key: _head_metrics(head_counts, voxel_volume, is_scored=scored_on[head.key] is not None)
            for head, head_counts in foreground
        },
        scored_on=scored_on,
        absent={
            head.key: FalsePositives(
                voxels=head_counts.false_positive, volume_mm3=head_counts.false_positive * voxel_volume
            )
            for head, head_counts in foreground
            if statement.absent.issuperset(head.classes)
        },
        surface={key: scores for key, scores in surface.items() if scored_on[key] is not None},
    )


def is_left_out(head: Head, statement: CaseStatement) -> bool:
    """Whether the head has a class that is neither in ``annotated`` nor in ``absent`` of a case."""
    return statement.annotated is not None and not {*head.classes} <= statement.annotated | statement.absent


def _scored_on(head: Head, counts: HeadCounts, statement: CaseStatement, n_voxels: int) -> ScoredOn | None:
    """Return the kind of reference behind the scores of a head; None if it has no Dice."""
    if counts.n_decided == n_voxels:
        return "dense"
    can_have_dice = counts.n_reference > 0 or not (counts.n_open or is_left_out(head, statement))
    return "annotated voxels" if counts.n_decided and can_have_dice else None


def _head_metrics(counts: HeadCounts, voxel_volume: float, *, is_scored: bool) -> HeadMetrics:
    return HeadMetrics(
        Dice=counts.dice if is_scored else None,
        IoU=counts.iou if is_scored else None,
        TP=counts.true_positive,
        FP=counts.false_positive,
        FN=counts.false_negative,
        TN=counts.true_negative,
        n_pred=counts.n_prediction,
        n_ref=counts.n_reference,
        ref_volume_mm3=counts.n_reference * voxel_volume,
        pred_volume_mm3=counts.n_prediction * voxel_volume,
        n_decided=counts.n_decided,
    )
