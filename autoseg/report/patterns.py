"""How the voxels of a label map are painted so that sets of classes and unannotated voxels can be told apart."""

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
"""Of unannotated voxels, below the hatching."""
INK: Rgb = (0.62, 0.62, 0.62)
"""Of the hatching."""
_STRIPE, _HATCH_STEP = 4, 9


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours and pattern of one meaning of a voxel."""

    pattern: Pattern
    colours: tuple[Rgb, ...] = ()
    """One per class; none for hatching."""
    cover: float = 0.55
    """How much of the image the colours hide where they lie over it, 0 to 1; hatching hides only below its lines."""

    def pixels(self, rows: NDArray[np.intp], columns: NDArray[np.intp], *, over_image: bool) -> Float32Array:
        """Return red, green, blue and opacity of the pixels at ``rows`` and ``columns`` of the picture: (n, 4)."""
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
    """Return (..., y, x) with every voxel shown as ``scale`` (rows, columns) equal pixels."""
    return array.repeat(scale[0], axis=-2).repeat(scale[1], axis=-1)


def paint(codes: NDArray[np.integer[Any]], paints: Sequence[Paint], *, over_image: bool = False) -> Float32Array:
    """Return red, green, blue and opacity (rows, columns, 4), each 0 to 1, of a map of codes in the picture's pixels.

    Parameters
    ----------
    codes
        (rows, columns): index into ``paints`` of each pixel.
    paints
        How each code is painted.
    over_image
        Whether the image shall be seen below: then colours are transparent, and so is the paper of the hatching.
    """
    picture = np.zeros((*codes.shape, 4), dtype=np.float32)
    for code in np.unique(codes):
        rows, columns = np.nonzero(codes == code)
        picture[rows, columns] = paints[int(code)].pixels(rows, columns, over_image=over_image)
    return picture


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels (rows, columns) of ``mask`` that have a neighbour outside of it; the picture's edge is none."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    border: NDArray[np.bool_] = mask & ~inner
    return border
