"""Scores of cases in one form: of classes or of a regression, of one evaluation or of several folds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from autoseg.core.boxes import Box, box_of
from autoseg.core.errors import EvaluationError
from autoseg.core.findings import counted, listed
from autoseg.core.means import mean_known
from autoseg.evaluation import AnySummary, NumberSummary, Summary
from autoseg.evaluation.cases import CaseMetrics, ScoredOn
from autoseg.evaluation.instance_scores import INSTANCE_SCORES
from autoseg.evaluation.number_summary import METRICS, NumberCase
from autoseg.evaluation.summary import score_name
from autoseg.evaluation.surface_scores import SurfaceScores
from autoseg.report.page import Cell, number

SUMMARY_FILE = "summary.json"
ANNOTATED: ScoredOn = "annotated voxels"
NAMED = 20
"""Most cases that a warning names."""


@dataclass(frozen=True, slots=True)
class CaseScores:
    """Scores of one case."""

    case: str
    fold: str
    """Name of the fold that predicted it, "" if that is not of interest."""
    reference: Path
    values: Mapping[str, Mapping[str, float | None]]
    """Metric -> name of a class, region or target -> value; None where there is none."""
    scored_on: Mapping[str, str | None]
    """Name of a class or region -> ``"dense"``, ``"annotated voxels"``, or None without a score."""
    is_seen: bool
    """Whether the weights were trained on the case."""
    box: Box | None = None
    """Box of its volume that alone was scored; None if all of the case was."""

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric over classes; None without any value."""
        return mean_known(self.values[metric].values())


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of all cases."""

    metrics: tuple[str, ...]
    """The first one ranks cases; higher is better."""
    heads: tuple[str, ...]
    """Names of the foreground classes or regions, or of the targets."""
    cases: tuple[CaseScores, ...]

    @property
    def metric(self) -> str:
        """The metric that ranks cases."""
        return self.metrics[0]

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of references that scores are based on."""
        return frozenset(kind for case in self.cases for kind in case.scored_on.values() if kind is not None)

    @property
    def metric_name(self) -> str:
        """The ranking metric, with what qualifies it: ``Dice (annotated voxels)`` if some of it is on such."""
        return self.name_of(self.metric)

    def name_of(self, metric: str) -> str:
        """Return the name of a metric with what qualifies it."""
        return f"{metric} ({ANNOTATED})" if ANNOTATED in self.kinds else metric

    def ranked(self) -> list[CaseScores]:
        """Return the cases with a score, worst first."""
        means = {id(case): case.mean(self.metric) for case in self.cases}
        return sorted(
            (case for case in self.cases if means[id(case)] is not None), key=lambda case: means[id(case)] or 0.0
        )

    def mean_text(self) -> str:
        """Return the mean over cases of the metric that ranks them: ``0.8124, mean over 3 cases``; "" without any."""
        means = [mean for case in self.cases if (mean := case.mean(self.metric)) is not None]
        return f"{math.fsum(means) / len(means):.4f}, mean over {counted(len(means), 'scored case')}" if means else ""

    def by_head(self, metric: str) -> dict[str, list[tuple[str, float]]]:
        """Return name of a class -> (case, value) of all cases in which it has one."""
        return {
            head: [(case.case, value) for case in self.cases if (value := case.values[metric].get(head)) is not None]
            for head in self.heads
        }


