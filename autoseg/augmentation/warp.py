"""How a patch is cut out of its case: an affine map, a displacement of every voxel, mirrors.

A warp is drawn before anything is read, so that only the voxels that it needs are. Then each layer of the case is moved
by it in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autoseg.augmentation.sampling_grid import Source, displacement_bounds, interpolate, make_source

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Warp:
    """Where each voxel of a patch with n axes (2 or 3) lies in its case.

    Patch voxel ``p`` shows the source point ``centre + matrix (p - (patch - 1) / 2) + displacement[p]``; flips of the
    patch follow.
    """

    matrix: tuple[tuple[float, ...], ...]
    """(n, n): offset from the patch's centre (patch voxels) -> offset from the source's centre (source voxels)."""
    mirrors: tuple[bool, ...]
    """(n,): patch axes flipped after resampling."""
    displacement: NDArray[np.float32] | None = None
    """(n, *patch): source voxels that each point is moved by; None: 0 everywhere, which is faster."""

    @property
    def is_identity(self) -> bool:
        """Whether no point is moved, so that the patch is a plain copy (flipped perhaps)."""
        return self.displacement is None and bool(np.array_equal(self.array, np.eye(len(self.matrix))))

    @property
    def is_in_plane(self) -> bool:
        """Whether axis 0 of a 3-D patch is left alone and all slices move alike, so that they are moved one by one."""
        array = self.array
        untouched = array[0, 0] == 1 and not array[0, 1:].any() and not array[1:, 0].any()
        return self.displacement is None and len(array) == 3 and bool(untouched)

    @property
    def array(self) -> Matrix:
        """The matrix as (n, n) float64."""
        return np.asarray(self.matrix, dtype=np.float64)

    def after(self, matrix: Matrix) -> Warp:
        """Return the warp with a further map of the patch, (n, n), applied to its voxels first; displacements stay."""
        return replace(self, matrix=_as_tuples(self.array @ matrix))

    def displaced(self, displacement: NDArray[np.float32]) -> Warp:
        """Return the warp with a further displacement (n, *patch), source voxels."""
        before = 0 if self.displacement is None else self.displacement
        return replace(self, displacement=np.asarray(before + displacement, dtype=np.float32))


def identity(n_axes: int) -> Warp:
    """Return the warp of a patch with ``n_axes`` axes that moves nothing."""
    return Warp(_as_tuples(np.eye(n_axes)), (False,) * n_axes)


def keep_inside(warp: Warp, centre: Sequence[float], patch: Sequence[int], voxel: Sequence[int]) -> tuple[float, ...]:
    """Return the source centre next to ``centre`` for which ``voxel`` lies exactly on a voxel of the patch.

    A voxel that was the reason for a patch is thus in it after any rotation and scaling, with its code. The centre
    moves by less than two voxels, unless the voxel would have left the patch.
    """
    half = (np.asarray(patch) - 1) / 2
    offset = np.linalg.solve(warp.array, np.asarray(voxel) - np.asarray(centre))
    place = np.clip(np.rint(offset + half), 0, 2 * half)
    moved = np.asarray(voxel) - warp.array @ (place - half)
    if warp.displacement is not None:
        moved = moved - warp.displacement[(slice(None), *place.astype(int))]
    return tuple(float(value) for value in moved)


def source_box(warp: Warp, centre: Sequence[float], patch: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the first source voxel and one past the last that the patch needs, per axis; may lie outside the image."""
    reach = np.abs(warp.array) @ ((np.asarray(patch) - 1) / 2)
    slack = 1e-6  # an edge that falls on a voxel up to rounding needs no neighbour
    least, most = displacement_bounds(warp.displacement)
    low = np.floor(np.asarray(centre) - reach + least + slack).astype(int)
    high = np.ceil(np.asarray(centre) + reach + most - slack).astype(int) + 1
    return tuple(low.tolist()), tuple(high.tolist())


def move_image(box: Tensor, warp: Warp, centre: Sequence[float], patch: Sequence[int], *, outside: int = 0) -> Tensor:
    """Return the patch of an image: linear between voxels; a plain copy if the warp is the identity.

    Parameters
    ----------
    box
        (C, *box) float32: the part of the image that :func:`source_box` asks for, cut off where the image ends.
    warp
        The transform.
    centre
        Source point of the patch's centre, in voxels of ``box``.
    patch
        Edges of the patch, voxels.
    outside
        Value of everything beyond ``box``.

    Returns
    -------
    Tensor
        (C, *patch) float32.
    """
    if warp.is_identity or 0 in box.shape:
        return flip(cut(box, centre, patch, outside), warp.mirrors)
    moved = interpolate(as_source(box, warp, centre, patch, outside))
    return flip(moved.view(-1, *patch), warp.mirrors)


def as_source(box: Tensor, warp: Warp, centre: Sequence[float], patch: Sequence[int], fill: int) -> Source:
    """Return what ``warp`` samples of (L, *box), with ``fill`` outside; slices become layers where they stay apart."""
    if not warp.is_in_plane:
        return make_source(box, warp.array, centre, patch, fill, warp.displacement)
    middles = [centre[0], *((edge - 1) / 2 for edge in box.shape[2:])]
    slices = cut(box, middles, [patch[0], *box.shape[2:]], fill).flatten(0, 1)
    return make_source(slices, warp.array[1:, 1:], centre[1:], patch[1:], fill)


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


def embedded(matrix: Matrix, n_axes: int) -> Matrix:
    """Return ``matrix`` (m, m) as (n_axes, n_axes), for the last m axes; the axes before stay as they are."""
    whole = np.eye(n_axes)
    whole[n_axes - len(matrix) :, n_axes - len(matrix) :] = matrix
    return whole


def flip(moved: Tensor, mirrors: Sequence[bool]) -> Tensor:
    """Flip the last ``len(mirrors)`` axes where ``mirrors`` says so."""
    axes = [axis - len(mirrors) for axis, is_mirrored in enumerate(mirrors) if is_mirrored]
    return moved.flip(axes) if axes else moved


def _as_tuples(matrix: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)
