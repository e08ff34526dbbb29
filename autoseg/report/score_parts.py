"""Parts of a page about scores: means, boxes of every class, and predicted against true scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoseg.evaluation import AnySummary
from autoseg.evaluation.instance_scores import MATCH_SCORES
from autoseg.report.charts import Pair, boxes, scatter
from autoseg.report.page import heading, note, side_by_side, table
from autoseg.report.prediction_tables import PredictedDice
from autoseg.report.scores import CaseScores, Scores, mean_table, object_table

MOST_BOXES = 40
"""Most classes that have a box."""
SURFACE_TITLES = {"HD95": "HD95, mm (lower is better)", "NSD": "NSD"}
UNIT_RANGE = ("Dice", "NSD", *MATCH_SCORES)
"""Metrics from 0 to 1."""


def mean_part(summary: AnySummary, name: str = "") -> str:
    """Return the table of the means of a summary; ``name`` is its id if it can be sorted."""
    columns, rows = mean_table(summary)
    of_objects, scores = object_table(summary)
    objects = heading("Objects") + table(of_objects, scores) if scores else ""
    return table(columns, rows, name=name) + objects


def box_part(scores: Scores) -> str:
    """Return the boxes of the metric that ranks cases, of Dice and of surface scores; "" without scores."""
    charts = []
    for metric in dict.fromkeys((scores.metric, "Dice", *SURFACE_TITLES)):
        if metric not in scores.metrics:
            continue
        groups = dict(list(scores.by_head(metric).items())[:MOST_BOXES])
        title = SURFACE_TITLES.get(metric) or scores.name_of(metric)
        charts.append(boxes(title, groups, limits=(0.0, 1.0) if metric in UNIT_RANGE else None))
    hidden = len(scores.heads) - MOST_BOXES
    return side_by_side(charts) + (note(f"{hidden} further classes are in the tables.") if hidden > 0 else "")


def ranked_keys(scores: Scores) -> list[tuple[tuple[str, str], str]]:
    """Return fold and name of each case with a score, worst first, with its score in words."""
    return [((case.fold, case.case), score_text(scores, case)) for case in scores.ranked()]


def score_text(scores: Scores, case: CaseScores) -> str:
    """Return the scores of a case in words: ``Dice 0.812 (liver 0.912, tumour 0.712)``."""
    mean, values = case.mean(scores.metric), case.values[scores.metric]
    known = [f"{head} {value:.3f}" for head, value in values.items() if value is not None]
    each = f" ({', '.join(known)})" if 1 < len(known) <= 8 else ""
    return "" if mean is None else f"{scores.metric} {mean:.3f}{each}"


def quality_chart(estimates: Sequence[PredictedDice], scores: Scores) -> list[str]:
    """Return the chart of predicted and true Dice, and what it says in numbers; empty without cases that have both.

    An estimate without a class is compared with the mean over classes.
    """
    if "Dice" not in scores.metrics:
        return []
    true = {(case.case, head): value for case in scores.cases for head, value in case.values["Dice"].items()}
    true |= {(case.case, ""): case.mean("Dice") for case in scores.cases}
    pairs = [
        Pair(item.case, item.head or "mean", item.value, value, item.interval)
        for item in estimates
        if (value := true.get((item.case, item.head))) is not None
    ]
    if not pairs:
        return []
    chart = scatter(
        "predicted and true Dice", pairs, x_label="predicted Dice", y_label=f"true {scores.name_of('Dice')}"
    )
    lines = [f"{len(pairs)} pairs of a case and a class."]
    correlation = _rank_correlation(pairs)
    if correlation is not None:
        lines.append(f"Rank correlation (Spearman): {correlation:.3f}.")
    with_interval = [pair for pair in pairs if pair.x_range is not None]
    if with_interval:
        inside = sum(low <= pair.y <= high for pair in with_interval for low, high in [pair.x_range or (0.0, 0.0)])
        lines.append(f"The true Dice lies in the predicted interval in {inside} of {len(with_interval)} pairs.")
    return [chart, note(" ".join(lines))]


def _rank_correlation(pairs: Sequence[Pair]) -> float | None:
    """Return Spearman's correlation of at least three pairs; None if one of both is constant."""
    from scipy.stats import spearmanr  # takes a moment to import: only for this number

    if len(pairs) < 3 or len({pair.x for pair in pairs}) < 2 or len({pair.y for pair in pairs}) < 2:
        return None
    value = float(spearmanr([pair.x for pair in pairs], [pair.y for pair in pairs]).statistic)
    return value if math.isfinite(value) else None
