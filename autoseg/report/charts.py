"""Charts as SVG for an HTML page: curves over iterations, a box for each class, and pairs of numbers.

Elements of SVG show their names when the pointer rests on them; a picture of a plotting library would not. Colours are
told apart by people with any colour vision, and curves and points differ in dashes and shapes, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from autoseg.report.page import keys, number

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7f7f7f", "#56b4e9", "#8c564b")
"""Colours of curves and groups, in order, then again from the start. Source: Okabe and Ito, without their yellow, which
is hard to see on white; the sixth and the eighth are of matplotlib."""
DASHES = ("", "6 4", "2 3")
"""Styles of curves: drawn through, dashed, dotted."""
MOST_DOTS = 60
"""Most points of a curve that are marked."""
_WIDTH, _HEIGHT = 560.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM, _FOOT = 60.0, 14.0, 10.0, 42.0, 24.0
_ROW, _LETTER, _LONGEST = 36.0, 6.6, 24
"""Height of a row of boxes, and width of a letter, pixels; letters of a name that are shown."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve."""

    name: str
    points: Sequence[tuple[float, float | None]]
    """(x, y); y is None where there is no value, which interrupts the curve."""
    colour: int
    """Index into ``COLOURS``."""
    style: int = 0
    """Index into ``DASHES``."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One point of a scatter plot."""

    name: str
    group: str
    x: float
    y: float
    x_range: Interval | None = None
    """Interval of x; None for none."""


def curves(title: str, shown: Sequence[Curve], *, x_label: str) -> str:
    """Return a chart of the curves that have a value, with its ``title`` (what y is) above; "" if none has."""
    with_values = [curve for curve in shown if any(_is_number(y) for _, y in curve.points)]
    if not with_values:
        return ""
    points = [(x, y) for curve in with_values for x, y in curve.points if y is not None and _is_number(y)]
    frame = _Frame(_range([x for x, _ in points]), _range([y for _, y in points]), _WIDTH, _HEIGHT, _LEFT)
    body = [frame.axes(x_label)]
    for curve in with_values:
        colour = COLOURS[curve.colour % len(COLOURS)]
        path = " ".join(_moves(curve, frame))
        body.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"'
            f' stroke-dasharray="{DASHES[curve.style]}"><title>{escape(curve.name)}</title></path>'
        )
        dots = [(x, y) for x, y in curve.points if y is not None and _is_number(y)]
        if len(dots) <= MOST_DOTS:
            body += [
                _dot(frame.at(x, y), colour, f"{curve.name}, {number(x)}: {number(y)}", radius=2.4) for x, y in dots
            ]
    legend = keys([(_line(curve), curve.name) for curve in with_values]) if len(with_values) > 1 else ""
    names = ", ".join(curve.name for curve in with_values)
    return _figure(title, f"{title} over {x_label}: {names}", frame, body, legend)


def boxes(title: str, groups: Mapping[str, Sequence[tuple[str, float]]], *, limits: Interval | None = None) -> str:
    """Return a chart with a horizontal box for each group with values: median, quartiles, and every value as a point.

    Whiskers end at the farthest values within 1.5 times the height of the box from it (Tukey). Groups of one value
    have no box. "" without values.

    Parameters
    ----------
    title
        Name of the values.
    groups
        Name -> (name, value) of each point.
    limits
        Ends of the axis; None takes them from the values.
    """
    with_values = {name: values for name, values in groups.items() if len(values)}
    if not with_values:
        return ""
    left = 16 + _LETTER * min(_LONGEST, max(map(len, with_values)))
    x = limits or _range([value for values in with_values.values() for _, value in values])
    frame = _Frame(x, (float(len(with_values)), 0.0), _WIDTH, _TOP + _FOOT + _ROW * len(with_values), left, _FOOT)
    body = [frame.axes("", has_y=False)]
    for row, (name, values) in enumerate(with_values.items()):
        middle, colour = frame.at(0, row + 0.5)[1], COLOURS[row % len(COLOURS)]
        body.append(
            f'<text x="{left - 8:.1f}" y="{middle + 4:.1f}" text-anchor="end">{escape(_shortened(name))}'
            f"<title>{escape(name)}</title></text>"
        )
        size, opacity = (2.6, 0.75) if len(values) <= MOST_DOTS else (1.8, 0.35)
        for index, (case, value) in enumerate(sorted(values, key=lambda item: item[1])):
            place = (frame.at(value, 0)[0], middle + (index % 5 - 2) * 2.6)
            body.append(_dot(place, colour, f"{case}, {name}: {number(value)}", radius=size, opacity=opacity))
        if len(values) > 1:
            body.append(_box([value for _, value in values], frame, middle, colour))
    return _figure(title, f"{title}: a box for each of {', '.join(with_values)}", frame, body, "")


