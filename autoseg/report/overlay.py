"""Picture of a case that shows whether a model works: image, annotation, prediction and truth side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.dataset.labels import Labels, background_value, unknown_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rgb = tuple[float, float, float]

BACKGROUND_COLOUR: Rgb = (0.34, 0.71, 0.91)
"""Colour of annotated background in sparse annotation; dense maps leave background transparent."""
SET_COLOUR: Rgb = (0.75, 0.75, 0.75)
"""Colour of values that stand for several classes."""
PALETTE: tuple[Rgb, ...] = (
    (0.90, 0.62, 0.00), (0.00, 0.62, 0.45), (0.80, 0.47, 0.65), (0.94, 0.89, 0.26), (0.84, 0.37, 0.00),
    (0.00, 0.45, 0.70), (0.65, 0.33, 0.16), (0.60, 0.87, 0.54), (0.58, 0.40, 0.74), (0.97, 0.71, 0.82),
)  # fmt: skip
"""Colours of the foreground classes, in order, then again from the start. The first ones are those of Okabe and Ito,
which people with any colour vision can distinguish."""

_PANEL_INCHES = 2.6
_DPI = 130
_TITLE_INCHES, _ROW_LABEL_INCHES, _GAP = 0.33, 0.35, 0.06
_LEGEND_ROW_INCHES, _LEGEND_COLUMN_INCHES = 0.24, 1.6
_LEAST_WIDTH = 4.0
_POINTS_PER_LETTER = 110.0
"""A text of n letters of size s points is about n * s / 110 inches wide."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One column of the picture: a label map over the image."""

    title: str
    labels: NDArray[np.integer[Any]]
    """(z, y, x) file values. If some voxels are unannotated, all annotated ones are shown, also background."""


def draw_overlay(
    image: NDArray[np.floating[Any]],
    layers: Sequence[Layer],
    labels: Labels,
    spacing: tuple[float, float, float],
    *,
    title: str = "",
    n_slices: int = 3,
    slices: Sequence[int] | None = None,
    channel: int | None = 0,
) -> NDArray[np.uint8]:
    """Draw slices of a case, one row each: the image, then the image below each layer, with a legend of the classes.

    Parameters
    ----------
    image
        (C, z, y, x), any intensity range.
    layers
        Label maps of the image's shape; the last one decides which slices are shown.
    labels
        Meaning of their values.
    spacing
        mm, (z, y, x); pixels are drawn with their true aspect ratio.
    title
        Text above the picture, for example the name of the case.
    n_slices
        Number of rows; fewer if the image has fewer slices.
    slices
        Slices to show; None chooses ``n_slices`` of them.
    channel
        Channel to show, counted from 0; None shows the first three as red, green and blue.

    Returns
    -------
    picture
        (y, x, 3) uint8.

    Raises
    ------
    ValueError
        If a layer has another shape than the image.
    """
    for layer in layers:
        if layer.labels.shape != image.shape[1:]:
            raise ValueError(f"layer {layer.title!r}: shape {layer.labels.shape}, expected {image.shape[1:]}.")
    foreground = _foreground(layers[-1].labels, labels) if layers else np.ones(image.shape[1:])
    shown = choose_slices(foreground, n_slices) if slices is None else tuple(slices)
    grey = _displayed(image, channel)
    colours = class_colours(labels)
    entries = _legend_entries(layers, labels, colours)
    size_mm = (image.shape[2] * spacing[1], image.shape[3] * spacing[2])
    figure, panels = _canvas(size_mm, len(shown), 1 + len(layers), len(entries), has_title=bool(title))
    aspect = spacing[1] / spacing[2]
    for row, z in enumerate(shown):
        for axes in panels[row]:
            axes.imshow(grey[z], aspect=aspect, interpolation="nearest")
        for axes, layer in zip(panels[row][1:], layers, strict=True):
            axes.imshow(_painted(layer.labels, z, labels, colours), aspect=aspect, interpolation="nearest")
        panels[row][0].set_ylabel(f"slice {z}", fontsize=9)
    for axes, text in zip(panels[0], ["image", *(layer.title for layer in layers)], strict=True):
        _set_title(axes, text, figure.get_figwidth())
    if title:
        size = min(12.0, _POINTS_PER_LETTER * figure.get_figwidth() / len(title))
        figure.suptitle(title, fontsize=size, y=1 - 0.12 / figure.get_figheight(), va="top")
    _add_legend(figure, entries)
    return rendered(figure)


