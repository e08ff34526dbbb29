"""Picture of training patches: image, labels, labels over the image, and facts about each patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.dataset.labels import Labels
from autoseg.report.overlay import BACKGROUND_COLOUR, PALETTE, Rgb, class_colours, display_range, rendered, to_grey
from autoseg.report.patterns import Paint, blended, enlarge, outline, paint, pixels_per_voxel
from autoseg.sampling.patch_view import Meaning, PatchView
from autoseg.tasks.task import task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CHANNELS = 4
"""Largest number of channels that are shown."""
DENSE_BACKGROUND: Rgb = (0.10, 0.10, 0.10)
"""Colour of background if every voxel is annotated."""

NO_CLASS: Rgb = (1.0, 0.0, 1.0)
"""Colour of voxels that may have no class at all: a contradiction that does not occur in correct data."""

_DPI = 100
_LEAST_PANEL_WIDTH, _WIDEST = 200, 2000
"""Pixels: least width of a panel; width of the picture."""
_GAP, _LINE, _CAPTION, _MARGIN = 6, 17, 16, 14
_SWATCH = (14, 26)
_LETTER = 6.3
"""Average width of a letter of the legend and the captions, pixels."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of a patch."""

    caption: str
    pixels: Float32Array
    """(rows, columns, 3) float32, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the legend."""

    text: str
    swatch: Float32Array
    """(rows, columns, 3) float32, 0 to 1."""


def draw_batch_sheet(
    views: Sequence[PatchView],
    labels: Labels,
    channel_names: Sequence[str],
    *,
    title: str = "",
    is_colour: bool = False,
) -> NDArray[np.uint8]:
    """Draw every patch as a row of panels: each channel, the label map, and the labels over the first channel.

    Of a 3-D patch one slice is shown, see :func:`shown_slice`. Unannotated voxels are hatched; voxels with several
    possible classes are striped in the colours of these classes. The legend lists everything that occurs, and in how
    many patches.

    Parameters
    ----------
    views
        At least one.
    labels
        Classes and heads of the data set.
    channel_names
        One per channel of the images.
    title
        Text above the picture.
    is_colour
        Whether the first three channels are red, green and blue.

    Returns
    -------
    picture
        (y, x, 3) uint8.
    """
    slices = [shown_slice(view) for view in views]
    tiles = [patch_panels(view, z, labels, channel_names, is_colour) for view, z in zip(views, slices, strict=True)]
    headings = [heading(view, z, number, labels) for number, (view, z) in enumerate(zip(views, slices, strict=True), 1)]
    return composed(tiles, headings, legend(views, labels), title)


def shown_slice(view: PatchView) -> int:
    """Return the slice of a 3-D patch with most annotated voxels, of several the one nearest to the middle; 0 in 2-D.

    Voxels that are certainly foreground count; if there are none, all annotated voxels.
    """
    if view.codes.ndim == 2:
        return 0
    is_foreground = np.array([m.kind in ("annotated", "held out") and 0 not in m.classes for m in view.meanings])
    foreground = np.count_nonzero(is_foreground[view.codes], axis=(1, 2))
    areas = foreground if foreground.any() else np.count_nonzero(view.where("annotated", "held out"), axis=(1, 2))
    middle = (len(areas) - 1) / 2
    return min(range(len(areas)), key=lambda z: (-areas[z], abs(z - middle)))


def meaning_paint(meaning: Meaning, labels: Labels, *, is_filled: bool = False) -> Paint:
    """Return colours and pattern of a meaning; filled areas are more transparent than strokes."""
    if meaning.kind == "unannotated":
        return Paint("hatched" if len(meaning.classes) == labels.n_classes else "hatched back", cover=0.3)
    by_value = class_colours(labels) | ({labels.class_values[0]: DENSE_BACKGROUND} if labels.is_dense else {})
    colours = tuple(by_value[labels.class_values[index]] for index in sorted(meaning.classes)) or (NO_CLASS,)
    cover = 0.45 if is_filled or meaning.kind == "inferred" else 0.8
    if meaning.classes == {0} and is_filled:
        cover = 0.0 if labels.is_dense else 0.2
    if meaning.kind == "annotated":
        return Paint("plain" if len(colours) == 1 else "stripes", colours, cover)
    return Paint("grid" if meaning.kind == "held out" else "dashes", colours, cover)


