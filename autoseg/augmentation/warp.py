"""Warp: the map from the voxels of a patch to its case: an affine map, displacements, moved sections, flips.

A warp is drawn before voxels are read, so that only the voxels that it needs are read. Then each layer of the case is
moved in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.augmentation.sampling_grid import Source, displacement_bounds, interpolate, make_source
from autoseg.augmentation.sections import Section, is_on_grid, plane_rotation, runs

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Warp:
    """Map from the voxels of a patch with n axes (2 or 3) to positions in its case.

    Patch voxel ``p`` shows the source position ``centre + matrix (p - (patch - 1) / 2) + displacement[p]``; in a moved
    section ``p`` is turned before and the position shifted. Then the axes of the patch are put in their new order, and
    it is flipped.
    """

    matrix: tuple[tuple[float, ...], ...]
    """(n, n): offset from the patch's centre (patch voxels) -> offset from the source's centre (source voxels)."""
    mirrors: tuple[bool, ...]
    """(n,): patch axes flipped after resampling."""
    displacement: NDArray[np.float32] | None = None
    """(m, *last m axes of the patch): displacement of each point along the last m axes, in source voxels; m is n, or 2
    for a 3-D patch whose sections are all displaced alike. None: 0 everywhere, which is faster."""
    sections: tuple[Section, ...] = ()
    """(D,): move of each section (axis 0) of a 3-D patch, besides. Empty: none is moved."""
    order: tuple[int, ...] = ()
    """(n,): patch axes in their new order, as for ``transpose``, before the flips. Empty: they stay."""

    @property
    def is_identity(self) -> bool:
        """Whether no point is moved, so that the patch is a copy of source voxels, possibly flipped."""
        is_moved = self.displacement is not None or bool(self.sections)
        return not is_moved and bool(np.array_equal(self.array, np.eye(len(self.matrix))))

    @property
    def is_in_plane(self) -> bool:
        """Whether a 3-D patch moves within its slices only, so that slices are layers, apart from moved sections."""
        array = self.array
        untouched = array[0, 0] == 1 and not array[0, 1:].any() and not array[1:, 0].any()
        is_flat = self.displacement is None or len(self.displacement) == 2
        return is_flat and len(array) == 3 and bool(untouched)

    @property
    def array(self) -> Matrix:
        """The matrix as (n, n) float64."""
        return np.asarray(self.matrix, dtype=np.float64)

    def after(self, matrix: Matrix) -> Warp:
        """Return the warp with a further map (n, n) that is applied to the patch voxels first. Displacements stay."""
        return replace(self, matrix=_as_tuples(self.array @ matrix))

    def displaced(self, displacement: NDArray[np.float32]) -> Warp:
        """Return the warp with a further displacement (m, *last m axes of P) float32, in source voxels."""
        further, before = displacement, self.displacement
        if before is not None:
            fewer, more = sorted((before, displacement), key=len)
            further = more.copy()
            _add_along_last_axes_(further, fewer)
        return replace(self, displacement=np.asarray(further, dtype=np.float32))

    def with_sections(self, sections: Sequence[Section]) -> Warp:
        """Return the warp with further moves of the sections (D,)."""
        before = self.sections or (Section(),) * len(sections)
        return replace(self, sections=tuple(map(Section.after, sections, before)))

    def rearranged(self, order: Sequence[int], mirrors: Sequence[bool]) -> Warp:
        """Return the warp with axes further put in ``order`` (n,), then flipped where ``mirrors`` (n,) is True."""
        before = self.order or range(len(order))
        return replace(
            self,
            order=tuple(before[axis] for axis in order),
            mirrors=tuple(self.mirrors[axis] != flips for axis, flips in zip(order, mirrors, strict=True)),
        )

    def moves_at(self, place: NDArray[np.int64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,): the move of patch voxel ``place`` (n,), at ``offset`` from the centre, besides the matrix."""
        moves = np.zeros(len(self.matrix))
        if self.displacement is not None:
            m = len(self.displacement)
            moves[-m:] += self.displacement[(slice(None), *place[-m:])]
        if self.sections:
            section = self.sections[place[0]]
            turned = np.append(0, (plane_rotation(section.angle) - np.eye(2)) @ offset[1:])
            moves += self.array @ turned + (section.step, *section.shift)
        return moves


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
    moved = np.asarray(voxel) - warp.array @ (place - half) - warp.moves_at(place.astype(int), place - half)
    return tuple(float(value) for value in moved)