def choose_slices(foreground: NDArray[Any], n_slices: int) -> tuple[int, ...]:
    """Return up to ``n_slices`` slice numbers, ascending: those with most foreground that are not close to each other.

    Parameters
    ----------
    foreground
        (z, y, x), non-zero at foreground. Without any, slices are spread evenly.
    n_slices
        At least 1.
    """
    n = len(foreground)
    if n <= n_slices:
        return tuple(range(n))
    areas = np.count_nonzero(foreground, axis=(1, 2)).astype(float)
    if not areas.any():
        return tuple((2 * index + 1) * n // (2 * n_slices) for index in range(n_slices))
    apart = max(1, int(np.count_nonzero(areas)) // (n_slices + 1))
    chosen: list[int] = []
    while len(chosen) < n_slices:
        if areas.max() < 0:  # every slice is chosen or close to one that is
            apart //= 2
            areas = np.count_nonzero(foreground, axis=(1, 2)).astype(float)
            for z in chosen:
                areas[max(0, z - apart + 1) : z + apart] = -1
            areas[chosen] = -1
        best = int(np.argmax(areas))
        chosen.append(best)
        areas[max(0, best - apart + 1) : best + apart] = -1
    return tuple(sorted(chosen))


def class_colours(labels: Labels) -> dict[int, Rgb]:
    """Return file value -> colour, 0 to 1 per component, without values of unannotated voxels."""
    colours = {background_value(labels): BACKGROUND_COLOUR}
    colours |= {value: PALETTE[index % len(PALETTE)] for index, value in enumerate(labels.class_values[1:])}
    further = {value: members for value, members in labels.set_values.items() if value not in unknown_values(labels)}
    of_class = [colours[value] for value in labels.class_values]
    return colours | {
        value: of_class[min(members)] if len(members) == 1 else SET_COLOUR for value, members in further.items()
    }


def _foreground(values: NDArray[np.integer[Any]], labels: Labels) -> NDArray[np.bool_]:
    """(z, y, x) bool: ``values`` (z, y, x) that are neither background nor unannotated."""
    background = [value for value, members in labels.set_values.items() if members == {0}]
    return ~np.isin(values, (background_value(labels), *background, *unknown_values(labels)))


def _displayed(image: NDArray[np.floating[Any]], channel: int | None) -> NDArray[np.float32]:
    """(z, y, x, 3) float32, 0 to 1: the given channel of ``image`` (C, z, y, x), or its first three."""
    channels = image[:3] if channel is None else image[channel : channel + 1].repeat(3, axis=0)
    return np.moveaxis(to_grey(channels, display_range(channels)), 0, -1)


def are_colours(channel_names: Sequence[str]) -> bool:
    """Whether channels are red, green and blue, by their names."""
    return [name[:1].lower() for name in channel_names] == [*"rgb"]


def display_range(image: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the intensities shown as black and white: percentiles 0.5 and 99.5 of ``image`` (any shape).

    (0, 1) if no voxel is finite.
    """
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    return float(low), float(high)


def to_grey(image: NDArray[np.floating[Any]], shown: tuple[float, float]) -> NDArray[np.float32]:
    """Return ``image`` (any shape) as float32: the range ``shown`` scaled to 0 to 1 and clipped; NaN counts as 0."""
    low, high = shown
    grey: NDArray[np.float32] = np.clip((np.nan_to_num(image) - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    return grey


def _painted(
    values: NDArray[np.integer[Any]], z: int, labels: Labels, colours: Mapping[int, Rgb]
) -> NDArray[np.float32]:
    """(y, x, 4) float32: slice ``z`` of ``values`` (z, y, x); strokes opaque, areas half transparent."""
    sparse = _is_sparse(values, labels)
    picture = np.zeros((*values.shape[1:], 4), dtype=np.float32)
    for value, colour in colours.items():
        if value != background_value(labels) or sparse:
            picture[values[z] == value] = (*colour, 0.95 if sparse else 0.55)
    return picture


def _is_sparse(values: NDArray[np.integer[Any]], labels: Labels) -> bool:
    """Whether ``values`` (z, y, x) contain unannotated voxels."""
    return bool(np.isin(values, unknown_values(labels)).any()) if unknown_values(labels) else False


def _legend_entries(layers: Sequence[Layer], labels: Labels, colours: Mapping[int, Rgb]) -> list[tuple[str, Rgb]]:
    """Return name and colour of every class or label set that a layer shows."""
    drawn: set[int] = set()
    for layer in layers:
        present = {int(value) for value in np.unique(layer.labels)}
        drawn |= present if _is_sparse(layer.labels, labels) else present - {background_value(labels)}
    entries = [
        (name, colours[value])
        for name, value in zip(labels.class_names, labels.class_values, strict=True)
        if value in drawn
    ]
    for value, members in sorted(labels.set_values.items()):
        if value in drawn and value in colours:
            weight = f" ({labels.value_weights[value]:g})" if value in labels.value_weights else ""
            names = " or ".join(labels.class_names[index] for index in sorted(members))
            entries.append((names + weight, colours[value]))
    return entries


def _canvas(
    size_mm: tuple[float, float], n_rows: int, n_columns: int, n_entries: int, *, has_title: bool
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with equal panels of the proportions of a slice, and space for title, legend and row labels."""
    from matplotlib.figure import Figure  # takes a second to import: only when a picture is drawn

    height, width = (max(0.6, _PANEL_INCHES * edge / max(size_mm)) for edge in size_mm)
    total_width = max(_ROW_LABEL_INCHES + n_columns * (width + _GAP), _LEAST_WIDTH)
    bottom = 0.1 + _LEGEND_ROW_INCHES * math.ceil(n_entries / _legend_columns(total_width))
    total_height = _TITLE_INCHES * (1 + has_title) + n_rows * (height + _GAP) + bottom
    figure = Figure(figsize=(total_width, total_height), dpi=_DPI, facecolor="white")
    relative_size = (width / total_width, height / total_height)
    panels: list[list[Axes]] = []
    for row in reversed(range(n_rows)):
        y = (bottom + row * (height + _GAP)) / total_height
        lefts = [(_ROW_LABEL_INCHES + column * (width + _GAP)) / total_width for column in range(n_columns)]
        panels.append([figure.add_axes((x, y, *relative_size), xticks=[], yticks=[]) for x in lefts])
    return figure, panels


def _legend_columns(width_inches: float) -> int:
    return max(1, int(width_inches / _LEGEND_COLUMN_INCHES))


def _set_title(axes: Axes, text: str, figure_width: float) -> None:
    """Write a title that is not wider than its panel."""
    width = axes.get_position().width * figure_width
    axes.set_title(text, fontsize=min(10.0, _POINTS_PER_LETTER * width / max(1, len(text))), pad=4)


def _add_legend(figure: Figure, entries: Sequence[tuple[str, Rgb]]) -> None:
    from matplotlib.patches import Patch

    if entries:
        longest = max(len(name) for name, _ in entries)
        size = min(9.0, _POINTS_PER_LETTER * (_LEGEND_COLUMN_INCHES - 0.6) / longest)
        columns = min(len(entries), _legend_columns(figure.get_figwidth()))
        patches = [Patch(color=colour, label=name) for name, colour in entries]
        figure.legend(handles=patches, loc="lower center", ncols=columns, fontsize=size, frameon=False, columnspacing=1)


def rendered(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure as pixels (y, x, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
