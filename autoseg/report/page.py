"""Parts of an HTML page that is one file: it opens from a disk, without a network, in any browser."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from autoseg.io.png import png_bytes

Cell = str | float | int | None
"""Content of a table; None is shown as a dash, and sorts last."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #2878b5; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
table.sortable th { cursor: pointer; user-select: none; }
th[aria-sort=ascending]::after { content: " \\25B2"; } th[aria-sort=descending]::after { content: " \\25BC"; }
.scroll { overflow-x: auto; } input.filter { font: inherit; padding: .2rem .5rem; width: 18rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; } figcaption { color: #777; font-size: .9em; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line); border-radius: 4px; }
svg { max-width: 100%; height: auto; background: #fff; } .note { color: #777; } .warning { color: #b35900; }
"""

_FILTER = '<input class="filter" type="search" placeholder="filter rows" aria-label="filter rows">'
_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  table.querySelectorAll("th").forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((one, two) => {
        const a = value(one, column), b = value(two, column);
        if (a === "" || b === "") return (a === "") - (b === "");
        const x = Number(a), y = Number(b);
        const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, {numeric: true}) : x - y;
        return up ? order : -order;
      });
      body.append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
  const filter = table.closest("section")?.querySelector("input.filter");
  filter?.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole page: heading, parts (HTML), and the script that sorts and filters tables."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(parts)
        + f"\n<script>{_SCRIPT}</script>\n</html>\n"
    )


def section(title: str, parts: Sequence[str]) -> str:
    """Return a section with a heading; "" without parts."""
    shown = [part for part in parts if part]
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(shown) + "\n</section>" if shown else ""


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text; ``kind`` is "", "note" or "warning"."""
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """Return text as it is, in a fixed-width font: commands, versions."""
    return f"<pre>{escape(text)}</pre>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, is_sortable: bool = False) -> str:
    """Return a table; numbers have four digits. A sortable one has a field to filter its rows.

    "" without rows.
    """
    if not rows:
        return ""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    mark, field = (' class="sortable"', _FILTER) if is_sortable else ("", "")
    whole = f"<table{mark}><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'{field}<div class="scroll">{whole}</div>'


def picture(pixels: NDArray[np.uint8], caption: str = "") -> str:
    """Return a picture (y, x, 3) uint8 with its caption; the pixels are part of the page."""
    data = base64.b64encode(png_bytes(pixels)).decode("ascii")
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">{text}</figure>'


def _cell(value: Cell) -> str:
    if value is None or value != value:
        return '<td data-value="">&ndash;</td>'
    if isinstance(value, float):
        return f'<td data-value="{value!r}">{value:.4g}</td>'
    if isinstance(value, int):
        return f'<td data-value="{value}">{value:,}</td>'
    return f"<td>{escape(value)}</td>"
