"""Charts as SVG for an HTML page: curves over iterations, and one box per class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import StringIO

import matplotlib as mpl
from matplotlib.figure import Figure

from autoseg.report.overlay import PALETTE

Points = Sequence[tuple[float, float | None]]
"""(x, y); y is None where there is no value, which interrupts a curve."""

_INCHES = (5.6, 2.8)


def curves(series: Mapping[str, Points], *, x_label: str, y_label: str, is_log: bool = False) -> str:
    """Return a chart with one curve for each entry (name -> points) that has a value; "" if none has.

    ``is_log``: logarithmic y axis; values of 0 or less are left out.
    """
    shown = {
        name: [(x, math.nan if y is None or (is_log and y <= 0) else y) for x, y in points]
        for name, points in series.items()
    }
    shown = {name: points for name, points in shown.items() if any(math.isfinite(y) for _, y in points)}
    if not shown:
        return ""
    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(shown.items()):
        axes.plot(
            *zip(*points, strict=True),
            color=PALETTE[number % len(PALETTE)],
            label=name,
            marker="." if len(points) == 1 else "",
        )
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if is_log:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if len(shown) > 1:
        axes.legend(fontsize=8)
    return _svg(figure)


def boxes(groups: Mapping[str, Sequence[float]], *, label: str) -> str:
    """Return one horizontal box for each group with values: quartiles, median, range, every value as a point.

    Values are scores from 0 to 1. "" without values.
    """
    shown = {name: values for name, values in groups.items() if len(values)}
    if not shown:
        return ""
    figure = Figure(figsize=(_INCHES[0], 0.9 + 0.35 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.boxplot(list(shown.values()), vert=False, whis=(0, 100), widths=0.6, tick_labels=list(shown))
    for row, values in enumerate(shown.values(), 1):
        axes.plot(values, [row] * len(values), "o", color=PALETTE[(row - 1) % len(PALETTE)], markersize=3, alpha=0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """Return a figure as an SVG element, equal for equal content."""
    stream = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "autoseg"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
