"""Whether one set of predictions is better than another on the same cases: the difference of means, paired by case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.evaluation.bootstrap import Interval, cases_behind, difference_intervals, mean_scores
from autoseg.evaluation.cases import CaseMetrics, ScoredOn
from autoseg.evaluation.scores import score_table, scored_groups

CASES_FOR_A_VERDICT = 6
"""With fewer cases a bootstrap interval is far too narrow; nor could any test tell two systems apart at the 5 % level,
were one better in every case (sign test: 2 * 0.5 ** 5 = 0.06)."""


class Difference(BaseModel):
    """Mean Dice of one minus mean Dice of the other."""

    model_config = ConfigDict(frozen=True)

    mean: float | None
    """None where one of them has no mean."""
    interval: Interval | None
    """95 %, by bootstrap over cases that resamples both alike; None where fewer than 2 cases have a Dice in both."""
    n_cases: int
    """Cases behind it: those of the one that has fewer."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0, and the cases are enough for that to mean something."""
        has_zero = self.interval is None or self.interval[0] <= 0 <= self.interval[1]
        return self.n_cases >= CASES_FOR_A_VERDICT and not has_zero


class GroupDifference(BaseModel):
    """Differences of the scores that were measured on the same."""

    model_config = ConfigDict(frozen=True)

    foreground_mean: Difference
    mean: dict[str, Difference]
    """Key of a head -> difference."""


class Comparison(BaseModel):
    """How scores differ from those of other predictions, over the cases that both have."""

    model_config = ConfigDict(frozen=True)

    against: str
    """Folder of the other predictions."""
    n_cases: int
    """Cases that both have."""
    left_out: tuple[str, ...]
    """Cases that only one of them has."""
    groups: dict[ScoredOn, GroupDifference]
    """By what the Dice was measured on."""


def compare(
    cases: Sequence[CaseMetrics], other: Sequence[CaseMetrics], keys: Sequence[str], against: str
) -> Comparison:
    """Subtract the mean Dice of ``other`` from that of ``cases``, class by class and over the foreground.

    Both are scored against the same references. The means are over the cases that both have, by the rules of
    :mod:`autoseg.evaluation.scores`: a false alarm of one of them counts for it as a Dice of 0.
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
    behind = np.minimum(*(cases_behind(table) for table in tables)).tolist()
    means = mean_scores(tables[0]) - mean_scores(tables[1])
    *per_head, foreground = (
        Difference(mean=None if np.isnan(mean) else float(mean), interval=interval, n_cases=n_cases)
        for mean, interval, n_cases in zip(means, difference_intervals(*tables), behind, strict=True)
    )
    return GroupDifference(foreground_mean=foreground, mean=dict(zip(heads, per_head, strict=True)))
