"""Table of the evaluation of a regression for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from autoseg.core.findings import counted
from autoseg.evaluation.number_summary import METRICS, NumberSummary


def number_table(summary: NumberSummary) -> Table:
    """Return two rows per target: the mean over cases, and the metrics over the voxels of all cases together."""
    table = Table(title=f"{counted(summary.n_cases, 'case')}, scored on voxels with a known number")
    for name in ("target", "over"):
        table.add_column(name)
    for name in (*METRICS, "cases", "known voxels"):
        table.add_column(name, justify="right")
    for name, means in summary.mean.items():
        pooled, n_cases = summary.all_voxels[name], str(summary.n_cases_per_head[name])
        table.add_row(escape(name), "cases (mean)", *(_shown(means[metric]) for metric in METRICS), n_cases, "")
        over_all = (_shown(getattr(pooled, metric)) for metric in METRICS)
        table.add_row("", "all voxels", *over_all, "", f"{pooled.n_known:,}")
    return table


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
