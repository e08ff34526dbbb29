"""Mean scores over cases and heads, with intervals and numbers of cases; dense and sparse references are separate.

Scores are grouped by the kind of reference (:mod:`autoseg.evaluation.cases`), and each group is averaged separately.
A head that occurs in no reference of a group is not scored in this group: its mean Dice could only be 0 or undefined,
and does not show how well the head is segmented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.core.means import mean_known
from autoseg.evaluation.bootstrap import Interval, ScoreArray, mean_intervals, mean_scores
from autoseg.evaluation.cases import CaseMetrics, HeadMetrics, ScoredOn

SCORES = ("Dice", "IoU")
"""Metrics that are null without anything to score. The other metrics are counts and volumes."""

Means = dict[str, float | None]
"""Metric -> mean; None without any value."""
Intervals = dict[str, Interval | None]
"""Dice and IoU -> 95 % interval of the mean by bootstrap over cases; None if fewer than 2 cases have a score."""


class Scores(BaseModel):
    """Means over one group of scores: those on dense references, or those on annotated voxels."""

    model_config = ConfigDict(frozen=True)

    foreground_mean: Means
    foreground_mean_interval: Intervals
    mean: dict[str, Means]
    """Key of a head -> metric -> mean over the cases in which the head has a score of this group."""
    mean_interval: dict[str, Intervals]
    n_cases: int
    """Number of cases in which at least one head has a score of this group."""
    n_cases_per_head: dict[str, int]
    """Key of a head -> number of cases in its mean Dice."""
    n_decided_per_head: dict[str, int]
    """Key of a head -> number of voxels that the references decide for it, summed over the cases in its mean Dice."""


def scored_groups(cases: Sequence[CaseMetrics], keys: Sequence[str]) -> tuple[ScoredOn, ...]:
    """Return the kinds of references for which at least one head occurs in a reference; dense comes first.

    If no head occurs in any reference, return "dense" if all references are dense, otherwise "annotated voxels".
    """
    kinds: tuple[ScoredOn, ...] = ("dense", "annotated voxels")
    scored = tuple(kind for kind in kinds if any(_occurs(cases, key, kind) for key in keys))
    if scored:
        return scored
    return ("dense",) if all(case.decided_fraction == 1 for case in cases) else ("annotated voxels",)


def group_scores(cases: Sequence[CaseMetrics], keys: Sequence[str], kind: ScoredOn) -> Scores:
    """Average the scores of one group. Heads without a score on ``kind`` in any case are left out."""
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
        foreground[name] = mean_known([mean[key][name] for key in heads])
    scored_rows = {
        key: [row for row in rows[key] if row.Dice is not None and mean[key]["Dice"] is not None] for key in heads
    }
    return Scores(
        foreground_mean=foreground,
        foreground_mean_interval=intervals.pop(""),
        mean=mean,
        mean_interval=intervals,
        n_cases=sum(kind in case.scored_on.values() for case in cases),
        n_cases_per_head={key: len(scored_rows[key]) for key in heads},
        n_decided_per_head={key: sum(row.n_decided for row in scored_rows[key]) for key in heads},
    )


def score_table(cases: Sequence[CaseMetrics], keys: Sequence[str], kind: ScoredOn, score: str) -> ScoreArray:
    """Return (N, H): score of each head of ``keys`` in each case.

    NaN if the head has no score on ``kind`` in the case, or if it occurs in no reference of this kind.
    """
    table = np.full((len(cases), len(keys)), np.nan)
    for column, key in enumerate(keys):
        if _occurs(cases, key, kind):
            for row, case in enumerate(cases):
                value = getattr(case.metrics[key], score) if case.scored_on[key] == kind else None
                table[row, column] = np.nan if value is None else value
    return table


def not_scored(
    cases: Sequence[CaseMetrics], names: Mapping[str, str], groups: Mapping[ScoredOn, Scores]
) -> dict[str, str]:
    """Return key -> reason, for the heads that have no mean Dice in any group. ``names``: key -> name."""
    return {
        key: _why_not(cases, key, name)
        for key, name in names.items()
        if all(group.mean.get(key, empty_means())["Dice"] is None for group in groups.values())
    }


def empty_means() -> Means:
    """Return metric -> None for every metric."""
    return dict.fromkeys(HeadMetrics.model_fields)


def empty_intervals() -> Intervals:
    """Return score -> None for every score."""
    return dict.fromkeys(SCORES)


def _occurs(cases: Sequence[CaseMetrics], key: str, kind: ScoredOn) -> bool:
    """Whether a head has a voxel in a reference on which it is scored as ``kind``."""
    return any(case.scored_on[key] == kind and case.metrics[key].n_ref > 0 for case in cases)


def _counts(rows: Sequence[HeadMetrics]) -> Means:
    """Return the means of counts and volumes, and None for the scores, which the caller fills in."""
    names = HeadMetrics.model_fields
    return {name: None if name in SCORES else mean_known([getattr(row, name) for row in rows]) for name in names}


def _why_not(cases: Sequence[CaseMetrics], key: str, name: str) -> str:
    if not cases:
        return f"{name}: no case was scored."
    n_decided = sum(case.metrics[key].n_decided for case in cases)
    if not n_decided:
        return f"{name}: the references of the {len(cases)} cases decide no voxel for it."
    wrong = sum(case.metrics[key].FP for case in cases)
    return (
        f"{name}: no voxel of it in the references of the {len(cases)} cases ({wrong} of the {n_decided} voxels that "
        "certainly do not belong to it were predicted as it)."
    )
