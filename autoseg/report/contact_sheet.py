"""Picture of the first suggestions: each place with the outline of the prediction, and with its entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.dataset.labels import Labels, background_value
from autoseg.report.overlay import Rgb, class_colours, display_range, rendered, to_grey

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAT = "inferno"
"""Colour map of the entropy, from dark (certain) to bright; transparent where voxels are annotated."""
ANNOTATED_TINT = (0.25, 0.55, 1.0, 0.35)
BOX_COLOUR = "#33ff66"

_PANEL_INCHES = 2.3
_DPI = 120
_MAX_COLUMNS = 3
_TITLE_INCHES, _GAP, _LEGEND_INCHES = 0.26, 0.08, 0.62


@dataclass(frozen=True, slots=True)
class Tile:
    """One suggestion: its slice as (rows, columns)."""

    title: str
    image: Float32Array
    """(rows, columns) float32, any intensity range."""
    labels: NDArray[np.integer[Any]]
    """(rows, columns) predicted file values."""
    entropy: Float32Array
    """(rows, columns) float32, 0 to 1."""
    is_open: BoolArray
    """(rows, columns) bool: voxels that are not annotated."""
    spacing: tuple[float, float]
    """mm, (rows, columns)."""
    box: tuple[int, int, int, int] | None = None
    """Box of a patch: first row, first column, one past the last row, one past the last column; None for a whole
    slice."""


def draw_contact_sheet(tiles: Sequence[Tile], labels: Labels, *, title: str = "") -> NDArray[np.uint8]:
    """Draw every tile twice, side by side: with the outline of the prediction, and with its entropy.

    Parameters
    ----------
    tiles
        At least one, in the order in which they are shown.
    labels
        Meaning of the predicted values.
    title
        Text above the picture.

    Returns
    -------
    picture
        (y, x, 3) uint8.
    """
    columns = min(_MAX_COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    figure, panels = _canvas(rows, columns)
    colours = class_colours(labels)
    for tile, (left, right) in zip(tiles, panels, strict=False):
        _draw_tile(tile, left, right, colours, background_value(labels))
    for pair in panels[len(tiles) :]:
        for axes in pair:
            axes.set_visible(False)
    shown = {int(value) for tile in tiles for value in np.unique(tile.labels)}
    _add_legend(figure, labels, colours, shown, has_annotation=any(not tile.is_open.all() for tile in tiles))
    if title:
        figure.suptitle(title, fontsize=10, y=1 - 0.06 / figure.get_figheight(), va="top")
    return rendered(figure)


def _canvas(rows: int, columns: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a figure with two square panels per tile, and space for titles and legend."""
    from matplotlib.figure import Figure  # takes a second to import: only when a picture is drawn

    tile_width, tile_height = 2 * _PANEL_INCHES + 3 * _GAP, _PANEL_INCHES + _TITLE_INCHES + _GAP
    width, height = columns * tile_width, rows * tile_height + _TITLE_INCHES + _LEGEND_INCHES
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    panels = []
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        bottom = (height - _TITLE_INCHES - (row + 1) * tile_height) / height
        lefts = [(column * tile_width + _GAP + side * (_PANEL_INCHES + _GAP)) / width for side in (0, 1)]
        size = (_PANEL_INCHES / width, _PANEL_INCHES / height)
        left, right = (figure.add_axes((x, bottom, *size), xticks=[], yticks=[], anchor="N") for x in lefts)
        panels.append((left, right))
    return figure, panels


def _draw_tile(tile: Tile, left: Axes, right: Axes, colours: Mapping[int, Rgb], background: int) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    aspect = tile.spacing[0] / tile.spacing[1]
    grey = to_grey(tile.image, display_range(tile.image))
    for axes in (left, right):
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="nearest")
    for value in np.unique(tile.labels):
        inside = tile.labels == value
        if value != background and not inside.all():
            left.contour(inside.astype(float), levels=[0.5], colors=[colours[int(value)]], linewidths=1.2)
    annotated = np.zeros((*tile.labels.shape, 4), dtype=np.float32)
    annotated[~tile.is_open] = ANNOTATED_TINT
    heat = colormaps[HEAT](np.clip(tile.entropy, 0, 1))
    heat[..., 3] = np.clip(3 * tile.entropy, 0, 0.8) * tile.is_open
    for layer in (annotated, heat):
        right.imshow(layer, aspect=aspect, interpolation="nearest")
    if tile.box is not None:
        top, start, bottom, stop = tile.box
        for axes in (left, right):
            frame = (start - 0.5, top - 0.5), stop - start, bottom - top
            axes.add_patch(Rectangle(*frame, fill=False, edgecolor=BOX_COLOUR, linewidth=1.2))
    size = min(9.0, 110.0 * 2 * _PANEL_INCHES / max(1, len(tile.title)))
    left.set_title(tile.title, fontsize=size, loc="left", pad=3)


def _add_legend(
    figure: Figure, labels: Labels, colours: Mapping[int, Rgb], shown: set[int], *, has_annotation: bool
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    entries = [
        Patch(facecolor="none", edgecolor=colours[value], linewidth=1.5, label=f"predicted {name}")
        for name, value in zip(labels.class_names, labels.class_values, strict=True)
        if value != background_value(labels) and value in shown
    ]
    entries += [Patch(color=colormaps[HEAT](level), label=f"entropy {level:g}") for level in (0.3, 0.6, 0.9)]
    if has_annotation:
        entries.append(Patch(color=ANNOTATED_TINT, label="annotated"))
    columns = max(1, int(figure.get_figwidth() / 1.5))
    figure.legend(handles=entries, loc="lower center", ncols=columns, fontsize=8, frameon=False, columnspacing=1)
