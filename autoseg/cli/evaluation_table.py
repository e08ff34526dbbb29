"""The result of an evaluation as tables on a terminal: means per class, and the cases to look at first."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoseg.evaluation.summary import CaseMetrics, Summary

WORST = 5
"""Cases named in the second table."""


def print_tables(summary: Summary, console: Console | None = None) -> None:
    """Print the means per class or region and, if there is more than one case, those with the lowest Dice."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 120) if console is None else console
    out.print(mean_table(summary))
    if summary.n_cases > 1:
        out.print(worst_table(summary))


def mean_table(summary: Summary) -> Table:
    """One row per class or region, and the foreground mean."""
    title = f"{summary.n_cases} case{'' if summary.n_cases == 1 else 's'}, scored on {_scored_on(summary)}"
    table = Table(title=title, title_justify="left", caption="volumes in mm³, areas of 2-D images in mm²")
    table.add_column("class")
    for column in ("Dice", "IoU", "cases with Dice", "mean reference volume", "mean predicted volume"):
        table.add_column(column, justify="right")
    for key, mean in summary.mean.items():
        volumes = (_volume(mean["ref_volume_mm3"]), _volume(mean["pred_volume_mm3"]))
        scores = (_score(mean["Dice"]), _score(mean["IoU"]))
        table.add_row(escape(f"{summary.names[key]} {key}"), *scores, str(summary.n_cases_per_head[key]), *volumes)
    table.add_section()
    foreground = summary.foreground_mean
    table.add_row("foreground mean", _score(foreground["Dice"]), _score(foreground["IoU"]))
    return table


def worst_table(summary: Summary) -> Table:
    """Return the cases with the lowest mean Dice, lowest first; cases without any Dice are left out."""
    ranked: list[tuple[float, CaseMetrics]] = []
    for case in summary.metric_per_case:
        scores = [metrics.Dice for metrics in case.metrics.values() if metrics.Dice is not None]
        if scores:
            ranked.append((sum(scores) / len(scores), case))
    ranked.sort(key=lambda pair: pair[0])
    table = Table(title="lowest Dice", title_justify="left")
    table.add_column("case")
    table.add_column("mean Dice", justify="right")
    table.add_column("lowest class")
    table.add_column("its Dice", justify="right")
    for dice, case in ranked[:WORST]:
        lowest, key = min((metrics.Dice, key) for key, metrics in case.metrics.items() if metrics.Dice is not None)
        table.add_row(escape(case.case), _score(dice), escape(f"{summary.names[key]} {key}"), _score(lowest))
    return table


def _scored_on(summary: Summary) -> str:
    if summary.scored_on == "dense":
        return "dense references"
    return f"annotated voxels only ({summary.decided_fraction:.1%} of all)"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _volume(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
