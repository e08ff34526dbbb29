"""Picture of a case of a regression: image, known numbers and predicted numbers side by side, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array
from autoseg.report.overlay import display_range, rendered, to_grey

UNKNOWN_COLOUR = "#5a7fb0"
"""Colour of voxels of which no number is known."""
COLOURS = "gray"
_PANEL_INCHES, _DPI = 2.6, 110


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """One column of the picture."""

    title: str
    target: str
    """Columns of the same target have the same scale."""
    numbers: Float32Array
    """(z, y, x), NaN where unknown."""


def draw_numbers(
    image: NDArray[np.floating[Any]],
    columns: Sequence[NumberColumn],
    spacing: tuple[float, float, float],
    slices: Sequence[int],
    *,
    title: str = "",
) -> NDArray[np.uint8]:
    """Draw slices of a case, one row each: the first channel of the image, then each column.

    Parameters
    ----------
    image
        (C, z, y, x), any intensity range.
    columns
        Numbers on the grid of the image. The scale of a target goes from the 0.5th to the 99.5th percentile of its
        first column with a known number.
    spacing
        mm, (z, y, x); pixels are drawn with their true aspect ratio.
    slices
        Slices to show, at least one.
    title
        Text above the picture.

    Returns
    -------
    picture
        (y, x, 3) uint8.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure  # takes a second to import: only when a picture is drawn

    size = ((1 + len(columns)) * _PANEL_INCHES, len(slices) * _PANEL_INCHES + 0.6)
    figure = Figure(figsize=size, dpi=_DPI, facecolor="white", layout="constrained")
    panels = figure.subplots(len(slices), 1 + len(columns), squeeze=False)
    aspect = spacing[1] / spacing[2]
    grey = to_grey(image[0], display_range(image[0]))
    colours = colormaps[COLOURS].with_extremes(bad=UNKNOWN_COLOUR)
    for row, z in zip(panels, slices, strict=True):
        row[0].imshow(grey[z], cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="nearest")
        row[0].set_ylabel(f"slice {z}", fontsize=9)
        for axes, column in zip(row[1:], columns, strict=True):
            low, high = scale_of(column.target, columns)
            axes.imshow(column.numbers[z], cmap=colours, vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    for axes, text in zip(panels[0], ["image", *(column.title for column in columns)], strict=True):
        axes.set_title(text, fontsize=9)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=10)
    return rendered(figure)


def scale_of(target: str, columns: Sequence[NumberColumn]) -> tuple[float, float]:
    """Return the numbers of a target that are black and white: percentiles 0.5 and 99.5; (0, 1) if none is known."""
    numbers = [column.numbers for column in columns if column.target == target]
    values = next((known for item in numbers if (known := item[np.isfinite(item)]).size), None)
    if values is None:
        return 0.0, 1.0
    low, high = (float(edge) for edge in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1.0)
