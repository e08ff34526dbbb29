"""What lies within a distance of annotation, and annotation that lies farther from its like than anybody promised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autoseg.core.arrays import BoolArray, CodeArray

MAX_VOXELS = 3
"""A larger piece of annotation is taken for an object of its own."""
MIN_RATIO = 10
"""The rest of the class must be annotated by at least so many times as many voxels."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A tiny piece of annotation, farther from all other annotation of its class than the reach of the class."""

    class_index: int
    voxel: tuple[int, ...]
    """(z, y, x)."""
    n_voxels: int


def within(own: BoolArray, spacing: Sequence[float], reach_mm: float) -> BoolArray:
    """Voxels at most ``reach_mm`` from a voxel of ``own``, exactly; only the box that can hold them is looked at.

    ``own`` (any number of axes) must not be empty; ``spacing`` in mm, one per axis; from voxel centre to voxel centre.
    """
    limit = reach_mm * (1 + 1e-9)  # a voxel at the distance itself is within
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
    """Return what looks like a slip in a case: it does not contradict the reach, but widens it to its surroundings.

    Parameters
    ----------
    codes
        (*S) drawn codes; those of ``reach`` are single classes.
    touched
        (N, K): the classes that a voxel of each code is annotation of. One drawn in a set is never a stray itself.
    spacing
        mm, one per axis.
    reach
        Class index -> mm.
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
