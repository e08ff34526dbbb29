"""Means over cases and heads with the intervals and the numbers behind them, dense and sparse scores apart.

Scores are grouped by what they were measured on (:mod:`autoseg.evaluation.cases`); each group is averaged by itself.
A head of which no case of a group has a voxel in its reference is not scored there: its mean Dice could only be 0 or
undefined, and says nothing about how well it is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.evaluation.bootstrap import Interval, ScoreArray, mean_intervals, mean_scores
from autoseg.evaluation.cases import CaseMetrics, HeadMetrics, ScoredOn

SCORES = ("Dice", "IoU")
"""Metrics that are null where there is nothing to score; the others are counts and volumes."""

Means = dict[str, float | None]
"""Metric -> mean, None where there is none."""
Intervals = dict[str, Interval | None]
"""Dice and IoU -> 95 % interval of the mean by bootstrap over cases; None where fewer than 2 cases have a score."""


class Scores(BaseModel):
    """Means of the scores that were measured on the same: all on dense references, or all on annotated voxels."""

    model_config = ConfigDict(frozen=True)

    foreground_mean: Means
    foreground_mean_interval: Intervals
    mean: dict[str, Means]
    """Key of a head -> metric -> mean over the cases in which the head is measured on this."""
    mean_interval: dict[str, Intervals]
    n_cases: int
    """Cases in which some head is."""
    n_cases_per_head: dict[str, int]
    """Cases behind the mean Dice of each head."""
    n_decided_per_head: dict[str, int]
    """Voxels behind it: in those cases, voxels of which the reference says whether they belong to the head."""


def scored_groups(cases: Sequence[CaseMetrics], keys: Sequence[str]) -> tuple[ScoredOn, ...]:
    """Return what there are scores on: those of which some head is in some reference, dense first; at least one."""
    kinds: tuple[ScoredOn, ...] = ("dense", "annotated voxels")
    found = tuple(kind for kind in kinds if any(_is_found(cases, key, kind) for key in keys))
    if found:
        return found
    return ("dense",) if all(case.decided_fraction == 1 for case in cases) else ("annotated voxels",)


def group_scores(cases: Sequence[CaseMetrics], keys: Sequence[str], kind: ScoredOn) -> Scores:
    """Average the scores of one group; heads that no case measures on ``kind`` are left out."""
    heads = [key for key in keys if any(case.scored_on[key] == kind for case in cases)]
    rows = {key: [case.metrics[key] for case in cases if case.scored_on[key] == kind] for key in heads}
    mean = {key: _counts(rows[key]) for key in heads}
    foreground, intervals = empty_means(), {key: empty_intervals() for key in [*heads, ""]}
    for score in SCORES:
        table = score_table(cases, heads, kind, score)
        *means, foreground[score] = (None if np.isnan(value) else float(value) for value in mean_scores(table))
        for key, value in zip(heads, means, strict=True):
            mean[key][score] = value
        for key, interval in zip([*heads, ""], mean_intervals(table), strict=True):
            intervals[key][score] = interval
    for name in HeadMetrics.model_fields.keys() - {*SCORES}:
        foreground[name] = _mean([mean[key][name] for key in heads])
    behind = {
        key: [row for row in rows[key] if row.Dice is not None and mean[key]["Dice"] is not None] for key in heads
    }
    return Scores(
        foreground_mean=foreground,
        foreground_mean_interval=intervals.pop(""),
        mean=mean,
        mean_interval=intervals,
        n_cases=sum(kind in case.scored_on.values() for case in cases),
        n_cases_per_head={key: len(behind[key]) for key in heads},
        n_decided_per_head={key: sum(row.n_decided for row in behind[key]) for key in heads},
    )


def score_table(cases: Sequence[CaseMetrics], keys: Sequence[str], kind: ScoredOn, score: str) -> ScoreArray:
    """(N, H) the score of each head in each case; NaN where it has none on ``kind``, or no case has a voxel of it."""
    table = np.full((len(cases), len(keys)), np.nan)
    for column, key in enumerate(keys):
        if _is_found(cases, key, kind):
            for row, case in enumerate(cases):
                value = getattr(case.metrics[key], score) if case.scored_on[key] == kind else None
                table[row, column] = np.nan if value is None else value
    return table


def not_scored(
    cases: Sequence[CaseMetrics], names: Mapping[str, str], groups: Mapping[ScoredOn, Scores]
) -> dict[str, str]:
    """Return key -> why, for the heads that have no mean Dice in any group."""
    return {
        key: _why_not(cases, key, name)
        for key, name in names.items()
        if all(group.mean.get(key, empty_means())["Dice"] is None for group in groups.values())
    }


def empty_means() -> Means:
    """Every metric without a mean."""
    return dict.fromkeys(HeadMetrics.model_fields)


def empty_intervals() -> Intervals:
    """Every score without an interval."""
    return dict.fromkeys(SCORES)


def _is_found(cases: Sequence[CaseMetrics], key: str, kind: ScoredOn) -> bool:
    return any(case.scored_on[key] == kind and case.metrics[key].n_ref > 0 for case in cases)


def _counts(rows: Sequence[HeadMetrics]) -> Means:
    """Mean of counts and volumes; the scores are filled in by the caller."""
    names = HeadMetrics.model_fields
    return {name: None if name in SCORES else _mean([getattr(row, name) for row in rows]) for name in names}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _why_not(cases: Sequence[CaseMetrics], key: str, name: str) -> str:
    if not cases:
        return f"{name}: no case was scored."
    n_decided = sum(case.metrics[key].n_decided for case in cases)
    if not n_decided:
        return f"{name}: the references of the {len(cases)} cases say nothing of it."
    wrong = sum(case.metrics[key].FP for case in cases)
    return (
        f"{name}: no voxel of it in the references of the {len(cases)} cases ({wrong} of the {n_decided} voxels that "
        "are known not to be it were predicted as it)."
    )
