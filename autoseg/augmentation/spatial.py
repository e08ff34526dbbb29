"""Rotation, scaling and mirroring of a patch: drawn first, so that only the voxels it needs are read, then applied.

A patch voxel ``p`` shows the source point ``centre + matrix (p - (patch - 1) / 2)``; flips follow. Image and codes are
each moved in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autoseg.augmentation.recipes import Recipe
from autoseg.augmentation.sampling_grid import Source, interpolate, make_source

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SpatialDraw:
    """One drawn transform of a patch with n axes (2 or 3)."""

    matrix: tuple[tuple[float, ...], ...]
    """(n, n): offset from the patch's centre (patch voxels) -> offset from the source's centre (source voxels)."""
    mirrors: tuple[bool, ...]
    """(n,): patch axes flipped after resampling."""

    @property
    def is_identity(self) -> bool:
        """Whether the matrix changes nothing, so that the patch is a plain copy (flipped perhaps)."""
        return bool(np.array_equal(self.array, np.eye(len(self.matrix))))

    @property
    def is_in_plane(self) -> bool:
        """Whether axis 0 of a 3-D patch is left alone, so that slices are resampled one by one."""
        array = self.array
        untouched = array[0, 0] == 1 and not array[0, 1:].any() and not array[1:, 0].any()
        return len(array) == 3 and bool(untouched)

    @property
    def array(self) -> Matrix:
        """The matrix as (n, n) float64."""
        return np.asarray(self.matrix, dtype=np.float64)


def identity_draw(n_axes: int) -> SpatialDraw:
    """Return the transform that changes nothing."""
    return SpatialDraw(_as_tuples(np.eye(n_axes)), (False,) * n_axes)


def draw_spatial(recipe: Recipe, n_axes: int, rng: np.random.Generator) -> SpatialDraw:
    """Draw rotation, scaling and mirrors for a patch with ``n_axes`` axes.

    Rotation and scaling happen independently, each with its own probability. 3-D: angles about axis 0, 1 and 2, in this
    order; 2-D or in plane: one angle. Source: batchgeneratorsv2 ``SpatialTransform``, ``MirrorTransform``.
    """
    n_moving = 2 if recipe.in_plane else n_axes
    moving = np.eye(n_moving)
    if rng.random() < recipe.rotation_probability:
        limit = math.radians(recipe.rotation_degrees)
        moving = rotation_matrix(rng.uniform(-limit, limit, size=1 if n_moving == 2 else 3))
    if rng.random() < recipe.scaling_probability:
        moving = moving * rng.uniform(*recipe.scaling_range)
    matrix = np.eye(n_axes)
    matrix[n_axes - n_moving :, n_axes - n_moving :] = moving
    flips = rng.random(n_axes) < recipe.mirror_probability
    return SpatialDraw(
        _as_tuples(matrix), tuple(bool(flips[axis]) and axis in recipe.mirror_axes for axis in range(n_axes))
    )


def rotation_matrix(angles: Sequence[float] | NDArray[np.float64]) -> Matrix:
    """Return the (2, 2) rotation by one angle, or the (3, 3) rotation about axis 0, then 1, then 2; radians."""
    if len(angles) == 1:
        return _plane_rotation(2, 0, 1, angles[0])
    first, second, third = angles
    return _plane_rotation(3, 0, 1, third) @ _plane_rotation(3, 2, 0, second) @ _plane_rotation(3, 1, 2, first)


def keep_inside(
    draw: SpatialDraw, centre: Sequence[float], patch: Sequence[int], voxel: Sequence[int]
) -> tuple[float, ...]:
    """Return the source centre next to ``centre`` for which ``voxel`` lies exactly on a voxel of the patch.

    A voxel that was the reason for a patch is thus in it after any rotation and scaling, with its code. The centre
    moves by less than two voxels, unless the voxel would have left the patch.
    """
    half = (np.asarray(patch) - 1) / 2
    offset = np.linalg.solve(draw.array, np.asarray(voxel) - np.asarray(centre))
    place = np.clip(np.rint(offset + half), 0, 2 * half)
    return tuple(float(value) for value in np.asarray(voxel) - draw.array @ (place - half))


def source_box(
    draw: SpatialDraw, centre: Sequence[float], patch: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the first source voxel and one past the last that the patch needs, per axis; may lie outside the image."""
    reach = np.abs(draw.array) @ ((np.asarray(patch) - 1) / 2)
    slack = 1e-6  # an edge that falls on a voxel up to rounding needs no neighbour
    low = np.floor(np.asarray(centre) - reach + slack).astype(int)
    high = np.ceil(np.asarray(centre) + reach - slack).astype(int) + 1
    return tuple(low.tolist()), tuple(high.tolist())


