"""Ranking of models and of pairs of models by out-of-fold predictions of the same cases, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.core.errors import EvaluationError
from autoseg.core.findings import counted
from autoseg.evaluation.bootstrap import (
    Interval,
    ScoreArray,
    count_cases,
    difference_intervals,
    mean_intervals,
    mean_scores,
)
from autoseg.evaluation.comparison import CASES_FOR_A_VERDICT, Difference
from autoseg.evaluation.scores import score_table
from autoseg.evaluation.summary import Summary

Members = tuple[str, ...]
"""Names of the model folders whose probabilities are averaged: one or two."""


Measure = Literal["Dice", "AP50"]
"""Score that models are ranked by: AP50 where label files hold numbers of objects, otherwise Dice."""


class RankedModel(BaseModel):
    """A model, or a pair of models, and its scores."""

    model_config = ConfigDict(frozen=True)

    members: Members
    foreground: float | None
    """Mean score over cases, then over classes or regions, on decided voxels; None without a score."""
    interval: Interval | None
    """95 % interval of ``foreground`` by bootstrap over cases; None with fewer than 2 cases."""
    heads: dict[str, float | None]
    """Class or region -> mean score over cases; None without a score."""
    against_best_single: Difference | None = None
    """Difference to ``foreground`` of the best single model, paired by case; None for that model itself."""


class ModelChoice(BaseModel):
    """Ranking of models, and the choice."""

    model_config = ConfigDict(frozen=True)

    ranking: tuple[RankedModel, ...]
    """Best first; of equally good ones the cheaper."""
    chosen: Members
    why: str
    n_cases: int
    measure: Measure
    scored_on: str
    """Kind of references behind the scores: "dense", "annotated voxels", or "mixed"."""


def choose_model(scored: Mapping[Members, Summary]) -> ModelChoice:
    """Rank models by their mean foreground score, and choose.

    The score of a class is its Dice; where label files hold numbers of objects, the AP50 of its objects, which also
    sees that touching ones are parted. (It is what the separation is tuned by, and reports are sorted by.)

    The best single model is chosen, unless pairs are better than it by a margin that is clear: the 95 % interval of the
    difference, by paired bootstrap over cases, is above 0, and there are at least ``CASES_FOR_A_VERDICT`` cases. Then
    the best of these pairs is chosen.

    Parameters
    ----------
    scored
        Members -> scores of their predictions of the same cases; of equally good ones the first is preferred. There
        must be at least one single model.

    Raises
    ------
    EvaluationError
        If no single model has a score.

    Notes
    -----
    Source: nnU-Net ``evaluation/find_best_configuration.py``, which takes the highest mean, pairs included. Differs,
    because a pair takes twice the time, and the best of many pairs is better by chance alone; and in that classes
    without a score do not make the mean undefined.
    """
    tables = {members: _table(summary) for members, summary in scored.items()}
    means = {members: _number(mean_scores(table)[-1]) for members, table in tables.items()}
    singles = [members for members in scored if len(members) == 1 and means[members] is not None]
    if not singles:
        raise EvaluationError(
            "ranking: found no model with a score on decided voxels, expected at least one. Annotate some voxels of a "
            "class in the validation cases."
        )
    best = max(singles, key=lambda members: means[members] or 0.0)
    differences = {members: _difference(table, tables[best]) for members, table in tables.items() if members != best}
    names = {members: list(summary.names.values()) for members, summary in scored.items()}
    models = [
        _ranked(members, tables[members], names[members], differences.get(members))
        for members in sorted(
            scored, key=lambda item: -1.0 if means[item] is None else means[item] or 0.0, reverse=True
        )
    ]
    clear = [
        model.members
        for model in models
        if len(model.members) > 1
        and model.against_best_single is not None
        and model.against_best_single.is_clear
        and (model.against_best_single.mean or 0.0) > 0
    ]
    first = scored[best]
    return ModelChoice(
        ranking=tuple(models),
        chosen=clear[0] if clear else best,
        why=_why(models, best, bool(clear)),
        n_cases=first.n_cases,
        measure="AP50" if first.instances else "Dice",
        scored_on=first.scored_on,
    )


def _table(summary: Summary) -> ScoreArray:
    """Return (N, H) score of each foreground head in each case, whatever the kind of reference; NaN without one.

    Kinds are kept apart in summaries, since they cannot be compared. Here all models are scored on the same voxels. A
    head that occurs in no reference has no score: it could only be 0 or undefined.
    """
    keys = list(summary.names)
    if summary.instances:
        return np.column_stack([_objects_of(summary, key) for key in keys])
    dense, sparse = (score_table(summary.metric_per_case, keys, kind, "Dice") for kind in ("dense", "annotated voxels"))
    return np.where(np.isnan(dense), sparse, dense)


def _objects_of(summary: Summary, key: str) -> ScoreArray:
    """Return (N,): AP50 of the objects of a class in each case; NaN where there is none, or none in any reference."""
    scores = [case.instances.get(key) for case in summary.metric_per_case]
    occurs = any(score is not None and score.n_ref for score in scores)
    values = [np.nan if score is None or score.AP50 is None or not occurs else score.AP50 for score in scores]
    return np.array(values, dtype=np.float64)


def _ranked(members: Members, table: ScoreArray, names: Sequence[str], difference: Difference | None) -> RankedModel:
    *heads, foreground = mean_scores(table).tolist()
    return RankedModel(
        members=members,
        foreground=_number(foreground),
        interval=mean_intervals(table)[-1],
        heads={name: _number(value) for name, value in zip(names, heads, strict=True)},
        against_best_single=difference,
    )


def _difference(table: ScoreArray, other: ScoreArray) -> Difference:
    """Return the difference of the mean foreground score."""
    return Difference(
        mean=_number(mean_scores(table)[-1] - mean_scores(other)[-1]),
        interval=difference_intervals(table, other)[-1],
        n_cases=int(min(count_cases(table)[-1], count_cases(other)[-1])),
    )


def _why(models: Sequence[RankedModel], best: Members, has_clear: bool) -> str:
    """Return the reason for the choice, as a clause."""
    pairs = [model for model in models if len(model.members) > 1]
    n_singles = len(models) - len(pairs)
    if has_clear:
        return "the pair is better than the best single model, and the interval of the difference is above 0"
    alone = "the only model" if n_singles == 1 else f"the best of {n_singles} single models"
    above = [model for model in pairs if ((model.against_best_single and model.against_best_single.mean) or 0.0) > 0]
    if not above:
        return f"{alone}; no pair is better" if pairs else alone
    difference = above[0].against_best_single
    n_cases = 0 if difference is None else difference.n_cases
    reason = (
        f"with {counted(n_cases, 'case')} that may be chance ({CASES_FOR_A_VERDICT} are needed)"
        if n_cases < CASES_FOR_A_VERDICT
        else "but the interval of the difference contains 0, and a pair takes twice the time"
    )
    return f"{alone}; a pair has a higher mean, {reason}"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