def scatter(title: str, pairs: Sequence[Pair], *, x_label: str, y_label: str) -> str:
    """Return a chart of pairs of scores (0 to 1), with the diagonal on which both are equal; "" without pairs."""
    if not pairs:
        return ""
    groups = list(dict.fromkeys(pair.group for pair in pairs))
    size = 400.0
    frame = _Frame((0.0, 1.0), (0.0, 1.0), _LEFT + _RIGHT + size, _TOP + _BOTTOM + size, _LEFT)
    (x0, y0), (x1, y1) = frame.at(0, 0), frame.at(1, 1)
    body = [
        frame.axes(x_label, y_label),
        f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="currentColor" stroke-opacity="0.5"'
        ' stroke-dasharray="4 4"><title>both equal</title></path>',
    ]
    for pair in pairs:
        which = groups.index(pair.group)
        (x, y), colour = frame.at(pair.x, pair.y), COLOURS[which % len(COLOURS)]
        if pair.x_range is not None:
            low, high = (frame.at(edge, pair.y)[0] for edge in pair.x_range)
            body.append(f'<path d="M{low:.1f} {y:.1f}H{high:.1f}" stroke="{colour}" stroke-opacity="0.35"/>')
        text = f"{pair.name}, {pair.group}: {x_label} {number(pair.x)}, {y_label} {number(pair.y)}"
        body.append(_dot((x, y), colour, text, radius=3.4, shape=which % 3))
    legend = keys([(_sample(index), name) for index, name in enumerate(groups)])
    return _figure(title, f"{title}: {len(pairs)} points, {y_label} over {x_label}", frame, body, legend)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The rectangle of a chart, and the numbers at its edges; ``y`` may run downwards."""

    x: Interval
    y: Interval
    width: float
    height: float
    left: float
    below: float = _BOTTOM
    """Room for numbers and label of the x axis."""

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point, pixels from the upper left corner."""
        right, bottom = self.width - _RIGHT, self.height - self.below
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (right - self.left), bottom - up * (bottom - _TOP)

    def axes(self, x_label: str, y_label: str = "", *, has_y: bool = True) -> str:
        """Return grid lines with their numbers, and the labels of the axes."""
        right, bottom = self.width - _RIGHT, self.height - self.below
        parts = [f'<path d="M{self.left:.1f} {_TOP}V{bottom}H{right}" fill="none" stroke="currentColor"/>']
        for value, text in _ticks(self.x):
            x, _ = self.at(value, self.y[0])
            parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="currentColor" stroke-opacity="0.15"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
        for value, text in _ticks(self.y) if has_y else ():
            _, y = self.at(self.x[0], value)
            parts.append(f'<path d="M{self.left:.1f} {y:.1f}H{right}" stroke="currentColor" stroke-opacity="0.15"/>')
            parts.append(f'<text x="{self.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        middle = (self.left + right) / 2
        if x_label:
            parts.append(f'<text x="{middle:.1f}" y="{self.height - 6}" text-anchor="middle">{escape(x_label)}</text>')
        if y_label:
            y = (_TOP + bottom) / 2
            place = f'transform="translate(14 {y:.1f}) rotate(-90)"'
            parts.append(f'<text {place} text-anchor="middle">{escape(y_label)}</text>')
        return "".join(parts)


def _figure(title: str, description: str, frame: _Frame, body: Sequence[str], legend: str) -> str:
    size = f"0 0 {frame.width:g} {frame.height:g}"
    svg = f'<svg viewBox="{size}" role="img" aria-label="{escape(description)}">' + "".join(body) + "</svg>"
    return f'<figure class="chart"><h3>{escape(title)}</h3>{svg}{legend}</figure>'


def _moves(curve: Curve, frame: _Frame) -> list[str]:
    """Return the commands of a path through the points of a curve, interrupted where there is no value."""
    commands, letter = [], "M"
    for x, y in curve.points:
        if y is None or not _is_number(y):
            letter = "M"
            continue
        across, down = frame.at(x, y)
        commands.append(f"{letter}{across:.1f} {down:.1f}")
        letter = "L"
    return commands


def _box(values: Sequence[float], frame: _Frame, middle: float, colour: str) -> str:
    low, median, high = (float(edge) for edge in np.percentile(values, (25, 50, 75)))
    reach = 1.5 * (high - low)
    ends = (min(v for v in values if v >= low - reach), max(v for v in values if v <= high + reach))
    a, b, m, start, stop = (frame.at(value, 0)[0] for value in (low, high, median, *ends))
    half = 10.0
    whiskers = f"M{start:.1f} {middle - 5}v10M{start:.1f} {middle}H{a:.1f}M{b:.1f} {middle}H{stop:.1f}m0 -5v10"
    return (
        f'<g stroke="{colour}" fill="none" stroke-width="1.5"><path d="{whiskers}"/>'
        f'<rect x="{a:.1f}" y="{middle - half:.1f}" width="{max(b - a, 0.5):.1f}" height="{2 * half}" fill="{colour}"'
        f' fill-opacity="0.15"/><path d="M{m:.1f} {middle - half:.1f}v{2 * half}" stroke="currentColor"'
        f' stroke-width="2.5"/><title>median {median:.4g}, quartiles {low:.4g} and {high:.4g}</title></g>'
    )


def _dot(
    place: tuple[float, float], colour: str, text: str, *, radius: float, opacity: float = 1.0, shape: int = 0
) -> str:
    """Return a point: a circle, a square or a triangle by ``shape`` 0 to 2; ``text`` shows at the pointer."""
    x, y = place
    style = f'fill="{colour}" fill-opacity="{opacity:g}"'
    title = f"<title>{escape(text)}</title>"
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {style}>{title}</circle>'
    r = radius
    outline = f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z" if shape == 1 else (
        f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:.1f} {2.2 * r:.1f}h{-2.4 * r:.1f}z"
    )  # fmt: skip
    return f'<path d="{outline}" {style}>{title}</path>'