def move_image(box: Tensor, draw: SpatialDraw, centre: Sequence[float], patch: Sequence[int]) -> Tensor:
    """Return the patch of an image: linear between voxels, 0 outside; a plain copy if the draw is the identity.

    Parameters
    ----------
    box
        (C, *box) float32: the part of the image that :func:`source_box` asks for, cut off where the image ends.
    draw
        The transform.
    centre
        Source point of the patch's centre, in voxels of ``box``.
    patch
        Edges of the patch, voxels.

    Returns
    -------
    Tensor
        (C, *patch) float32.
    """
    if draw.is_identity or 0 in box.shape:
        return flip(cut(box, centre, patch, 0), draw.mirrors)
    moved = interpolate(as_source(box, draw, centre, patch, 0))
    return flip(moved.view(-1, *patch), draw.mirrors)


def as_source(box: Tensor, draw: SpatialDraw, centre: Sequence[float], patch: Sequence[int], fill: int) -> Source:
    """Return what ``draw`` samples of (L, *box), with ``fill`` outside; slices become layers where they stay apart."""
    if not draw.is_in_plane:
        return make_source(box, draw.array, centre, patch, fill)
    middles = [centre[0], *((edge - 1) / 2 for edge in box.shape[2:])]
    slices = cut(box, middles, [patch[0], *box.shape[2:]], fill).flatten(0, 1)
    return make_source(slices, draw.array[1:, 1:], centre[1:], patch[1:], fill)


def cut(box: Tensor, centre: Sequence[float], patch: Sequence[int], fill: int) -> Tensor:
    """Return (L, *patch) out of (L, *box) without interpolation, ``fill`` outside; ``box`` itself if that is it."""
    lows = [round(middle - (edge - 1) / 2) for middle, edge in zip(centre, patch, strict=True)]
    if not any(lows) and tuple(box.shape[1:]) == tuple(patch):
        return box
    out = box.new_full((box.shape[0], *patch), fill)
    into, taken = [slice(None)], [slice(None)]
    for low, edge, available in zip(lows, patch, box.shape[1:], strict=True):
        start, stop = max(low, 0), min(low + edge, available)
        if stop <= start:
            return out
        into.append(slice(start - low, stop - low))
        taken.append(slice(start, stop))
    out[tuple(into)] = box[tuple(taken)]
    return out


def flip(moved: Tensor, mirrors: Sequence[bool]) -> Tensor:
    """Flip the last ``len(mirrors)`` axes where ``mirrors`` says so."""
    axes = [axis - len(mirrors) for axis, is_mirrored in enumerate(mirrors) if is_mirrored]
    return moved.flip(axes) if axes else moved


def _plane_rotation(n_axes: int, first: int, second: int, angle: float) -> Matrix:
    """Rotation by ``angle`` (radians) from axis ``first`` towards axis ``second``; exact at quarter turns."""
    matrix = np.eye(n_axes)
    cosine, sine = (round(value, 15) for value in (math.cos(angle), math.sin(angle)))
    matrix[first, first] = matrix[second, second] = cosine
    matrix[second, first], matrix[first, second] = sine, -sine
    return matrix


def _as_tuples(matrix: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)
