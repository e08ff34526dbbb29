"""Voxels that annotated background separates from all annotated foreground."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.arrays import BoolArray

_STEPS_OFF = 2
"""Voxels that a path may walk from annotated foreground along the lines that close gaps. Bent background makes these
lines thicker than one voxel, and foreground drawn close to it can start inside them."""


def enclosed(
    background: BoolArray, foreground: BoolArray, spacing: Sequence[float], *, gap_mm: float = 0.0, by_slice: bool
) -> BoolArray:
    """Return a mask (*S) of the voxels that no path from annotated foreground reaches without crossing background.

    If ``gap_mm`` is 0, paths may pass through faces, edges and corners of voxels. Background whose voxels touch only at
    corners therefore separates nothing, and every separated voxel is separated with certainty.

    If ``gap_mm`` is above 0, paths pass through faces only. Any two voxels of annotated background at most ``gap_mm``
    apart (between centres) are joined by a straight line that also stops paths; voxels on a line are not separated
    themselves. Gaps up to that width are therefore closed, in any direction, and wider gaps are not. If lines enclose a
    piece of annotated foreground completely (a thin structure between two lines of background), paths may leave that
    piece through the lines, however wide the gap.

    Without annotated foreground, or without annotated background, the mask is False everywhere.

    Parameters
    ----------
    background, foreground
        (*S): voxels annotated as background, and annotated voxels that may be foreground.
    spacing
        mm, one per axis.
    gap_mm
        Widest gap, between voxel centres, in a line of annotated background that counts as closed. If above 0, two
        voxels that touch at a corner are always joined.
    by_slice
        Whether each slice along axis 0 is processed alone. Nothing is then separated in a slice without annotated
        foreground.
    """
    if not by_slice:
        return _separated(background, foreground, spacing, gap_mm)
    separated = np.zeros(background.shape, dtype=bool)
    for number in range(len(background)):
        separated[number] = _separated(background[number], foreground[number], spacing[1:], gap_mm)
    return separated


def _separated(background: BoolArray, foreground: BoolArray, spacing: Sequence[float], gap_mm: float) -> BoolArray:
    """Return :func:`enclosed` for arrays (*S) that are processed as a whole."""
    if not (background.any() and foreground.any()):
        return np.zeros(background.shape, dtype=bool)
    if gap_mm == 0:
        return _without(~background, foreground, np.ones((3,) * background.ndim, dtype=bool))
    is_free = ~(background | _joined(background, spacing, gap_mm))
    pieces, n_pieces = ndimage.label(is_free)
    is_separated = np.ones(n_pieces + 1, dtype=bool)  # by piece
    is_separated[0] = False
    # foreground drawn close to bent background lies on the lines that close gaps: grow it off them, but not across
    # background
    start = ndimage.binary_dilation(foreground, iterations=_STEPS_OFF, mask=~background)
    is_separated[np.unique(pieces[start])] = False
    swallowed = _without(start, is_free)
    if swallowed.any():  # foreground in a channel that lines fill completely: paths may leave through these lines
        filled, _ = ndimage.label(~background & ~is_free)
        own = np.isin(filled, np.unique(filled[swallowed]))
        is_separated[np.unique(pieces[ndimage.binary_dilation(own) & is_free])] = False
    separated: BoolArray = is_separated[pieces]
    return separated


def _joined(background: BoolArray, spacing: Sequence[float], gap_mm: float) -> BoolArray:
    """Return a mask (*S) of the voxels on straight lines between voxels of ``background`` at most ``gap_mm`` apart."""
    joined = np.zeros(background.shape, dtype=bool)
    inner = ndimage.binary_erosion(background, border_value=1)
    points = np.argwhere(background & ~inner)  # a line leaves background at its border, so border voxels suffice
    for offset in _offsets(spacing, gap_mm, background.shape):
        ends = points + offset
        starts = points[((ends >= 0) & (ends < background.shape)).all(axis=1)]
        starts = starts[background[tuple((starts + offset).T)]]
        n_steps = int(np.abs(offset).max())
        for step in range(1, n_steps):
            joined[tuple((starts + np.rint(offset * step / n_steps).astype(np.intp)).T)] = True
    return joined


def _offsets(spacing: Sequence[float], gap_mm: float, shape: Sequence[int]) -> NDArray[np.intp]:
    """Return (N, D) steps between voxels that are at most ``gap_mm`` apart and do not touch.

    Of a step and its opposite, only one is returned.
    """
    reach = [min(math.floor(gap_mm * (1 + 1e-9) / edge), size - 1) for edge, size in zip(spacing, shape, strict=True)]
    steps = np.argwhere(np.ones([2 * edge + 1 for edge in reach], dtype=bool)) - reach
    steps = steps[len(steps) // 2 + 1 :]
    distances = np.linalg.norm(steps * np.asarray(spacing), axis=1)
    chosen: NDArray[np.intp] = steps[(distances <= gap_mm * (1 + 1e-9)) & (np.abs(steps).max(axis=1) > 1)]
    return chosen


def _without(region: BoolArray, other: BoolArray, neighbours: BoolArray | None = None) -> BoolArray:
    """Return a mask (*S) of the connected components of ``region`` (*S) that contain no voxel of ``other`` (*S)."""
    pieces, n_pieces = ndimage.label(region, structure=neighbours)
    touches = np.zeros(n_pieces + 1, dtype=bool)
    touches[np.unique(pieces[region & other])] = True
    untouched: BoolArray = region & ~touches[pieces]
    return untouched
