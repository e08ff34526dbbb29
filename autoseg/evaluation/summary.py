"""The result of an evaluation, and its form on disk: nnU-Net's ``summary.json`` as valid JSON, and a CSV.

Rules for what cannot be computed (``null`` in JSON, an empty cell in CSV, never NaN):

* Dice and IoU of a head in a case are null where TP + FP + FN = 0: neither the decided part of the reference nor the
  prediction there has a voxel of it. A head that is predicted but absent from the reference has Dice 0, not null.
* ``mean`` of a metric of a head is over the cases where it is not null, and null if there is none. ``n_cases_per_head``
  says over how many cases each Dice mean was taken; counts and volumes always are over all scored cases.
* ``foreground_mean`` is over the heads whose mean is not null, and null if there is none.
  Source: nnU-Net ``evaluate_predictions.py``; differs in that nnU-Net's foreground mean is NaN as soon as one class
  never occurs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from autoseg.core.atomic import atomic_path, write_json
from autoseg.core.labels import Labels
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


class Summary(BaseModel):
    """Metrics of a folder of predictions: nnU-Net's three keys, then ours."""

    model_config = ConfigDict(frozen=True)

    foreground_mean: dict[str, float | None]
    mean: dict[str, dict[str, float | None]]
    metric_per_case: tuple[CaseMetrics, ...]
    """Sorted by case."""
    n_cases: int
    """Cases scored."""
    n_cases_per_head: dict[str, int]
    """Cases in which the Dice of the head is not null."""
    names: dict[str, str]
    """Key of a head -> its name in dataset.json."""
    scored_on: ScoredOn
    """``"dense"`` if the references decide every voxel for every head, else ``"annotated voxels"``."""
    decided_fraction: float
    """Mean over cases of their decided fraction; 0 without a case."""
    missing: tuple[str, ...] = ()
    """Cases with a reference but without a prediction; not scored."""
    extra: tuple[str, ...] = ()
    """Predictions without a reference; not scored."""
    faults: tuple[str, ...] = ()
    """Cases that could not be scored: one message each, with what was found and expected."""
    warnings: tuple[str, ...] = ()
    """What was scored but looks wrong, as a geometry that differs from the reference's."""

    def write(self, path: str | Path) -> None:
        """Write ``summary.json``, atomically."""
        write_json(Path(path), self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``summary.json``."""
        return self.model_dump(mode="json")

    def to_csv(self, path: str | Path) -> None:
        """Write one row per case and head (case, key, name, metrics; null as an empty cell), atomically."""
        columns = ["case", "key", "name", *HeadMetrics.model_fields]
        with atomic_path(Path(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            for case in self.metric_per_case:
                for key, metrics in case.metrics.items():
                    head = {"case": case.case, "key": key, "name": self.names[key]}
                    writer.writerow(head | metrics.model_dump())


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
    pairs = n_voxels * len(foreground)
    decided = sum(head_counts.n_decided for _, head_counts in foreground)
    return CaseMetrics(
        case=case,
        reference_file=reference_file,
        prediction_file=prediction_file,
        decided_fraction=decided / pairs if pairs else 1.0,
        metrics={head.key: _head_metrics(head_counts, voxel_volume) for head, head_counts in foreground},
    )


def summarise(
    cases: Iterable[CaseMetrics],
    names: Mapping[str, str],
    *,
    missing: Sequence[str] = (),
    extra: Sequence[str] = (),
    faults: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Summary:
    """Average metrics over cases and heads; ``names`` gives the keys of the foreground heads, in order."""
    ordered = sorted(cases, key=lambda case: case.case)
    mean = {key: _mean_of_rows([case.metrics[key].model_dump() for case in ordered]) for key in names}
    fractions = [case.decided_fraction for case in ordered]
    return Summary(
        foreground_mean=_mean_of_rows(list(mean.values())),
        mean=mean,
        metric_per_case=tuple(ordered),
        n_cases=len(ordered),
        n_cases_per_head={key: sum(case.metrics[key].Dice is not None for case in ordered) for key in names},
        names=dict(names),
        scored_on="dense" if all(fraction == 1 for fraction in fractions) else "annotated voxels",
        decided_fraction=sum(fractions) / len(fractions) if fractions else 0.0,
        missing=tuple(missing),
        extra=tuple(extra),
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


def _head_metrics(counts: HeadCounts, voxel_volume: float) -> HeadMetrics:
    return HeadMetrics(
        Dice=counts.dice,
        IoU=counts.iou,
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


def _mean_of_rows(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean per metric over the rows where it is not None; None where there is none."""
    means: dict[str, float | None] = {}
    for metric in HeadMetrics.model_fields:
        values = [value for row in rows if (value := row[metric]) is not None]
        means[metric] = sum(values) / len(values) if values else None
    return means
