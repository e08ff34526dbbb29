"""Which voxels annotated background separates from all annotated foreground."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from autoseg.core.case import BoolArray

GAP_VOXELS = 4
"""Widest gap in a line of annotated background that still counts as closed, in voxels of the finest spacing."""


def enclosed(background: BoolArray, foreground: BoolArray, spacing: Sequence[float], *, by_slice: bool) -> BoolArray:
    """(*S): voxels that no path from annotated foreground reaches without crossing annotated background.

    The annotated background is grown by half of ``GAP_VOXELS``, so that it also stops the path at small gaps; what it
    grew over stays open, on both sides. Where it grows over all that surrounds a piece of foreground (a thin structure
    between two lines), the path leads to whatever that place opens to, through gaps of any size. Paths lead from face
    to face. Without annotated foreground, or without annotated background, nothing is separated from anything.

    Parameters
    ----------
    background, foreground
        (*S): what was drawn as background, and as certain foreground.
    spacing
        mm, one per axis.
    by_slice
        Whether each slice along axis 0 is looked at alone; one without annotated foreground then says nothing.
    """
    if not by_slice:
        return _separated(background, foreground, spacing)
    outside = np.zeros(background.shape, dtype=bool)
    for number in range(len(background)):
        outside[number] = _separated(background[number], foreground[number], spacing[1:])
    return outside


def _separated(background: BoolArray, foreground: BoolArray, spacing: Sequence[float]) -> BoolArray:
    if not (background.any() and foreground.any()):
        return np.zeros(background.shape, dtype=bool)
    growth = GAP_VOXELS / 2 * min(spacing)
    is_free = ndimage.distance_transform_edt(~background, sampling=spacing) > growth
    pieces, n_pieces = ndimage.label(is_free)
    is_outside = np.ones(n_pieces + 1, dtype=bool)
    is_outside[0] = False
    # foreground drawn close to background starts on the grown line: it first walks off, without crossing the line
    n_steps = math.ceil(GAP_VOXELS / 2) + 2
    start = ndimage.binary_dilation(foreground, iterations=n_steps, mask=~background)
    is_outside[np.unique(pieces[start])] = False
    swallowed = _without(start, is_free)
    if swallowed.any():  # grown lines fill a narrow channel: what it leads to is not separated, if the lines are open
        filled, _ = ndimage.label(~background & ~is_free)
        own = np.isin(filled, np.unique(filled[swallowed]))
        is_outside[np.unique(pieces[ndimage.binary_dilation(own) & is_free])] = False
    outside: BoolArray = is_outside[pieces]
    return outside


def _without(region: BoolArray, other: BoolArray) -> BoolArray:
    """(*S): those connected pieces of ``region`` that hold no voxel of ``other``."""
    pieces, n_pieces = ndimage.label(region)
    touches = np.zeros(n_pieces + 1, dtype=bool)
    touches[np.unique(pieces[region & other])] = True
    untouched: BoolArray = region & ~touches[pieces]
    return untouched
