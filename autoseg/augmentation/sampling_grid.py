"""Positions of the voxels of a patch between the voxels of its source, computed once for image and codes, in pieces.

A *cell* is the space between the 2^m source voxels around a point, m axes. Linear interpolation and votes need only the
first voxel of the cell and the position in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

MARGIN = 2
"""Width, in voxels, of the fill around a box if points lie outside it. With two voxels, the cell of a point far outside
contains only fill."""
PIECE = 1 << 17
"""Number of points computed together on the CPU: few enough for the processor's cache."""
DEVICE_PIECE = 1 << 20
"""The same on other devices, for fewer kernel launches: votes take some 300 bytes a point."""


class Source(NamedTuple):
    """Layers of voxels on m axes (2 or 3) that are sampled at the same points."""

    layers: Tensor
    """(L, *S), at least two voxels per axis, with a margin of fill on the sides where points lie outside."""
    matrix: NDArray[np.float64]
    """(m, m): offset from the patch's centre (patch voxels) -> offset from ``centre`` (source voxels)."""
    centre: tuple[float, ...]
    """Source position of the patch's centre, in voxels of ``layers``."""
    patch: tuple[int, ...]
    """Shape of the patch, voxels."""
    displacement: Tensor | None = None
    """(m, V) float32: displacement of the point of each of V patch voxels, in source voxels. None: 0 everywhere."""


class Piece(NamedTuple):
    """M consecutive points of a patch."""

    points: slice
    """Flat indices of the points in the patch."""
    corner: Tensor
    """(M,) int32: flat index into *S of the first voxel of each point's cell."""
    fractions: tuple[Tensor, ...]
    """Per axis (M,) float32: position in the cell, 0 at its first voxel, 1 at its last."""


def make_source(
    layers: Tensor,
    matrix: NDArray[np.float64],
    centre: Sequence[float],
    patch: Sequence[int],
    fill: int,
    displacement: NDArray[np.float32] | None = None,
) -> Source:
    """Return the source for ``layers`` (L, *S), with a margin of ``fill`` on each side beyond which points lie.

    ``matrix`` is (m, m), see :class:`Source`; ``centre`` in voxels of ``layers``; ``displacement`` is (m, *patch) in
    source voxels, or None.
    """
    reach = np.abs(matrix) @ ((np.asarray(patch) - 1) / 2)
    least, most = (np.broadcast_to(bound, reach.shape).tolist() for bound in displacement_bounds(displacement))
    margins: list[int] = []
    moved: list[float] = []
    for middle, far, low, high, edge in zip(centre, reach.tolist(), least, most, layers.shape[1:], strict=True):
        before = MARGIN * bool(middle - far + low < 0)
        after = MARGIN * bool(middle + far + high > edge - 1 or edge == 1)
        margins = [before, after, *margins]  # the last axis comes first
        moved.append(middle + before)
    surrounded = pad(layers, margins, value=fill) if any(margins) else layers.contiguous()
    offsets = (
        None if displacement is None else torch.from_numpy(displacement).to(layers.device, non_blocking=True).flatten(1)
    )
    return Source(surrounded, matrix, tuple(moved), tuple(patch), offsets)


def displacement_bounds(displacement: NDArray[np.float32] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the largest of the displacements (m, *patch) along each axis: (m,) each.

    For None, both are (1,) with value 0.
    """
    if displacement is None:
        return np.zeros(1), np.zeros(1)
    flat = displacement.reshape(len(displacement), -1).astype(np.float64)
    return flat.min(axis=1), flat.max(axis=1)


def pieces(source: Source) -> Iterator[Piece]:
    """Yield the points of a patch in order. Points outside the source are moved into its margin."""
    shape, device = source.layers.shape[1:], source.layers.device
    strides = axis_strides(source)
    steps = [torch.arange(edge, dtype=torch.float64, device=device) - (edge - 1) / 2 for edge in source.patch]
    width = math.prod(source.patch[1:])
    n_rows = max(1, (PIECE if device.type == "cpu" else DEVICE_PIECE) // width)
    for start in range(0, source.patch[0], n_rows):
        rows = slice(start, min(start + n_rows, source.patch[0]))
        points = slice(start * width, rows.stop * width)
        corner = torch.zeros((), dtype=torch.int32, device=device)
        fractions = []
        axes = zip(shape, strides, source.centre, source.matrix.tolist(), strict=True)
        for axis, (edge, stride, middle, row) in enumerate(axes):
            point = steps[0][rows] * row[0] + middle
            for step, factor in zip(steps[1:-1], row[1:-1], strict=True):
                point = point[..., None] + step * factor
            point = point.float()[..., None] + (steps[-1] * row[-1]).float()
            point = point.flatten()
            if source.displacement is not None:
                point = point + source.displacement[axis, points]
            point = point.clamp_(0, edge - 1)
            floor = point.int().clamp_(max=edge - 2)
            fractions.append(point.sub_(floor))
            corner = floor.mul_(stride).add_(corner)
        yield Piece(points, corner, tuple(fractions))


def axis_strides(source: Source) -> tuple[int, ...]:
    """Return the distance in a flattened layer between neighbours along each axis of *S."""
    return source.layers.stride()[1:]


def interpolate(source: Source) -> Tensor:
    """Return (L, *patch): every layer of the source, interpolated linearly at the points of the patch."""
    if source.displacement is None and not (source.matrix - np.diag(np.diag(source.matrix))).any():
        return _interpolate_by_axis(source)
    flat = source.layers.flatten(1)
    strides = axis_strides(source)
    moved = flat.new_empty((len(flat), math.prod(source.patch)))
    for piece in pieces(source):
        for values, out in zip(flat, moved, strict=True):
            out[piece.points] = _between(values, piece.corner, piece.fractions, strides)
    return moved.view(-1, *source.patch)


def _interpolate_by_axis(source: Source) -> Tensor:
    """Return :func:`interpolate`, (L, *patch), for a source without rotation: one axis after the other."""
    moved = source.layers
    for axis, edge in enumerate(source.patch, 1):
        steps = torch.arange(edge, dtype=torch.float64, device=moved.device) - (edge - 1) / 2
        point = steps * source.matrix[axis - 1, axis - 1] + source.centre[axis - 1]
        point = point.clamp_(0, moved.shape[axis] - 1)
        floor = point.long().clamp_(max=moved.shape[axis] - 2)
        fraction = (point - floor).float().view(-1, *[1] * (moved.ndim - 1 - axis))
        low, high = _along(moved, axis, floor), _along(moved, axis, floor + 1)
        moved = high.sub_(low).mul_(fraction).add_(low)
    return moved


def _along(layers: Tensor, axis: int, index: Tensor) -> Tensor:
    """Return ``layers`` (L, *S) at the positions ``index`` (n,) of an axis.

    ``index_select`` is fast along all axes but the last.
    """
    if axis < layers.ndim - 1:
        return layers.index_select(axis, index)
    return layers.gather(axis, index.expand(*layers.shape[:-1], -1))


def _between(values: Tensor, corner: Tensor, fractions: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Return (M,): a flattened layer (V,), interpolated linearly in the cells of M points, one axis at a time.

    ``corner`` (M,) and ``fractions`` (M,) per axis as in :class:`Piece`; ``strides`` per axis.
    """
    if not fractions:
        return values.index_select(0, corner)
    low = _between(values, corner, fractions[1:], strides[1:])
    high = _between(values[strides[0] :], corner, fractions[1:], strides[1:])
    return torch.lerp(low, high, fractions[0], out=low)
