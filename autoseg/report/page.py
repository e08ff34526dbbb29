"""Parts of an HTML page that is one file: it opens from a disk, without a network, in any browser.

Every text is escaped here, so that no name of a case or class can become markup. The page forbids the browser to load
anything, and to run any script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from autoseg.io.png import png_bytes


@dataclass(frozen=True, slots=True)
class Link:
    """Text that leads to another place of the page."""

    text: str
    anchor: str
    """Id of the place."""


Cell = str | float | int | Link | None
"""Content of a table; None is shown as a dash, as nothing among texts, and sorts last."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading."""

    title: str
    parts: tuple[str, ...]
    """HTML; empty ones are left out, and so is a section without any other."""


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return a whole page: heading, links to the sections, and these."""
    shown = [
        (f"part-{number}", section.title, [part for part in section.parts if part])
        for number, section in enumerate(sections, 1)
    ]
    shown = [(anchor, heading, parts) for anchor, heading, parts in shown if parts]
    links = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in shown)
    body = "\n".join(
        f'<section id="{anchor}">\n<h2>{escape(heading)}</h2>\n' + "\n".join(parts) + "\n</section>"
        for anchor, heading, parts in shown
    )
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n<nav>{links}</nav>\n</header>\n'
        f"<main>\n{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def heading(text: str, anchor: str = "") -> str:
    """Return a heading inside a section, with the id ``anchor`` if it has one."""
    return f"<h3{f' id={chr(34)}{escape(anchor)}{chr(34)}' if anchor else ''}>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    """Return a paragraph of plain text in a small, faint font."""
    return f'<p class="note">{escape(text)}</p>'


def warnings(lines: Sequence[str]) -> str:
    """Return a list that stands out; "" without lines."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def preformatted(text: str) -> str:
    """Return text as it is, in a fixed-width font: commands."""
    return f"<pre>{escape(text)}</pre>"


def facts(values: Mapping[str, object]) -> str:
    """Return a list of names with values; entries with None or "" are left out. "" without any other."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in values.items()
        if value is not None and value != ""
    )
    return f'<dl class="facts">{items}</dl>' if items else ""


def folded(title: str, content: str) -> str:
    """Return content that is shown when its title is clicked; "" without content."""
    return f"<details><summary>{escape(title)}</summary>\n{content}\n</details>" if content else ""


def side_by_side(parts: Iterable[str]) -> str:
    """Return parts beside each other where the window is wide enough; "" without any."""
    shown = [part for part in parts if part]
    return '<div class="charts">' + "\n".join(shown) + "</div>" if shown else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, name: str = "") -> str:
    """Return a table; "" without rows. One with a ``name``, unique in the page, can be sorted and filtered.

    A column is right-aligned if none of its cells is a text.
    """
    if not rows:
        return ""
    are_texts = [any(isinstance(row[index], (str, Link)) for row in rows) for index in range(len(columns))]
    kinds = ["text" if is_text else "number" for is_text in are_texts]
    heads = (f"<button>{escape(column)}</button>" if name else escape(column) for column in columns)
    head = "".join(f'<th scope="col" class="{kind}">{content}</th>' for kind, content in zip(kinds, heads, strict=True))
    body = "\n".join("<tr>" + "".join(map(_cell, row, kinds)) + "</tr>" for row in rows)
    mark, field = (f' class="sortable" id="{escape(name)}"', _filter(name, len(rows))) if name else ("", "")
    whole = f"<table{mark}><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'{field}<div class="scroll">{whole}</div>'


def heat(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> str:
    """Return a square table of scores (0 to 1) with a name for each row and column; higher ones are darker.

    None is shown as a dash.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(map(_heat_cell, row)) + "</tr>"
        for name, row in zip(names, values, strict=True)
    )
    table = f'<table class="heat"><thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def slices(panels: Sequence[tuple[str, NDArray[np.uint8]]], alternative: str) -> str:
    """Return pictures (y, x, 3) uint8 of one slice side by side, each with its caption.

    ``alternative`` says, together with a caption, what a picture shows, to those who cannot see it.
    """
    shown = "".join(
        f'<figure><img src="{_data(pixels)}" alt="{escape(f"{caption} of {alternative}")}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, pixels in panels
    )
    return f'<div class="slices" style="--columns:{max(4, len(panels))}">{shown}</div>'


def picture(png: bytes, alternative: str) -> str:
    """Return the content of a PNG file as a picture; ``alternative`` says what it shows."""
    return f'<img class="picture" src="{_data_of_png(png)}" alt="{escape(alternative)}">'


def keys(entries: Sequence[tuple[str, str]], title: str = "") -> str:
    """Return a legend of entries (swatch as HTML, text), in a line after ``title``; "" without any."""
    items = "".join(f"<li>{swatch}{escape(text)}</li>" for swatch, text in entries)
    first = f"<li>{escape(title)}</li>" if title else ""
    return f'<ul class="keys">{first}{items}</ul>' if items else ""


def swatch(pixels: NDArray[np.uint8]) -> str:
    """Return a small picture (y, x, 3) uint8 for a legend; it has no text of its own."""
    return f'<img src="{_data(pixels)}" alt="" width="{pixels.shape[1]}" height="{pixels.shape[0]}">'


def number(value: float) -> str:
    """Return a number with about four digits: as many decimals for all that are about as large. Whole ones have all."""
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size and not 0.001 <= size < 10_000:
        return f"{value:.4g}"
    return f"{value:.4f}" if size < 2 else f"{value:.3f}" if size < 10 else f"{value:.2f}"


@cache
def _asset(name: str) -> str:
    return files("autoseg.report").joinpath(name).read_text(encoding="utf-8")


def _filter(name: str, n_rows: int) -> str:
    return (
        f'<div class="filter"><label>Filter <input type="search" data-table="{escape(name)}" '
        f'placeholder="text, or column&lt;number"></label><output>{n_rows} of {n_rows} rows</output></div>'
    )


def _cell(value: Cell, kind: str) -> str:
    if value is None or value != value:
        return f'<td class="{kind}" data-value="">{"" if kind == "text" else "&ndash;"}</td>'
    if isinstance(value, Link):
        return f'<td class="{kind}"><a href="#{escape(value.anchor)}">{escape(value.text)}</a></td>'
    if isinstance(value, str):
        return f'<td class="{kind}">{escape(value)}</td>'
    return f'<td class="{kind}" data-value="{_exact(value)}">{number(value)}</td>'


def _heat_cell(value: float | None) -> str:
    if value is None:
        return '<td class="none">&ndash;</td>'
    light = 97 - 42 * min(max(value, 0.0), 1.0)
    return f'<td style="background:hsl(205 60% {light:.0f}%)">{value:.3f}</td>'


def _exact(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _data(pixels: NDArray[np.uint8]) -> str:
    return _data_of_png(png_bytes(pixels))


def _data_of_png(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
