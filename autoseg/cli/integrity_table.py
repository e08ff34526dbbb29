"""The report of ``--check-only`` on a terminal: what is annotated, what is missing, what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoseg.core.findings import counted
from autoseg.inspection.integrity import IntegrityReport
from autoseg.planning.strata import FoldGap

MAX_ROWS = 200
"""Cases listed in the table; ``--json`` has all."""


def print_report(report: IntegrityReport, gaps: Sequence[FoldGap], console: Console | None = None) -> None:
    """Print how much of each case is annotated, per class, then what is missing. Faults are left to the caller."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 140) if console is None else console
    out.print(annotation_table(report))
    if len(report.cases) > MAX_ROWS:
        out.print(f"... and {len(report.cases) - MAX_ROWS} more cases (--json lists all)")
    lines = [*report.warnings, *map(str, gaps)]
    for line in lines:
        out.print(f"warning: {line}", markup=False, soft_wrap=True)
    for line in report.notes:
        out.print(line, markup=False, soft_wrap=True)
    verdict = counted(len(report.faults), "fault") if report.faults else "no faults"
    out.print(f"labels of {counted(len(report.cases), 'case')} read: {verdict}, {counted(len(lines), 'warning')}")


def annotation_table(report: IntegrityReport) -> Table:
    """One row per case: the share of voxels that say something, and the share of each class or region."""
    table = Table(title="annotated share of all voxels, %", title_justify="left")
    table.add_column("case")
    table.add_column("any", justify="right")
    for head in report.heads:
        table.add_column(escape(head), justify="right")
    for name, annotation in list(report.cases.items())[:MAX_ROWS]:
        shares = (annotation.positive_fraction(head) for head in report.heads)
        table.add_row(escape(name), _percent(annotation.annotated_fraction), *map(_percent, shares))
    return table


def _percent(share: float) -> str:
    return "-" if share == 0 else f"{100 * share:.2f}"