def _line(curve: Curve) -> str:
    colour, dashes = COLOURS[curve.colour % len(COLOURS)], DASHES[curve.style]
    return (
        '<svg width="28" height="10" aria-hidden="true"><path d="M1 5H27" fill="none" stroke-width="2.5" '
        f'stroke="{colour}" stroke-dasharray="{dashes}"/></svg>'
    )


def _sample(index: int) -> str:
    point = _dot((6, 6), COLOURS[index % len(COLOURS)], "", radius=4, shape=index % 3)
    return f'<svg width="12" height="12" aria-hidden="true">{point}</svg>'


def _ticks(ends: Interval) -> list[tuple[float, str]]:
    """Return up to about seven round numbers between two, each with its text, which tells it from the others."""
    from matplotlib.ticker import MaxNLocator  # takes a moment to import: only when a chart is drawn

    low, high = sorted(ends)
    values = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    shown = [float(value) for value in values if low - slack <= value <= high + slack]
    digits = next((n for n in range(3, 12) if len({f"{value:.{n}g}" for value in shown}) == len(shown)), 12)
    return [(value, f"{value:.{digits}g}") for value in shown]


def _range(values: Sequence[float]) -> Interval:
    """Return the smallest and largest value with a little room; never equal."""
    low, high = min(values), max(values)
    if low == high:
        return (low - 0.5, high + 0.5) if low == 0 else (low - 0.1 * abs(low), high + 0.1 * abs(high))
    room = 0.04 * (high - low)
    return low - room, high + room


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