def patch_panels(view: PatchView, z: int, labels: Labels, channel_names: Sequence[str], is_colour: bool) -> list[Panel]:
    """Return the panels of one patch; of a 3-D patch those of slice ``z``."""
    image, codes = (view.image, view.codes) if view.codes.ndim == 2 else (view.image[:, z], view.codes[z])
    scale = pixels_per_voxel(codes.shape, view.spacing[-2:])
    greys, panels = [], []
    for channel, name in zip(image[:MOST_CHANNELS], channel_names, strict=False):
        low, high = display_range(channel)
        greys.append(enlarge(to_grey(channel, (low, high)), scale))
        panels.append(Panel(f"{name}, {low:.2g} to {high:.2g}", np.stack([greys[-1]] * 3, axis=-1)))
    base = panels[0].pixels
    if is_colour and len(greys) >= 3:
        shown = display_range(image[:3])
        base = np.stack([enlarge(to_grey(channel, shown), scale) for channel in image[:3]], axis=-1)
        panels = [Panel("image", base)]
    large = enlarge(codes, scale)
    is_filled, is_exclusive = _is_filled(codes, view), _is_exclusive(labels)
    paints = [meaning_paint(meaning, labels, is_filled=is_filled) for meaning in view.meanings]
    over = blended(base, paint(large, paints, over_image=True))
    for mask, colour in _outlines(view, labels) if is_filled or not is_exclusive else []:
        over[outline(mask[large])] = colour
    return [
        *panels,
        *(
            Panel(target, _grey_numbers(numbers if numbers.ndim == 2 else numbers[z], scale))
            for target, numbers in zip(labels.targets, view.numbers, strict=True)
        ),
        Panel("label", paint(large, paints)[..., :3]),
        Panel(f"label over {channel_names[0] if len(panels) > 1 else 'image'}", over),
    ]


def _is_exclusive(labels: Labels) -> bool:
    """Whether a voxel has one class, or, of a regression, is known or not: there are no outlines of regions."""
    return bool(labels.targets) or task_of(labels).is_exclusive


def _grey_numbers(numbers: Float32Array, scale: tuple[int, int]) -> Float32Array:
    """Return (rows, columns, 3): a target (y, x) in grey, black where unknown."""
    known = numbers[np.isfinite(numbers)]
    shown = display_range(known) if known.size else (0.0, 1.0)
    grey = to_grey(np.nan_to_num(numbers, nan=shown[0]), shown)
    return np.stack([enlarge(grey, scale)] * 3, axis=-1)


def heading(view: PatchView, z: int, number: int, labels: Labels) -> tuple[str, str, str]:
    """Return three lines about a patch: its case, its position and annotation, and its random transform."""
    cached = ", ".join(f"{axis} {value:.0f}" for axis, value in zip("zyx", view.origin.centre, strict=True))
    in_file = ", ".join(f"{value:.0f}" for value in view.centre_in_file)
    kinds = [f"{view.annotated_share:.1%} annotated".replace("100.0%", "100%")]
    for kind, text in (("held out", "held out"), ("inferred", "promised")):
        share = float(view.where(kind).mean())  # type: ignore[arg-type]
        if share:
            kinds.append(f"{share:.1%} {text}")
    shown = f"; shown: slice {z} of 0 to {len(view.codes) - 1}" if view.codes.ndim == 3 else ""
    return (
        f"{number}. {view.case}: {view.reason(labels)}",
        f"centre {cached} (in the file {in_file}); {', '.join(kinds)}",
        f"iteration {view.iteration}, sample {view.sample}; {view.transform() or 'not moved'}{shown}",
    )


def legend(views: Sequence[PatchView], labels: Labels) -> list[Key]:
    """Return a line for each meaning that occurs in a patch (also outside the shown slice), and one for each region."""
    holders: dict[Meaning, int] = {}
    for view in views:
        for meaning in view.counts():
            holders[meaning] = holders.get(meaning, 0) + 1
    order = {"annotated": 0, "held out": 1, "inferred": 2, "unannotated": 3}
    keys = []
    codes = np.zeros(_SWATCH, dtype=np.intp)
    for meaning in sorted(holders, key=lambda m: (order[m.kind], len(m.classes), sorted(m.classes))):
        text = f"{meaning.text(labels)} ({holders[meaning]} of {len(views)})"
        keys.append(Key(text, paint(codes, [meaning_paint(meaning, labels)])[..., :3]))
    if not _is_exclusive(labels):
        for head, colour in zip(labels.heads, region_colours(labels), strict=True):
            swatch = np.ones((*_SWATCH, 3), dtype=np.float32)
            swatch[[0, 1, -2, -1]] = swatch[:, [0, 1, -2, -1]] = colour
            keys.append(Key(f"outline of region {head.name}", swatch))
    return keys


def region_colours(labels: Labels) -> list[Rgb]:
    """Return the colour of each region's outline, taken from the end of the palette."""
    return [PALETTE[-1 - index % len(PALETTE)] for index in range(labels.n_heads)]


