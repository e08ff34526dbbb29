"""Table of suggestions for a terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoseg.assist.suggest import AXES, Ranking, Suggestion


def print_table(ranking: Ranking, console: Console | None = None) -> None:
    """Print the suggestions, best first."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 140) if console is None else console
    caption = "voxels and slices are counted from 0 (ITK-SNAP: from 1); x, y and z as viewers name them"
    title = f"{len(ranking.suggestions)} of {ranking.n_candidates} candidates to annotate next"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("", justify="right")
    table.add_column("case")
    table.add_column("where")
    for column in ("score", "unannotated"):
        table.add_column(column, justify="right")
    table.add_column("most uncertain class")
    table.add_column("chosen for")
    for item in ranking.suggestions:
        case = escape(item.case) + (" (trained on)" if item.seen_in_training else "")
        table.add_row(
            str(item.rank), case, where(item), f"{item.score:.4f}", f"{100 * item.open_share:.0f} %",
            escape(item.main_class or "-"), escape(item.drawn_for or "any class"),
        )  # fmt: skip
    out.print(table)


def where(item: Suggestion) -> str:
    """Return the position in one line: ``slice z = 12``, or the voxels of a patch."""
    if item.axis is not None:
        return f"slice {AXES[item.axis]} = {item.low[item.axis]}"
    return ", ".join(f"{AXES[axis]} {item.low[axis]}-{item.high[axis] - 1}" for axis in (2, 1, 0))
