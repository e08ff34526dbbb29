"""Comparison of two sets of predictions for the same cases: the difference of mean scores, paired by case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.evaluation.bootstrap import Interval, count_cases, difference_intervals, mean_scores
from autoseg.evaluation.cases import CaseMetrics, ScoredOn
from autoseg.evaluation.scores import score_table, scored_groups

CASES_FOR_A_VERDICT = 6
"""Least number of cases for a verdict. With fewer, a bootstrap interval is far too narrow, and no test is significant
at the 5 % level, even if one system is better in every case (sign test with 5 cases: 2 * 0.5 ** 5 = 0.06)."""


class Difference(BaseModel):
    """Mean score (Dice, or AP50 of objects) of the predictions minus that of the other predictions."""

    model_config = ConfigDict(frozen=True)

    mean: float | None
    """None if one of them has no mean."""
    interval: Interval | None
    """95 % interval, by paired bootstrap over cases. None if one of them has a score in fewer than 2 cases."""
    n_cases: int
    """Number of cases with a score: the smaller of the two results' numbers."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0 and there are enough cases for a verdict."""
        has_zero = self.interval is None or self.interval[0] <= 0 <= self.interval[1]
        return self.n_cases >= CASES_FOR_A_VERDICT and not has_zero


class GroupDifference(BaseModel):
    """Differences of scores that are based on the same kind of reference."""

    model_config = ConfigDict(frozen=True)

    foreground_mean: Difference
    mean: dict[str, Difference]
    """Key of a head -> difference."""


class Comparison(BaseModel):
    """Differences of the scores from those of other predictions, over the cases of both."""

    model_config = ConfigDict(frozen=True)

    against: str
    """Folder of the other predictions."""
    n_cases: int
    """Number of cases of both."""
    left_out: tuple[str, ...]
    """Cases of only one of them."""
    groups: dict[ScoredOn, GroupDifference]
    """Kind of reference -> differences."""


def compare(
    cases: Sequence[CaseMetrics], other: Sequence[CaseMetrics], keys: Sequence[str], against: str
) -> Comparison:
    """Subtract the mean Dice of ``other`` from that of ``cases``, for each head and for the foreground.

    Both must be scored against the same references. The means are over the common cases, by the rules of
    :mod:`autoseg.evaluation.scores`: if a head is absent from a reference and one system predicts it, that system gets
    Dice 0 there.
    """
    by_name, other_by_name = ({case.case: case for case in given} for given in (cases, other))
    common = sorted(by_name.keys() & other_by_name.keys())
    ours, theirs = ([given[name] for name in common] for given in (by_name, other_by_name))
    groups = scored_groups(ours, keys) if common else ()
    return Comparison(
        against=against,
        n_cases=len(common),
        left_out=tuple(sorted(by_name.keys() ^ other_by_name.keys())),
        groups={kind: _group(ours, theirs, keys, kind) for kind in groups},
    )


def _group(
    ours: Sequence[CaseMetrics], theirs: Sequence[CaseMetrics], keys: Sequence[str], kind: ScoredOn
) -> GroupDifference:
    heads = [key for key in keys if any(case.scored_on[key] == kind for case in ours)]
    tables = [score_table(cases, heads, kind, "Dice") for cases in (ours, theirs)]
    numbers = np.minimum(*(count_cases(table) for table in tables)).tolist()
    means = mean_scores(tables[0]) - mean_scores(tables[1])
    *per_head, foreground = (
        Difference(mean=None if np.isnan(mean) else float(mean), interval=interval, n_cases=n_cases)
        for mean, interval, n_cases in zip(means, difference_intervals(*tables), numbers, strict=True)
    )
    return GroupDifference(foreground_mean=foreground, mean=dict(zip(heads, per_head, strict=True)))
