"""Summary of an evaluation, and its files: nnU-Net's ``summary.json`` as valid JSON, and CSV.

Rules for values that cannot be computed (``null`` in JSON, an empty cell in CSV, never NaN):

* Dice and IoU of a head in a case are null if TP + FP + FN = 0: at the decided voxels, neither reference nor prediction
  has a voxel of the head. A head that is predicted but absent from the reference has Dice 0, not null.
* ``mean`` of a metric of a head is the mean over the cases in which it is not null, and null if there is none.
  ``n_cases_per_head`` is the number of cases in each mean Dice. Means of counts and volumes include all cases in which
  the head is scored.
* ``foreground_mean`` is the mean over the heads whose mean is not null, and null if there is none.
  Source: nnU-Net ``evaluate_predictions.py``. Differs: nnU-Net's foreground mean is NaN if one class never occurs.
* A head without a voxel in any reference has no mean Dice and IoU; ``not_scored`` gives the reason. In nnU-Net its mean
  is 0 as soon as one voxel is predicted as the head, and enters the foreground mean.
* Scores on annotated voxels and on dense references are never averaged together. ``groups`` holds the means of each
  kind. If both kinds exist, ``scored_on`` is ``"mixed"``, ``foreground_mean`` is null throughout, and ``mean`` is null
  for a head that has both. If only one kind exists, both are the means of that group and have nnU-Net's meaning.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from autoseg.core.atomic import atomic_path, write_json
from autoseg.core.boxes import Spans, box_of
from autoseg.evaluation.cases import CaseMetrics, HeadMetrics, ScoredOn, case_metrics
from autoseg.evaluation.comparison import Comparison
from autoseg.evaluation.instance_scores import INSTANCE_SCORES, InstanceMeans, InstanceScores, mean_instance_scores
from autoseg.evaluation.scores import (
    SCORES,
    Intervals,
    Means,
    Scores,
    empty_intervals,
    empty_means,
    group_scores,
    not_scored,
    scored_groups,
)  # fmt: skip
from autoseg.evaluation.surface_scores import SurfaceMeans, SurfaceScores, mean_surface_scores

__all__ = ["AbsentScores", "CaseMetrics", "HeadMetrics", "Summary", "case_metrics", "score_name", "summarise"]

FOREGROUND = "foreground mean"
"""Name of the row with the foreground mean in tables."""


class AbsentScores(BaseModel):
    """False positives of a head in the cases from which it is certainly absent."""

    model_config = ConfigDict(frozen=True)

    n_cases: int
    """Number of cases that declare the head absent."""
    n_cases_with_false_positives: int
    mean_voxels: float
    """Mean number of voxels over these cases, those without a false positive included."""
    mean_volume_mm3: float
    """Mean volume over these cases; in 2-D the area, mm²."""


class Summary(BaseModel):
    """Metrics of a folder of predictions: nnU-Net's three keys, then further ones."""

    model_config = ConfigDict(frozen=True)

    foreground_mean: Means
    mean: dict[str, Means]
    metric_per_case: tuple[CaseMetrics, ...]
    """Sorted by case."""
    n_cases: int
    """Number of scored cases."""
    n_cases_per_head: dict[str, int]
    """Key of a head -> number of cases in its mean Dice; the sum of both groups if there are two."""
    names: dict[str, str]
    """Key of a head -> its name in dataset.json."""
    scored_on: Literal["dense", "annotated voxels", "mixed"]
    """Kind of reference behind ``foreground_mean`` and ``mean``. ``"mixed"`` if there are two groups."""
    decided_fraction: float
    """Mean over cases of their decided fraction, 0 to 1. 0 without cases."""
    foreground_mean_interval: Intervals
    """95 % intervals of the means by bootstrap over cases. Null if the mean is null or has fewer than 2 cases."""
    mean_interval: dict[str, Intervals]
    n_decided_per_head: dict[str, int]
    """Key of a head -> number of decided voxels in its mean Dice; the sum of both groups if there are two."""
    groups: dict[ScoredOn, Scores]
    """Kind of reference -> its scores; one or two entries."""
    not_scored: dict[str, str]
    """Key of a head without a mean Dice -> reason."""
    absent: dict[str, AbsentScores]
    """Key of a head that ``dataset.json: cases`` declares absent somewhere -> false positives there."""
    surface: dict[ScoredOn, dict[str, SurfaceMeans]] = {}
    """Kind of reference -> key of a head -> means of surface scores, if they were asked for."""
    tolerance_mm: float | None = None
    """Distance of the NSD, mm; None without surface scores."""
    instances: dict[ScoredOn, dict[str, InstanceMeans]] = {}
    """Kind of reference -> key of a foreground class -> scores of its objects over cases, if label files hold numbers
    of objects."""
    missing: tuple[str, ...] = ()
    """Cases with a reference but without a prediction; not scored."""
    extra: tuple[str, ...] = ()
    """Predictions without a reference; not scored."""
    faults: tuple[str, ...] = ()
    """Cases that could not be scored: one message each."""
    warnings: tuple[str, ...] = ()
    """Problems of cases that were scored, for example a geometry that differs from that of the reference."""
    seen_in_training: tuple[str, ...] = ()
    """Scored cases on which the weights were trained, as far as known. Their scores are better than on new images."""
    boxes: dict[str, Spans] = {}
    """Case that is too large for memory -> the box of its volume, [[z0, z1], [y0, y1], [x0, x1]], that alone was
    predicted and scored after training."""
    comparison: Comparison | None = None
    """Difference to the Dice of other predictions; None if not asked for."""
    command: str | None = None
    """Command line that scored; None if it was no command."""

    def write(self, path: str | Path) -> None:
        """Write ``summary.json``, atomically."""
        write_json(Path(path), self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``summary.json``."""
        return self.model_dump(mode="json")

    def box_remarks(self) -> list[str]:
        """Return a line for each of ``boxes``, so that no reader takes its scores for those of the whole volume."""
        return [
            f"{case}: only the box {box_of(spans)} of its volume was predicted and scored, since all of it is "
            "too large for memory"
            for case, spans in self.boxes.items()
        ]

    def to_csv(self, path: str | Path) -> None:
        """Write one row per case and head to ``path``, and the means to :func:`means_path`, atomically.

        Scores on annotated voxels have separate columns. Null is an empty cell.
        """
        write_rows(Path(path), _case_rows(self))
        write_rows(means_path(Path(path)), _mean_rows(self))


def means_path(path: Path) -> Path:
    """Return the path to which :meth:`Summary.to_csv` writes the means: ``scores.csv`` -> ``scores_means.csv``."""
    return path.with_name(f"{path.stem}_means{path.suffix}")


def score_name(score: str, kind: ScoredOn) -> str:
    """Return the name of a score in tables: ``"Dice"`` or ``"Dice (annotated voxels)"``."""
    return score if kind == "dense" else f"{score} ({kind})"


def summarise(
    cases: Iterable[CaseMetrics],
    names: Mapping[str, str],
    *,
    missing: Sequence[str] = (),
    extra: Sequence[str] = (),
    faults: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Summary:
    """Average metrics over cases and heads. ``names``: key -> name of the foreground heads, in order."""
    ordered = sorted(cases, key=lambda case: case.case)
    kinds = scored_groups(ordered, list(names))
    groups = {kind: group_scores(ordered, list(names), kind) for kind in kinds}
    single = next(iter(groups.values())) if len(groups) == 1 else None
    alone = {key: _only_group(groups, key) for key in names}
    fractions = [case.decided_fraction for case in ordered]
    return Summary(
        foreground_mean=single.foreground_mean if single else empty_means(),
        mean={key: group.mean[key] if group else empty_means() for key, group in alone.items()},
        metric_per_case=tuple(ordered),
        n_cases=len(ordered),
        n_cases_per_head={key: sum(group.n_cases_per_head.get(key, 0) for group in groups.values()) for key in names},
        names=dict(names),
        scored_on=kinds[0] if single else "mixed",
        decided_fraction=sum(fractions) / len(fractions) if fractions else 0.0,
        foreground_mean_interval=single.foreground_mean_interval if single else empty_intervals(),
        mean_interval={key: group.mean_interval[key] if group else empty_intervals() for key, group in alone.items()},
        n_decided_per_head={
            key: sum(group.n_decided_per_head.get(key, 0) for group in groups.values()) for key in names
        },
        groups=groups,
        not_scored=not_scored(ordered, names, groups),
        absent={key: scores for key in names if (scores := _absent_scores(ordered, key)) is not None},
        surface=_surface_means(ordered, list(names), kinds),
        instances=_instance_means(ordered, list(names)),
        missing=tuple(missing),
        extra=tuple(extra),
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


def _surface_means(
    cases: Sequence[CaseMetrics], keys: Sequence[str], kinds: Sequence[ScoredOn]
) -> dict[ScoredOn, dict[str, SurfaceMeans]]:
    """Return kind of reference -> key of a head -> means over the cases in which the head is scored on that kind."""
    if not any(case.surface for case in cases):
        return {}
    return {
        kind: mean_surface_scores(
            [{key: scores for key, scores in case.surface.items() if case.scored_on[key] == kind} for case in cases],
            keys,
        )
        for kind in kinds
    }


def _instance_means(cases: Sequence[CaseMetrics], keys: Sequence[str]) -> dict[ScoredOn, dict[str, InstanceMeans]]:
    """Return kind of reference -> key of a class -> scores of its objects in the cases of that kind; {} without any.

    A sparse case without Dice counts as one on annotated voxels: objects predicted there are false.
    """
    rows: dict[ScoredOn, list[dict[str, InstanceScores]]] = {"dense": [], "annotated voxels": []}
    for case in cases:
        for key, own in case.instances.items():
            rows["dense" if case.scored_on[key] == "dense" else "annotated voxels"].append({key: own})
    return {kind: mean_instance_scores(own, keys) for kind, own in rows.items() if own}


def _only_group(groups: Mapping[ScoredOn, Scores], key: str) -> Scores | None:
    """Return the only group that scores a head; None if no group or both do."""
    having = [group for group in groups.values() if key in group.mean]
    return having[0] if len(having) == 1 else None


def _absent_scores(cases: Sequence[CaseMetrics], key: str) -> AbsentScores | None:
    false_positives = [case.absent[key] for case in cases if key in case.absent]
    if not false_positives:
        return None
    return AbsentScores(
        n_cases=len(false_positives),
        n_cases_with_false_positives=sum(item.voxels > 0 for item in false_positives),
        mean_voxels=sum(item.voxels for item in false_positives) / len(false_positives),
        mean_volume_mm3=sum(item.volume_mm3 for item in false_positives) / len(false_positives),
    )


def _case_rows(summary: Summary) -> Iterator[dict[str, object]]:
    """Yield one row per case and head: case, key, name, scored_on, scores by kind, counts, absent, false positives."""
    for case in summary.metric_per_case:
        for key, metrics in case.metrics.items():
            absent = case.absent.get(key)
            yield {
                "case": case.case, "key": key, "name": summary.names[key], "scored_on": case.scored_on[key],
                **_score_columns(case.scored_on[key], {score: getattr(metrics, score) for score in SCORES}),
                **metrics.model_dump(exclude={*SCORES}),
                **_surface_columns(summary, case.surface.get(key)),
                **_instance_columns(summary, case.instances.get(key)),
                "absent": "" if absent is None else "yes",
                "false_positive_mm3": None if absent is None else absent.volume_mm3,
            }  # fmt: skip


def _mean_rows(summary: Summary) -> Iterator[dict[str, object]]:
    """Yield one row per group and head, and one per group for the foreground mean."""
    for kind, group in summary.groups.items():
        means = {**group.mean, FOREGROUND: group.foreground_mean}
        intervals = {**group.mean_interval, FOREGROUND: group.foreground_mean_interval}
        for key, mean in means.items():
            values: dict[str, object] = {}
            for score in SCORES:
                low, high = intervals[key][score] or (None, None)
                values |= {score: mean[score], f"{score} low": low, f"{score} high": high}
            yield {
                "scored_on": kind, "key": "" if key == FOREGROUND else key, "name": summary.names.get(key, FOREGROUND),
                **_score_columns(kind, values),
                "n_cases": group.n_cases_per_head.get(key, group.n_cases),
                "n_decided": group.n_decided_per_head.get(key),
                **_surface_columns(summary, summary.surface.get(kind, {}).get(key)),
                **_instance_columns(summary, own.pooled if (own := _means_of(summary, kind, key)) else None),
            }  # fmt: skip


def _surface_columns(summary: Summary, scores: SurfaceScores | SurfaceMeans | None) -> dict[str, object]:
    """Return the columns of surface scores; none if they were not asked for, empty cells without ``scores``."""
    if summary.tolerance_mm is None:
        return {}
    return {name: None if scores is None else getattr(scores, name) for name in SurfaceScores.model_fields}


def _instance_columns(summary: Summary, scores: InstanceScores | None) -> dict[str, object]:
    """Return the columns of scores of objects; none if files hold classes, empty cells without ``scores``."""
    if not summary.instances:
        return {}
    names = {**{name: name for name in INSTANCE_SCORES}, "n_pred objects": "n_pred", "n_ref objects": "n_ref"}
    return {column: None if scores is None else getattr(scores, name) for column, name in names.items()}


def _means_of(summary: Summary, kind: ScoredOn, key: str) -> InstanceMeans | None:
    """Return the scores of the objects of a class on a kind of reference; None without any."""
    return summary.instances.get(kind, {}).get(key)


def _score_columns(kind: ScoredOn | None, values: Mapping[str, object]) -> dict[str, object]:
    """Return the columns of both kinds, with the scores in those of ``kind`` and None in the others."""
    kinds: tuple[ScoredOn, ...] = ("dense", "annotated voxels")
    return {
        score_name(name, column): value if column == kind else None
        for column in kinds
        for name, value in values.items()
    }


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows with the same keys as CSV, atomically; without rows, an empty line."""
    listed = list(rows)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(listed[0]) if listed else [])
        writer.writeheader()
        writer.writerows(listed)
