"""Which voxels annotated background separates from all annotated foreground."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from autoseg.core.arrays import BoolArray


def enclosed(
    background: BoolArray, foreground: BoolArray, spacing: Sequence[float], *, gap_mm: float = 0.0, by_slice: bool
) -> BoolArray:
    """(*S): voxels that no path from annotated foreground reaches without crossing annotated background.

    Without a gap, paths lead through faces, edges and corners: what is excluded is cut off for certain, and a line of
    single voxels that touch at corners only cuts off nothing.

    With a gap, paths lead from face to face, and the annotated background is grown by half of the gap, so that it also
    stops the path there; what it grew over stays open, on both sides. Where it grows over all that surrounds a piece of
    foreground (a thin structure between two lines), the path leads to whatever that place opens to, through gaps of any
    size. Without annotated foreground, or without annotated background, nothing is separated from anything.

    Parameters
    ----------
    background, foreground
        (*S): what was drawn as background, and what may be foreground of all that was drawn.
    spacing
        mm, one per axis.
    gap_mm
        Widest gap in a line of annotated background that still counts as closed.
    by_slice
        Whether each slice along axis 0 is looked at alone; one without annotated foreground then says nothing.
    """
    if not by_slice:
        return _separated(background, foreground, spacing, gap_mm)
    outside = np.zeros(background.shape, dtype=bool)
    for number in range(len(background)):
        outside[number] = _separated(background[number], foreground[number], spacing[1:], gap_mm)
    return outside


def _separated(background: BoolArray, foreground: BoolArray, spacing: Sequence[float], gap_mm: float) -> BoolArray:
    if not (background.any() and foreground.any()):
        return np.zeros(background.shape, dtype=bool)
    if gap_mm == 0:
        return _without(~background, foreground, np.ones((3,) * background.ndim, dtype=bool))
    growth = gap_mm / 2
    is_free = ndimage.distance_transform_edt(~background, sampling=spacing) > growth
    pieces, n_pieces = ndimage.label(is_free)
    is_outside = np.ones(n_pieces + 1, dtype=bool)
    is_outside[0] = False
    # foreground drawn close to background starts on the grown line: it first walks off, without crossing the line
    n_steps = math.ceil(growth / min(spacing)) + 2
    start = ndimage.binary_dilation(foreground, iterations=n_steps, mask=~background)
    is_outside[np.unique(pieces[start])] = False
    swallowed = _without(start, is_free)
    if swallowed.any():  # grown lines fill a narrow channel: what it leads to is not separated, if the lines are open
        filled, _ = ndimage.label(~background & ~is_free)
        own = np.isin(filled, np.unique(filled[swallowed]))
        is_outside[np.unique(pieces[ndimage.binary_dilation(own) & is_free])] = False
    outside: BoolArray = is_outside[pieces]
    return outside


def _without(region: BoolArray, other: BoolArray, neighbours: BoolArray | None = None) -> BoolArray:
    """(*S): those connected pieces of ``region`` that hold no voxel of ``other``."""
    pieces, n_pieces = ndimage.label(region, structure=neighbours)
    touches = np.zeros(n_pieces + 1, dtype=bool)
    touches[np.unique(pieces[region & other])] = True
    untouched: BoolArray = region & ~touches[pieces]
    return untouched
