"""Patterns that show the meaning of each voxel of a label map: one class, several possible classes, or unannotated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array
from autoseg.report.overlay import Rgb

Pattern = Literal["plain", "stripes", "dashes", "grid", "hatched", "hatched back"]

PAPER: Rgb = (0.93, 0.93, 0.93)
"""Colour of unannotated voxels, below the hatching."""
INK: Rgb = (0.62, 0.62, 0.62)
"""Colour of the hatching."""
PANEL = 300
"""Longest edge of a picture of a slice, about, pixels; at least one per voxel."""
_STRIPE, _HATCH_STEP = 4, 9


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours and pattern for one meaning of a voxel."""

    pattern: Pattern
    colours: tuple[Rgb, ...] = ()
    """One per class; empty for hatching."""
    cover: float = 0.55
    """Opacity over an image, 0 to 1; hatching covers only below its lines."""

    def pixels(self, rows: NDArray[np.intp], columns: NDArray[np.intp], *, over_image: bool) -> Float32Array:
        """(n, 4) float32: red, green, blue and opacity of the pixels at ``rows`` (n,) and ``columns`` (n,)."""
        rgba = np.empty((len(rows), 4), dtype=np.float32)
        if self.pattern in ("hatched", "hatched back"):
            across = rows + columns if self.pattern == "hatched" else rows - columns
            is_line = across % _HATCH_STEP == 0
            rgba[:, :3] = np.where(is_line[:, None], INK, PAPER)
            rgba[:, 3] = self.cover * is_line if over_image else 1
            return rgba
        which = (rows + columns) // _STRIPE % len(self.colours)
        rgba[:, :3] = np.asarray(self.colours, dtype=np.float32)[which]
        rgba[:, 3] = self.cover if over_image else 1
        if self.pattern in ("dashes", "grid"):
            is_gap = rows % 4 >= 2 if self.pattern == "dashes" else (rows % 5 == 0) | (columns % 5 == 0)
            rgba[is_gap, :3] = PAPER if self.pattern == "dashes" else (1, 1, 1)
            if over_image:
                rgba[is_gap, 3] = 0
        return rgba


def enlarge(array: NDArray[Any], scale: tuple[int, int]) -> NDArray[Any]:
    """Return ``array`` (..., y, x) with every voxel as ``scale`` (rows, columns) equal pixels."""
    return array.repeat(scale[0], axis=-2).repeat(scale[1], axis=-1)


def pixels_per_voxel(shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, int]:
    """Return whole pixels (rows, columns) per voxel, at least 1, about in the proportion of ``spacing`` (y, x)."""
    finest = min(spacing)
    proportion = [edge / finest for edge in spacing]
    unit = max(1, round(PANEL / max(n * edge for n, edge in zip(shape, proportion, strict=True))))
    rows, columns = (max(1, round(unit * edge)) for edge in proportion)
    return rows, columns


def paint(codes: NDArray[np.integer[Any]], paints: Sequence[Paint], *, over_image: bool = False) -> Float32Array:
    """Return a map of codes as red, green, blue and opacity: (rows, columns, 4) float32, 0 to 1.

    Parameters
    ----------
    codes
        (rows, columns) integers: index into ``paints`` for each pixel.
    paints
        Colours and pattern of each code.
    over_image
        Whether the result is shown over an image: then colours, and the paper of the hatching, are transparent.
    """
    picture = np.zeros((*codes.shape, 4), dtype=np.float32)
    for code in np.unique(codes):
        rows, columns = np.nonzero(codes == code)
        picture[rows, columns] = paints[int(code)].pixels(rows, columns, over_image=over_image)
    return picture


def blended(base: Float32Array, layer: Float32Array) -> Float32Array:
    """Return (rows, columns, 3): ``layer`` (rows, columns, 4), with its opacity, over ``base`` (rows, columns, 3)."""
    opacity = layer[..., 3:]
    mixed: Float32Array = base * (1 - opacity) + layer[..., :3] * opacity
    return mixed


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(rows, columns) bool: pixels of ``mask`` (rows, columns) with a neighbour outside it but inside the picture."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    border: NDArray[np.bool_] = mask & ~inner
    return border
