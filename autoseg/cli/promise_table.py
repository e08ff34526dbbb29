"""Table of the classes that promises of the annotators exclude, for a terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoseg.inspection.statements import PromiseReport


def print_promises(report: PromiseReport, console: Console | None = None) -> None:
    """Print the share of voxels that each promise narrows, and the estimate of each reach. Faults are not printed."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 140) if console is None else console
    out.print(promise_table(report))
    for name, estimate in report.estimates.items():
        out.print(
            f"reach_mm of {name!r}: {estimate.reach_mm:.1f} mm, estimated from the {estimate.n_cases} cases in which "
            f"it is densely annotated: its largest distance between two voxels there is {estimate.diameter_mm:.1f} mm",
            markup=False,
            soft_wrap=True,
        )
    for axis, n_cases in report.slice_axes.items():
        out.print(f"slices are counted along {axis} in {n_cases} cases")
    for line in report.warnings:
        out.print(f"warning: {line}", markup=False, soft_wrap=True)
    n_voxels = sum(n for cases in report.kept_open.values() for n in cases.values())
    verdict = (
        f"{n_voxels} annotated voxels keep classes that a promise would exclude" if n_voxels else "no contradictions"
    )
    out.print(f"promises compared with the annotation of {report.n_cases} cases: {verdict}")


def promise_table(report: PromiseReport) -> Table:
    """Return one row per promise, then one for all; with columns for simulated scribbles if there are dense cases."""
    caption = f"scribbled: simulated scribbles of the {report.n_dense} dense cases" if report.reference else None
    table = Table(title="effect of the promises, % of all voxels", title_justify="left", caption=caption)
    table.add_column("promise")
    columns = ["fewer classes left", "one class left", "informative, with the annotation"]
    if report.reference:
        columns += ["scribbled: informative", "scribbled: true foreground excluded, % of it"]
    for column in columns:
        table.add_column(column, justify="right")
    for name, counts in report.settled.items():
        cells = [_percent(counts.share(part)) for part in ("narrowed", "settled", "informative")]
        if name in report.reference:
            cells += [_percent(report.reference[name].share(part)) for part in ("informative", "wrong")]
        table.add_row(escape(name), *cells)
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
