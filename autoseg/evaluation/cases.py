"""What is counted in one case becomes its metrics, each with what it was measured on.

A score of a head in a case is **dense** if the reference decides every voxel for it, else it holds on **annotated
voxels** only; this follows from the reference, never from the prediction. A case can have both: a class that is
completely drawn beside others that are not. A head that ``cases.<case>.annotated`` leaves out, and of which no voxel
is drawn, has no Dice there. Nor has one that occurs only in sets with others ("liver or tumour"), or that is declared
absent from a case that is not dense. It could only be 0 or undefined; its false positives are counted all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoseg.dataset.labels import CaseStatement, Head, Labels
from autoseg.evaluation.metrics import HeadCounts

ScoredOn = Literal["dense", "annotated voxels"]


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
    """n_ref times the volume of a voxel (2-D: area, mm²), by the spacing of the reference."""
    pred_volume_mm3: float
    """n_pred times the volume of a voxel."""
    n_decided: int
    """TP + FP + FN + TN: voxels of which the reference says whether they belong to the head."""


class FalsePositives(BaseModel):
    """What was predicted of a class that is certainly not in a case."""

    model_config = ConfigDict(frozen=True)

    voxels: int
    volume_mm3: float
    """In 2-D the area, mm²; 1000 mm³ are 1 ml."""


class CaseMetrics(BaseModel):
    """Metrics of one case."""

    model_config = ConfigDict(frozen=True)

    case: str
    reference_file: str
    prediction_file: str
    decided_fraction: float
    """Share of (voxel, foreground head) pairs that the reference decides, 0 to 1; 1 for a dense reference."""
    metrics: dict[str, HeadMetrics]
    """Key of the head (``"1"``, ``"(1, 2)"``) -> metrics, foreground heads only."""
    scored_on: dict[str, ScoredOn | None]
    """Key -> what its Dice and IoU were measured on; None where the reference cannot say anything of them."""
    absent: dict[str, FalsePositives] = {}
    """Key of a head all of whose classes ``cases.<case>.absent`` names -> what was predicted of it."""


def case_metrics(
    case: str,
    reference_file: str,
    prediction_file: str,
    labels: Labels,
    counts: Sequence[HeadCounts],
    *,
    n_voxels: int,
    voxel_volume: float,
) -> CaseMetrics:
    """Turn the counts of every head into the metrics of the foreground heads.

    ``n_voxels`` is the size of the label map, ``voxel_volume`` in mm³ (mm² in 2-D). An empty map is decided wholly.
    """
    foreground = [(labels.heads[index], counts[index]) for index in labels.foreground_heads]
    statement = labels.statements.get(case, CaseStatement())
    is_dense = all(found.n_decided == n_voxels for _, found in foreground)
    scored_on = {
        head.key: None
        if statement.absent.issuperset(head.classes) and not is_dense
        else _scored_on(head, found, statement, n_voxels)
        for head, found in foreground
    }
    pairs = n_voxels * len(foreground)
    decided = sum(found.n_decided for _, found in foreground)
    return CaseMetrics(
        case=case,
        reference_file=reference_file,
        prediction_file=prediction_file,
        decided_fraction=decided / pairs if pairs else 1.0,
        metrics={
            head.key: _head_metrics(found, voxel_volume, is_scored=scored_on[head.key] is not None)
            for head, found in foreground
        },
        scored_on=scored_on,
        absent={
            head.key: FalsePositives(voxels=found.false_positive, volume_mm3=found.false_positive * voxel_volume)
            for head, found in foreground
            if statement.absent.issuperset(head.classes)
        },
    )


def is_left_out(head: Head, statement: CaseStatement) -> bool:
    """Whether ``annotated`` of a case leaves out a class of the head of which it is not said that it is absent."""
    return statement.annotated is not None and not {*head.classes} <= statement.annotated | statement.absent


def _scored_on(head: Head, counts: HeadCounts, statement: CaseStatement, n_voxels: int) -> ScoredOn | None:
    if counts.n_decided == n_voxels:
        return "dense"
    can_be_found = counts.n_reference > 0 or not (counts.n_open or is_left_out(head, statement))
    return "annotated voxels" if counts.n_decided and can_be_found else None


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