def source_box(warp: Warp, centre: Sequence[float], patch: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return, per axis, the first source voxel that the patch needs and one past the last. Both may lie outside."""
    slack = 1e-6  # a point on a voxel, up to rounding, does not need the next voxel
    lowest, highest = _reach(warp, patch)
    least, most = (embedded_vector(bound, len(patch)) for bound in displacement_bounds(warp.displacement))
    low = np.floor(np.asarray(centre) + lowest + least + slack).astype(int)
    high = np.ceil(np.asarray(centre) + highest + most - slack).astype(int) + 1
    return tuple(low.tolist()), tuple(high.tolist())


def _reach(warp: Warp, patch: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and the highest offset (n,) from the source's centre, without displacements."""
    half = (np.asarray(patch) - 1) / 2
    if not warp.sections:
        reach = np.abs(warp.array) @ half
        return -reach, reach
    bounds = []
    for z, section in enumerate(warp.sections):
        middle = warp.array[:, 0] * (z - half[0]) + (section.step, *section.shift)
        reach = np.abs(warp.array[:, 1:] @ plane_rotation(section.angle)) @ half[1:]
        bounds.append((middle - reach, middle + reach))
    lows, highs = zip(*bounds, strict=True)
    return np.min(lows, axis=0), np.max(highs, axis=0)


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
    return moved_by(box, warp, centre, patch, outside, interpolate)


def moved_by(
    box: Tensor,
    warp: Warp,
    centre: Sequence[float],
    patch: Sequence[int],
    fill: int,
    sample: Callable[[Source], Tensor],
) -> Tensor:
    """Return the patch (L, *patch) of layers ``box`` (L, *box), by a rule for single points.

    ``sample`` returns for a source with l layers, sampled at V points, a tensor of l V values of the box's type. It is
    not asked where voxels are only copied. If the warp is in the plane, slices become layers, and sections that move
    alike are sampled together. ``fill`` is the value outside of the box.
    """
    if warp.is_identity or 0 in box.shape:
        return arranged(cut(box, centre, patch, fill), warp)
    if not warp.is_in_plane:
        source = make_source(box, warp.array, centre, patch, fill, _dense_displacement(warp, patch))
        return arranged(sample(source).view(-1, *patch), warp)
    first = round(centre[0] - (patch[0] - 1) / 2)
    moved = box.new_empty((len(box), *patch))
    for planes, section, steps in runs(warp.sections or (Section(),) * patch[0]):
        target = moved[:, planes]
        places = [first + z + step for z, step in zip(range(patch[0])[planes], steps, strict=True)]
        middles = [middle + shift for middle, shift in zip(centre[1:], section.shift, strict=True)]
        matrix = warp.array[1:, 1:] @ plane_rotation(section.angle)
        if warp.displacement is None and is_on_grid(matrix, middles, patch[1:]):
            _copy_slices_(box, target, places, middles, fill)
        else:
            slices = _slices_at(box, places, fill).flatten(0, 1)
            target.copy_(
                sample(make_source(slices, matrix, middles, patch[1:], fill, warp.displacement)).view_as(target)
            )
    return arranged(moved, warp)


def _copy_slices_(box: Tensor, target: Tensor, places: Sequence[int], centre: Sequence[float], fill: float) -> None:
    """Copy slices of ``box`` (L, z, y, x) at ``places`` (n,), cut around ``centre``, into ``target`` (L, n, y, x)."""
    for row, place in enumerate(places):
        if 0 <= place < box.shape[1]:
            target[:, row].copy_(cut(box[:, place], centre, target.shape[2:], fill))
        else:
            target[:, row].fill_(fill)


def _slices_at(box: Tensor, places: Sequence[int], fill: float) -> Tensor:
    """Return (L, n, y, x): slices of ``box`` (L, z, y, x) at ``places`` (n,), ``fill`` where there is none."""
    if list(places) == list(range(places[0], places[0] + len(places))) and 0 <= places[0] <= box.shape[1] - len(places):
        return box.narrow(1, places[0], len(places))
    slices = box.new_empty((len(box), len(places), *box.shape[2:]))
    _copy_slices_(box, slices, places, [(edge - 1) / 2 for edge in box.shape[2:]], fill)
    return slices


def _dense_displacement(warp: Warp, patch: Sequence[int]) -> NDArray[np.float32] | None:
    """Return the displacement of every voxel (n, *patch), with moved sections among them; None if there is none."""
    if not warp.sections and (warp.displacement is None or len(warp.displacement) == len(patch)):
        return warp.displacement
    dense = np.zeros((len(patch), *patch), dtype=np.float32)
    if warp.displacement is not None:
        _add_along_last_axes_(dense, warp.displacement)
    offsets = np.stack(np.meshgrid(*(np.arange(edge) - (edge - 1) / 2 for edge in patch[1:]), indexing="ij"))
    for z, section in enumerate(warp.sections):
        turned = warp.array[:, 1:] @ (plane_rotation(section.angle) - np.eye(2))
        dense[:, z] += np.einsum("nm,myx->nyx", turned, offsets)
        dense[:, z] += np.reshape((section.step, *section.shift), (3, 1, 1))
    return dense


def cut(box: Tensor, centre: Sequence[float], patch: Sequence[int], fill: float) -> Tensor:
    """Return (L, *patch): voxels of ``box`` (L, *box) around ``centre``, without interpolation, ``fill`` outside.

    This is ``box`` itself if nothing is cut off or added, and a view of it if nothing is added.
    """
    lows = [round(middle - (edge - 1) / 2) for middle, edge in zip(centre, patch, strict=True)]
    if not any(lows) and tuple(box.shape[1:]) == tuple(patch):
        return box
    if all(0 <= low <= edge - size for low, edge, size in zip(lows, box.shape[1:], patch, strict=True)):
        return box[(slice(None), *(slice(low, low + size) for low, size in zip(lows, patch, strict=True)))]
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


def _add_along_last_axes_(dense: NDArray[np.float32], displacement: NDArray[np.float32]) -> None:
    """Add a displacement (m, *last m axes) to one of as many axes or more (n, *patch), in place."""
    n_equal = len(dense) - len(displacement)
    dense[n_equal:] += np.expand_dims(displacement, tuple(range(1, 1 + n_equal)))


def embedded(matrix: Matrix, n_axes: int) -> Matrix:
    """Return (n_axes, n_axes): ``matrix`` (m, m) for the last m axes, and the identity for the axes before."""
    whole = np.eye(n_axes)
    whole[n_axes - len(matrix) :, n_axes - len(matrix) :] = matrix
    return whole


def embedded_vector(values: NDArray[np.float64], n_axes: int) -> NDArray[np.float64]:
    """Return (n_axes,): ``values`` (m,) of the last m axes, and 0 for the axes before."""
    whole = np.zeros(n_axes)
    whole[n_axes - len(values) :] = values
    return whole


def arranged(moved: Tensor, warp: Warp) -> Tensor:
    """Return ``moved`` (..., *patch) with its last axes in the order of the warp, then flipped as it says."""
    n_axes = len(warp.mirrors)
    if warp.order:
        lead = range(moved.ndim - n_axes)
        moved = _copied(moved.permute(*lead, *(len(lead) + axis for axis in warp.order)))
    axes = [axis - n_axes for axis, is_mirrored in enumerate(warp.mirrors) if is_mirrored]
    return moved.flip(axes) if axes else moved


def _copied(view: Tensor) -> Tensor:
    """Return a contiguous copy of a transposed ``view`` (..., y, x).

    On the CPU slice by slice: torch transposes matrices in blocks, which takes a third of the time, but only matrices.
    """
    if view.is_contiguous() or view.device.type != "cpu":
        return view.contiguous()
    copy = torch.empty(view.shape, dtype=view.dtype)
    for index in np.ndindex(*view.shape[:-2]):
        copy[index].copy_(view[index])
    return copy


def _as_tuples(matrix: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)