def read_summary(path: Path) -> AnySummary:
    """Read a summary.json; raise ``EvaluationError`` if it is missing or is none of this version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        is_regression = isinstance(content, dict) and "all_voxels" in content
        return (NumberSummary if is_regression else Summary).model_validate(content)
    except OSError as error:
        raise EvaluationError(
            f"{path}: cannot be read ({(error.strerror or 'missing').lower()}), expected what "
            "autoseg_evaluate_folder wrote. Correct the path."
        ) from error
    except ValueError as error:
        reason = f"{error.error_count()} faults" if isinstance(error, ValidationError) else "it is not JSON"
        raise EvaluationError(
            f"{path}: found no summary of an evaluation by this version ({reason}), expected what "
            "autoseg_evaluate_folder writes. Score the predictions again: autoseg_evaluate_folder REFERENCE PREDICTIONS"
        ) from error


def scores_of(summaries: Mapping[str, AnySummary]) -> Scores:
    """Return the scores of all cases of at least one summary. ``summaries``: name of a fold ("" for none) -> it."""
    every = list(summaries.values())
    names = list(dict.fromkeys(name for summary in every for name in summary.names.values()))
    if any(isinstance(summary, NumberSummary) for summary in every):
        metrics: tuple[str, ...] = ("R2", *(metric for metric in METRICS if metric != "R2"))
    else:
        has_surface = any(isinstance(summary, Summary) and summary.tolerance_mm is not None for summary in every)
        has_objects = any(isinstance(summary, Summary) and summary.instances for summary in every)
        metrics = (
            *(INSTANCE_SCORES if has_objects else ()), "Dice", "IoU",
            *(SurfaceScores.model_fields if has_surface else ()),
        )  # fmt: skip
    cases = [case for fold, summary in summaries.items() for case in _cases(fold, summary, metrics)]
    return Scores(metrics, tuple(names), tuple(sorted(cases, key=lambda case: (case.case, case.fold))))


def case_table(scores: Scores) -> tuple[list[str], list[list[Cell]]]:
    """Return columns and rows of a table with a row for each case; the case itself is not among the cells."""
    has_folds = any(case.fold for case in scores.cases)
    is_mixed = ANNOTATED in scores.kinds
    has_boxes = any(case.box is not None for case in scores.cases)
    several = len(scores.heads) > 1
    shown = [metric for metric in scores.metrics if metric != "IoU"]
    columns = ["fold"] if has_folds else []
    columns += ["scored in"] if has_boxes else []
    columns += ["scored on"] if is_mixed else []
    columns += [f"mean {scores.metric}"] if several else []
    columns += [f"{metric} {head}" for metric in shown for head in scores.heads]
    rows: list[list[Cell]] = []
    for case in scores.cases:
        row: list[Cell] = [case.fold] if has_folds else []
        row += [str(case.box or "all of it")] if has_boxes else []
        row += [_kind_of(case)] if is_mixed else []
        row += [case.mean(scores.metric)] if several else []
        rows.append([*row, *(case.values[metric].get(head) for metric in shown for head in scores.heads)])
    return columns, rows


def mean_table(summary: AnySummary) -> tuple[list[str], list[list[Cell]]]:
    """Return columns and rows of a table with the means over cases, a row for each class and kind of reference."""
    if isinstance(summary, NumberSummary):
        columns = [
            "target",
            *(f"mean {metric}" for metric in METRICS),
            *(f"{metric}, all voxels" for metric in METRICS),
        ]
        return [*columns, "cases"], [
            [
                name,
                *(summary.mean[key].get(metric) for metric in METRICS),
                *(getattr(summary.all_voxels[key], metric) for metric in METRICS),
                summary.n_cases_per_head[key],
            ]
            for key, name in summary.names.items()
        ]
    has_surface = summary.tolerance_mm is not None
    columns = ["class", "scored on", "mean Dice", "95 % interval", "mean IoU"]
    columns += [*SurfaceScores.model_fields] if has_surface else []
    rows: list[list[Cell]] = []
    for kind, group in summary.groups.items():
        for key, mean in group.mean.items():
            row: list[Cell] = [summary.names[key], kind, mean["Dice"], _interval(group.mean_interval[key]["Dice"])]
            row.append(mean["IoU"])
            surface = summary.surface.get(kind, {}).get(key)
            row += [getattr(surface, name, None) for name in SurfaceScores.model_fields] if has_surface else []
            rows.append([*row, group.n_cases_per_head[key], group.n_decided_per_head[key]])
        if len(group.mean) > 1:
            own = group.foreground_mean
            ends = _interval(group.foreground_mean_interval["Dice"])
            empty: list[Cell] = [None] * (len(columns) - 5)
            rows.append(["all", kind, own["Dice"], ends, own["IoU"], *empty, group.n_cases, None])
    return [*columns, "cases", "decided voxels"], rows


def object_table(summary: AnySummary) -> tuple[list[str], list[list[Cell]]]:
    """Return columns and rows of a table with the scores of objects, a row for each class and kind of reference.

    No rows without objects.
    """
    columns = [
        "class",
        "scored on",
        *(f"{name}, objects of all cases" for name in INSTANCE_SCORES),
        *(f"mean {name}" for name in INSTANCE_SCORES),
        "predicted objects",
        "reference objects",
        "cases",
    ]
    kinds = summary.instances if isinstance(summary, Summary) else {}
    return columns, [
        [
            summary.names[key],
            kind,
            *(getattr(scores.pooled, name) for name in INSTANCE_SCORES),
            *(scores.mean[name] for name in INSTANCE_SCORES),
            scores.pooled.n_pred,
            scores.pooled.n_ref,
            scores.n_cases,
        ]
        for kind, of_class in kinds.items()
        for key, scores in of_class.items()
    ]


def mean_of_head(summary: AnySummary, key: str, metric: str) -> float | None:
    """Return the mean of a metric over the cases of a class, region or target that have one; None without any."""
    if not isinstance(summary, Summary) or metric not in INSTANCE_SCORES:
        return summary.mean[key].get(metric)
    return mean_known(getattr(case.instances.get(key), metric, None) for case in summary.metric_per_case)


def summary_warnings(summary: AnySummary) -> list[str]:
    """Return what a reader of the scores must know: cases that were not scored, scores that say little."""
    lines = [f"not scored: {line}" for line in (*summary.faults, *summary.not_scored.values())]
    if summary.missing:
        lines.append(f"{counted(len(summary.missing), 'reference')} without a prediction: {_some(summary.missing)}")
    if summary.extra:
        lines.append(f"{counted(len(summary.extra), 'prediction')} without a reference: {_some(summary.extra)}")
    if summary.seen_in_training:
        lines.append(
            f"{counted(len(summary.seen_in_training), 'case')} seen in training, with better scores than new images "
            f"have: {_some(summary.seen_in_training)}"
        )
    lines += summary.box_remarks() if isinstance(summary, Summary) else []
    if isinstance(summary, Summary) and summary.scored_on != "dense":
        lines.append(
            f"sparse references: the {score_name('Dice', ANNOTATED)} counts only the "
            f"{100 * summary.decided_fraction:.3g} % of voxels that are annotated. It says little of the others."
        )
    return [*lines, *summary.warnings]


def _cases(fold: str, summary: AnySummary, metrics: Sequence[str]) -> Iterable[CaseScores]:
    boxes = {case: box_of(spans) for case, spans in summary.boxes.items()} if isinstance(summary, Summary) else {}
    for case in summary.metric_per_case:
        names = {key: summary.names[key] for key in case.metrics}
        yield CaseScores(
            case=case.case,
            fold=fold,
            reference=Path(case.reference_file),
            values={metric: {name: _value(case, key, metric) for key, name in names.items()} for metric in metrics},
            scored_on={name: getattr(case, "scored_on", {}).get(key) for key, name in names.items()},
            is_seen=case.case in summary.seen_in_training,
            box=boxes.get(case.case),
        )


def _value(case: CaseMetrics | NumberCase, key: str, metric: str) -> float | None:
    """Return a score of a class in a case; None if it has none."""
    own: object = case.metrics[key]
    if isinstance(case, CaseMetrics) and metric in SurfaceScores.model_fields:
        own = case.surface.get(key)
    elif isinstance(case, CaseMetrics) and metric in INSTANCE_SCORES:
        own = case.instances.get(key)
    value: float | None = getattr(own, metric, None)
    return value


def _kind_of(case: CaseScores) -> str:
    kinds = sorted({kind for kind in case.scored_on.values() if kind is not None})
    return ", ".join(kinds)


def _interval(interval: tuple[float, float] | None) -> str | None:
    return None if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def _some(names: Sequence[str]) -> str:
    return listed(names, NAMED)
