"""Warp: the map from the voxels of a patch to its case, made of an affine map, displacements and flips.

A warp is drawn before voxels are read, so that only the voxels that it needs are read. Then each layer of the case is
moved in one pass.
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
    """Map from the voxels of a patch with n axes (2 or 3) to positions in its case.

    Patch voxel ``p`` shows the source position ``centre + matrix (p - (patch - 1) / 2) + displacement[p]``. Then the
    patch is flipped.
    """

    matrix: tuple[tuple[float, ...], ...]
    """(n, n): offset from the patch's centre (patch voxels) -> offset from the source's centre (source voxels)."""
    mirrors: tuple[bool, ...]
    """(n,): patch axes flipped after resampling."""
    displacement: NDArray[np.float32] | None = None
    """(n, *patch): displacement of each point, in source voxels. None: 0 everywhere, which is faster."""

    @property
    def is_identity(self) -> bool:
        """Whether no point is moved, so that the patch is a copy of source voxels, possibly flipped."""
        return self.displacement is None and bool(np.array_equal(self.array, np.eye(len(self.matrix))))

    @property
    def is_in_plane(self) -> bool:
        """Whether a 3-D patch moves within its slices only and equally in all of them, so that slices are layers."""
        array = self.array
        untouched = array[0, 0] == 1 and not array[0, 1:].any() and not array[1:, 0].any()
        return self.displacement is None and len(array) == 3 and bool(untouched)

    @property
    def array(self) -> Matrix:
        """The matrix as (n, n) float64."""
        return np.asarray(self.matrix, dtype=np.float64)

    def after(self, matrix: Matrix) -> Warp:
        """Return the warp with a further map (n, n) that is applied to the patch voxels first. Displacements stay."""
        return replace(self, matrix=_as_tuples(self.array @ matrix))

    def displaced(self, displacement: NDArray[np.float32]) -> Warp:
        """Return the warp with a further displacement (n, *P) float32, in source voxels."""
        before = 0 if self.displacement is None else self.displacement
        return replace(self, displacement=np.asarray(before + displacement, dtype=np.float32))


def identity(n_axes: int) -> Warp:
    """Return the warp that moves no voxel, for a patch with ``n_axes`` axes."""
    return Warp(_as_tuples(np.eye(n_axes)), (False,) * n_axes)


def keep_inside(warp: Warp, centre: Sequence[float], patch: Sequence[int], voxel: Sequence[int]) -> tuple[float, ...]:
    """Return the source centre closest to ``centre`` for which ``voxel`` lies exactly on a voxel of the patch.

    The voxel for which a patch was sampled is therefore in it after any rotation and scaling, with its code. The centre
    moves by less than two voxels, unless the voxel would otherwise lie outside the patch. All in source voxels.
    """
    half = (np.asarray(patch) - 1) / 2
    offset = np.linalg.solve(warp.array, np.asarray(voxel) - np.asarray(centre))
    place = np.clip(np.rint(offset + half), 0, 2 * half)
    moved = np.asarray(voxel) - warp.array @ (place - half)
    if warp.displacement is not None:
        moved = moved - warp.displacement[(slice(None), *place.astype(int))]
    return tuple(float(value) for value in moved)


def source_box(warp: Warp, centre: Sequence[float], patch: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return, per axis, the first source voxel that the patch needs and one past the last. Both may lie outside."""
    reach = np.abs(warp.array) @ ((np.asarray(patch) - 1) / 2)
    slack = 1e-6  # a point on a voxel, up to rounding, does not need the next voxel
    least, most = displacement_bounds(warp.displacement)
    low = np.floor(np.asarray(centre) - reach + least + slack).astype(int)
    high = np.ceil(np.asarray(centre) + reach + most - slack).astype(int) + 1
    return tuple(low.tolist()), tuple(high.tolist())


def move_image(box: Tensor, warp: Warp, centre: Sequence[float], patch: Sequence[int], *, outside: int = 0) -> Tensor:
    """Return the patch of an image, interpolated linearly. For the identity it is a copy of voxels.

    Parameters
    ----------
    box
        (C, *box) float32: the part of :func:`source_box` that lies inside the image.
    warp
        The map from patch voxels to source positions.
    centre
        Source position of the patch's centre, in voxels of ``box``.
    patch
        Shape of the patch, voxels.
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
    """Return the source in which ``warp`` samples ``box`` (L, *box), with ``fill`` outside.

    If the warp is in the plane, slices become layers.
    """
    if not warp.is_in_plane:
        return make_source(box, warp.array, centre, patch, fill, warp.displacement)
    middles = [centre[0], *((edge - 1) / 2 for edge in box.shape[2:])]
    slices = cut(box, middles, [patch[0], *box.shape[2:]], fill).flatten(0, 1)
    return make_source(slices, warp.array[1:, 1:], centre[1:], patch[1:], fill)


def cut(box: Tensor, centre: Sequence[float], patch: Sequence[int], fill: float) -> Tensor:
    """Return (L, *patch): voxels of ``box`` (L, *box) around ``centre``, without interpolation, ``fill`` outside.

    This is ``box`` itself if nothing is cut off or added.
    """
    lows = [round(middle - (edge - 1) / 2) for middle, edge in zip(centre, patch, strict=True)]
    if not any(lows) and tuple(box.shape[1:]) == tuple(patch):
        return box
    out = box.new_full((box.shape[0], *patch), fill)
    target, source = [slice(None)], [slice(None)]
    for low, edge, available in zip(lows, patch, box.shape[1:], strict=True):
        start, stop = max(low, 0), min(low + edge, available)
        if stop <= start:
            return out
        target.append(slice(start - low, stop - low))
        source.append(slice(start, stop))
    out[tuple(target)] = box[tuple(source)]
    return out


def embedded(matrix: Matrix, n_axes: int) -> Matrix:
    """Return (n_axes, n_axes): ``matrix`` (m, m) for the last m axes, and the identity for the axes before."""
    whole = np.eye(n_axes)
    whole[n_axes - len(matrix) :, n_axes - len(matrix) :] = matrix
    return whole


def flip(moved: Tensor, mirrors: Sequence[bool]) -> Tensor:
    """Return ``moved`` (..., *patch), flipped along those of the last axes for which ``mirrors`` is True."""
    axes = [axis - len(mirrors) for axis, is_mirrored in enumerate(mirrors) if is_mirrored]
    return moved.flip(axes) if axes else moved


def _as_tuples(matrix: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)
