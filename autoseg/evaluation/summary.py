"""The result of an evaluation, and its form on disk: nnU-Net's ``summary.json`` as valid JSON, and a CSV.

Rules for what cannot be computed (``null`` in JSON, an empty cell in CSV, never NaN):

* Dice and IoU of a head in a case are null where TP + FP + FN = 0: neither the decided part of the reference nor the
  prediction there has a voxel of it. A head that is predicted but absent from the reference has Dice 0, not null.
* ``mean`` of a metric of a head is over the cases where it is not null, and null if there is none. ``n_cases_per_head``
  says over how many cases each Dice mean was taken; counts and volumes are over all cases that measure the head.
* ``foreground_mean`` is over the heads whose mean is not null, and null if there is none.
  Source: nnU-Net ``evaluate_predictions.py``; differs in that nnU-Net's foreground mean is NaN as soon as one class
  never occurs.
* A head of which no reference has a voxel has no mean Dice and IoU; ``not_scored`` says why. nnU-Net gives it 0 as soon
  as one voxel is predicted as it, and that 0 enters its foreground mean.
* Scores on annotated voxels and on dense references are never averaged. ``groups`` holds the means of each. Where both
  exist ``scored_on`` is ``"mixed"``, ``foreground_mean`` is null throughout, and so is ``mean`` of a head that is in
  both; with one of them alone these are that group's, and have nnU-Net's meaning.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from autoseg.core.atomic import atomic_path, write_json
from autoseg.evaluation.cases import CaseMetrics, HeadMetrics, ScoredOn, case_metrics
from autoseg.evaluation.comparison import Comparison
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

__all__ = ["AbsentScores", "CaseMetrics", "HeadMetrics", "Summary", "case_metrics", "score_name", "summarise"]

FOREGROUND = "foreground mean"
"""Name of the row of the foreground mean in tables."""


class AbsentScores(BaseModel):
    """What was predicted of a head in the cases that certainly do not have it."""

    model_config = ConfigDict(frozen=True)

    n_cases: int
    """Cases that declare it absent."""
    n_cases_with_false_positives: int
    mean_voxels: float
    """Over those cases, the ones without a false positive included."""
    mean_volume_mm3: float


class Summary(BaseModel):
    """Metrics of a folder of predictions: nnU-Net's three keys, then ours."""

    model_config = ConfigDict(frozen=True)

    foreground_mean: Means
    mean: dict[str, Means]
    metric_per_case: tuple[CaseMetrics, ...]
    """Sorted by case."""
    n_cases: int
    """Cases scored."""
    n_cases_per_head: dict[str, int]
    """Cases behind the mean Dice of each head; both groups together where there are two."""
    names: dict[str, str]
    """Key of a head -> its name in dataset.json."""
    scored_on: Literal["dense", "annotated voxels", "mixed"]
    """What ``foreground_mean`` and ``mean`` were measured on; ``"mixed"`` if there are two groups."""
    decided_fraction: float
    """Mean over cases of their decided fraction; 0 without a case."""
    foreground_mean_interval: Intervals
    """95 % interval of the means by bootstrap over cases; null as they are, and with fewer than 2 cases."""
    mean_interval: dict[str, Intervals]
    n_decided_per_head: dict[str, int]
    """Voxels behind the mean Dice of each head, as the cases."""
    groups: dict[ScoredOn, Scores]
    """The same for dense references and annotated voxels apart; one or two entries."""
    not_scored: dict[str, str]
    """Key of a head without a mean Dice -> why."""
    absent: dict[str, AbsentScores]
    """Key of a head that ``dataset.json: cases`` declares absent somewhere -> false positives there."""
    missing: tuple[str, ...] = ()
    """Cases with a reference but without a prediction; not scored."""
    extra: tuple[str, ...] = ()
    """Predictions without a reference; not scored."""
    faults: tuple[str, ...] = ()
    """Cases that could not be scored: one message each, with what was found and expected."""
    warnings: tuple[str, ...] = ()
    """What was scored but looks wrong, as a geometry that differs from the reference's."""
    seen_in_training: tuple[str, ...] = ()
    """Scored cases that the weights were trained on, where that is known: what they say of new images is too good."""
    comparison: Comparison | None = None
    """How the Dice differs from that of other predictions, if asked for."""

    def write(self, path: str | Path) -> None:
        """Write ``summary.json``, atomically."""
        write_json(Path(path), self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``summary.json``."""
        return self.model_dump(mode="json")

    def to_csv(self, path: str | Path) -> None:
        """Write one row per case and head to ``path``, and the means beside it (:func:`means_path`), atomically.

        Scores on annotated voxels stand in columns of their own; null is an empty cell.
        """
        _write_rows(Path(path), _case_rows(self))
        _write_rows(means_path(Path(path)), _mean_rows(self))


def means_path(path: Path) -> Path:
    """Return where :meth:`Summary.to_csv` writes the means: ``scores.csv`` -> ``scores_means.csv``."""
    return path.with_name(f"{path.stem}_means{path.suffix}")


def score_name(score: str, kind: ScoredOn) -> str:
    """Return the name of a score as it is shown: ``"Dice"`` or ``"Dice (annotated voxels)"``."""
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
    """Average metrics over cases and heads; ``names`` gives the keys of the foreground heads, in order."""
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
        missing=tuple(missing),
        extra=tuple(extra),
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


def _only_group(groups: Mapping[ScoredOn, Scores], key: str) -> Scores | None:
    """Return the group that measures a head; None if none or both do."""
    having = [group for group in groups.values() if key in group.mean]
    return having[0] if len(having) == 1 else None


def _absent_scores(cases: Sequence[CaseMetrics], key: str) -> AbsentScores | None:
    found = [case.absent[key] for case in cases if key in case.absent]
    if not found:
        return None
    return AbsentScores(
        n_cases=len(found),
        n_cases_with_false_positives=sum(item.voxels > 0 for item in found),
        mean_voxels=sum(item.voxels for item in found) / len(found),
        mean_volume_mm3=sum(item.volume_mm3 for item in found) / len(found),
    )


def _case_rows(summary: Summary) -> Iterator[dict[str, object]]:
    """Columns: case, key, name, scored_on, the scores by what they hold on, counts, absent, false_positive_mm3."""
    for case in summary.metric_per_case:
        for key, metrics in case.metrics.items():
            absent = case.absent.get(key)
            yield {
                "case": case.case, "key": key, "name": summary.names[key], "scored_on": case.scored_on[key],
                **_score_columns(case.scored_on[key], {score: getattr(metrics, score) for score in SCORES}),
                **metrics.model_dump(exclude={*SCORES}),
                "absent": "" if absent is None else "yes",
                "false_positive_mm3": None if absent is None else absent.volume_mm3,
            }  # fmt: skip


def _mean_rows(summary: Summary) -> Iterator[dict[str, object]]:
    """One row per group and head, and one for its foreground mean."""
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
            }  # fmt: skip


def _score_columns(kind: ScoredOn | None, values: Mapping[str, object]) -> dict[str, object]:
    """Put scores into the columns of their kind and leave those of the other empty."""
    kinds: tuple[ScoredOn, ...] = ("dense", "annotated voxels")
    return {
        score_name(name, column): value if column == kind else None
        for column in kinds
        for name, value in values.items()
    }


def _write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    listed = list(rows)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(listed[0]) if listed else [])
        writer.writeheader()
        writer.writerows(listed)
