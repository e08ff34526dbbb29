"""Distance to annotation: voxels within a reach, and stray annotation farther from its class than the reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autoseg.core.arrays import BoolArray, CodeArray

MAX_VOXELS = 3
"""Size of the largest stray in voxels. A larger piece counts as a separate object."""
MIN_RATIO = 10
"""Least ratio of the annotated voxels of the rest of the class to those of a stray."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A tiny piece of annotation, farther from all other annotation of its class than the reach of the class."""

    class_index: int
    voxel: tuple[int, ...]
    """(z, y, x)."""
    n_voxels: int


def within(own: BoolArray, spacing: Sequence[float], reach_mm: float) -> BoolArray:
    """Return a mask (*S) of the voxels at most ``reach_mm`` from a voxel of ``own``, between voxel centres, exact.

    Distances are computed only in the box around ``own`` that can hold such voxels.

    Parameters
    ----------
    own
        (*S), any number of axes, with at least one True voxel.
    spacing
        mm, one per axis.
    """
    limit = reach_mm * (1 + 1e-9)  # a voxel exactly at the distance is within it
    box = []
    for axis, edge in enumerate(spacing):
        used = np.flatnonzero(own.any(axis=tuple(other for other in range(own.ndim) if other != axis)))
        margin = math.floor(limit / edge)
        box.append(slice(max(0, int(used[0]) - margin), int(used[-1]) + margin + 1))
    inside = tuple(box)
    near = np.zeros(own.shape, dtype=bool)
    near[inside] = ndimage.distance_transform_edt(~own[inside], sampling=spacing) <= limit
    return near


def find_strays(
    codes: CodeArray, touched: BoolArray, spacing: Sequence[float], reach: Mapping[int, float]
) -> tuple[Stray, ...]:
    """Return tiny pieces of annotation that are probably slips of the annotator; () if there are none.

    A stray does not contradict the reach of its class, but it extends the class to its surroundings.

    Parameters
    ----------
    codes
        (*S) codes of the drawn target. Code k below K is class k alone.
    touched
        (N, K): classes that a voxel of each code annotates (:func:`autoseg.annotation.touches.touched_classes`). A
        voxel annotated with a set of classes is never a stray, but counts as annotation near one.
    spacing
        mm, one per axis.
    reach
        Class index -> reach in mm.
    """
    strays = []
    for index, distance in reach.items():
        own = codes == index
        pieces, n_pieces = ndimage.label(own, structure=np.ones((3,) * own.ndim, dtype=bool))
        sizes = np.bincount(pieces.reshape(-1), minlength=n_pieces + 1)
        small = np.flatnonzero(sizes <= MAX_VOXELS)
        small = small[small > 0]
        rest = own & ~np.isin(pieces, small)
        if len(small) == 0 or not rest.any():
            continue
        in_sets = (touched[:, index] & (np.arange(len(touched)) != index))[codes]
        near = np.unique(pieces[within(rest | in_sets, spacing, distance)])
        for piece in np.setdiff1d(small, near):
            if rest.sum() >= MIN_RATIO * sizes[piece]:
                voxel = np.unravel_index(int(np.argmax(pieces == piece)), codes.shape)
                strays.append(Stray(index, tuple(int(part) for part in voxel), int(sizes[piece])))
    return tuple(strays)