def _is_filled(codes: NDArray[np.integer[Any]], view: PatchView) -> bool:
    """Whether most annotated voxels of a slice of codes (rows, columns) lie inside areas, as opposed to strokes."""
    annotated = np.array([meaning.kind in ("annotated", "held out") for meaning in view.meanings])[codes]
    return bool(2 * np.count_nonzero(outline(annotated)) < np.count_nonzero(annotated))


def _outlines(view: PatchView, labels: Labels) -> list[tuple[BoolArray, Rgb]]:
    """Return for each region or foreground class (N,) bool, the codes that lie certainly inside, and its colour."""
    of_class = class_colours(labels)
    colours = [of_class.get(head.values[0], BACKGROUND_COLOUR) for head in labels.heads]
    if not _is_exclusive(labels):
        colours = region_colours(labels)
    inside = []
    for index in labels.foreground_heads:
        members = frozenset(labels.heads[index].classes)
        codes = [m.kind == "annotated" and bool(m.classes) and m.classes <= members for m in view.meanings]
        inside.append((np.array(codes), colours[index]))
    return inside


def composed(
    tiles: Sequence[Sequence[Panel]], headings: Sequence[Sequence[str]], keys: Sequence[Key], title: str
) -> NDArray[np.uint8]:
    """Return the sheet (y, x, 3) uint8: panels, texts and legend on white; pixels of a panel are not scaled.

    All tiles have panels of the same sizes, at least one, and three lines of heading.
    """
    height, width = np.max([panel.pixels.shape[:2] for panel in tiles[0]], axis=0).tolist()
    panel_width = max(width, _LEAST_PANEL_WIDTH)
    tile_width = len(tiles[0]) * (panel_width + _GAP) + _MARGIN
    tile_height = 3 * _LINE + height + _CAPTION + _MARGIN
    n_columns = max(1, min(len(tiles), _WIDEST // tile_width))
    n_rows = math.ceil(len(tiles) / n_columns)
    total_width = max(n_columns * tile_width, 520) + _MARGIN
    key_width = int(_SWATCH[1] + 14 + _LETTER * max(len(key.text) for key in keys)) + _MARGIN
    keys_per_row = max(1, (total_width - _MARGIN) // key_width)
    top = _LINE + _MARGIN if title else 0
    legend_top = top + n_rows * tile_height
    total_height = legend_top + math.ceil(len(keys) / keys_per_row) * (_SWATCH[0] + 6) + _MARGIN
    sheet = _Sheet(total_height, total_width)
    if title:
        sheet.write(title, _MARGIN, 8, size=11, room=total_width - 2 * _MARGIN)
    for index, (panels, lines) in enumerate(zip(tiles, headings, strict=True)):
        row, column = divmod(index, n_columns)
        x, y = _MARGIN + column * tile_width, top + row * tile_height
        for number, line in enumerate(lines):
            weight = "bold" if number == 0 else "normal"
            sheet.write(line, x, y + number * _LINE, size=9, room=tile_width - _MARGIN, weight=weight)
        for number, panel in enumerate(panels):
            left = x + number * (panel_width + _GAP)
            sheet.paste(panel.pixels, left, y + 3 * _LINE)
            sheet.write(panel.caption, left, y + 3 * _LINE + height + 2, size=8, room=panel_width, colour="0.35")
    for index, key in enumerate(keys):
        row, column = divmod(index, keys_per_row)
        x, y = _MARGIN + column * key_width, legend_top + row * (_SWATCH[0] + 6)
        sheet.paste(key.swatch, x, y)
        sheet.write(key.text, x + _SWATCH[1] + 6, y, size=8.5, room=key_width)
    return sheet.pixels()


class _Sheet:
    """White picture to which pixels and texts are added; positions are pixels from the upper left corner."""

    def __init__(self, height: int, width: int) -> None:
        from matplotlib.figure import Figure  # takes a second to import: only when a picture is drawn

        self._figure: Figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        self._canvas = np.ones((height, width, 3), dtype=np.float32)

    def paste(self, pixels: Float32Array, x: int, y: int) -> None:
        """Copy ``pixels`` (rows, columns, 3) with the upper left corner at (x, y)."""
        self._canvas[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels

    def write(self, text: str, x: int, y: int, *, size: float, room: float, **style: Any) -> None:
        """Write a line below (x, y), in smaller letters if it is wider than ``room`` pixels."""
        height, width = self._canvas.shape[:2]
        fitting = min(size, room / (max(1, len(text)) * 0.075 * _DPI / 10))
        weight, colour = style.get("weight", "normal"), style.get("colour", "black")
        self._figure.text(x / width, 1 - y / height, text, fontsize=fitting, va="top", weight=weight, color=colour)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the sheet (y, x, 3) uint8; texts are drawn over pixels."""
        written = rendered(self._figure)
        pasted = np.rint(self._canvas * 255).astype(np.uint8)
        return np.minimum(written, pasted)
