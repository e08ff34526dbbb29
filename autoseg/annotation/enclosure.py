"""Which voxels annotated background separates from all annotated foreground."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.arrays import BoolArray

_STEPS_OFF = 2
"""Voxels that foreground is let through lines between voxels of background; across bent ones they are hardly wider."""


def enclosed(
    background: BoolArray, foreground: BoolArray, spacing: Sequence[float], *, gap_mm: float = 0.0, by_slice: bool
) -> BoolArray:
    """(*S): voxels that no path from annotated foreground reaches without crossing annotated background.

    Without a gap, paths lead through faces, edges and corners: what is excluded is cut off for certain, and a line of
    single voxels that touch at corners only cuts off nothing.

    With a gap, paths lead from face to face, and any two voxels of annotated background at most ``gap_mm`` apart, from
    centre to centre, are joined by a straight line that stops the path, too; the voxels of these lines stay open. So
    gaps up to that width are closed, in any direction, and wider ones are not. Where such lines surround a piece of
    foreground (a thin structure between two lines), the path leads to whatever that place opens to, through gaps of any
    size. Without annotated foreground, or without annotated background, nothing is separated from anything.

    Parameters
    ----------
    background, foreground
        (*S): what was drawn as background, and what may be foreground of all that was drawn.
    spacing
        mm, one per axis.
    gap_mm
        Widest gap in a line of annotated background that still counts as closed, from centre to centre of its voxels.
        Two voxels that touch at a corner are always joined if this is above 0.
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
    is_free = ~(background | _joined(background, spacing, gap_mm))
    pieces, n_pieces = ndimage.label(is_free)
    is_outside = np.ones(n_pieces + 1, dtype=bool)
    is_outside[0] = False
    # foreground drawn close to bent background starts on the lines between: it first walks off, across no background
    start = ndimage.binary_dilation(foreground, iterations=_STEPS_OFF, mask=~background)
    is_outside[np.unique(pieces[start])] = False
    swallowed = _without(start, is_free)
    if swallowed.any():  # lines fill a narrow channel: what it leads to is not separated, if the lines are open
        filled, _ = ndimage.label(~background & ~is_free)
        own = np.isin(filled, np.unique(filled[swallowed]))
        is_outside[np.unique(pieces[ndimage.binary_dilation(own) & is_free])] = False
    outside: BoolArray = is_outside[pieces]
    return outside


def _joined(background: BoolArray, spacing: Sequence[float], gap_mm: float) -> BoolArray:
    """(*S): voxels on straight lines between voxels of ``background`` at most ``gap_mm`` apart, between centres."""
    joined = np.zeros(background.shape, dtype=bool)
    inner = ndimage.binary_erosion(background, border_value=1)
    points = np.argwhere(background & ~inner)  # a line that leaves background does so at its border
    for offset in _offsets(spacing, gap_mm, background.shape):
        ends = points + offset
        starts = points[((ends >= 0) & (ends < background.shape)).all(axis=1)]
        starts = starts[background[tuple((starts + offset).T)]]
        n_steps = int(np.abs(offset).max())
        for step in range(1, n_steps):
            joined[tuple((starts + np.rint(offset * step / n_steps).astype(np.intp)).T)] = True
    return joined


def _offsets(spacing: Sequence[float], gap_mm: float, shape: Sequence[int]) -> NDArray[np.intp]:
    """(N, D): steps between voxels that are no neighbours and at most ``gap_mm`` apart, one of each two directions."""
    reach = [min(math.floor(gap_mm * (1 + 1e-9) / edge), size - 1) for edge, size in zip(spacing, shape, strict=True)]
    steps = np.argwhere(np.ones([2 * edge + 1 for edge in reach], dtype=bool)) - reach
    steps = steps[len(steps) // 2 + 1 :]
    distances = np.linalg.norm(steps * np.asarray(spacing), axis=1)
    chosen: NDArray[np.intp] = steps[(distances <= gap_mm * (1 + 1e-9)) & (np.abs(steps).max(axis=1) > 1)]
    return chosen


def _without(region: BoolArray, other: BoolArray, neighbours: BoolArray | None = None) -> BoolArray:
    """(*S): those connected pieces of ``region`` that hold no voxel of ``other``."""
    pieces, n_pieces = ndimage.label(region, structure=neighbours)
    touches = np.zeros(n_pieces + 1, dtype=bool)
    touches[np.unique(pieces[region & other])] = True
    untouched: BoolArray = region & ~touches[pieces]
    return untouched
