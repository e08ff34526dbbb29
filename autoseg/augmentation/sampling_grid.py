"""Where the voxels of a patch lie between those of its source: worked out once, for image and codes alike, in pieces.

A *cell* is the space between the 2^m voxels around a point. Its first voxel and the place in it are all that linear
interpolation and votes need.
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
"""Voxels around a box beyond which points lie: two, so that the cells of such points hold nothing else."""
PIECE = 1 << 17
"""Points that are worked out together: few enough for their numbers to stay in the processor's cache."""


class Source(NamedTuple):
    """Layers of voxels that are all sampled at the same points, on m axes (2 or 3)."""

    layers: Tensor
    """(L, *S), at least two voxels per axis, with a margin of what lies outside where points do."""
    matrix: NDArray[np.float64]
    """(m, m): offset from the patch's centre (patch voxels) -> offset from ``centre`` (source voxels)."""
    centre: tuple[float, ...]
    """Source point of the patch's centre, voxels of ``layers``."""
    patch: tuple[int, ...]
    """Edges of the patch, voxels."""
    displacement: Tensor | None = None
    """(m, V) float32: source voxels that the point of each patch voxel is moved by; None: not at all."""


class Piece(NamedTuple):
    """M points of a patch, one after the other."""

    points: slice
    """Their flat indices into the patch."""
    corner: Tensor
    """(M,) int32: flat index into *S of the first voxel of each point's cell."""
    fractions: tuple[Tensor, ...]
    """Per axis (M,) float32: the place in the cell, 0 at its first voxel, 1 at its last."""


def make_source(
    layers: Tensor,
    matrix: NDArray[np.float64],
    centre: Sequence[float],
    patch: Sequence[int],
    fill: int,
    displacement: NDArray[np.float32] | None = None,
) -> Source:
    """Surround ``layers`` (L, *S) by a margin of ``fill`` on each side beyond which points of the patch lie.

    ``displacement`` is (m, *patch), in source voxels.
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
    offsets = None if displacement is None else torch.from_numpy(displacement).to(layers.device).flatten(1)
    return Source(surrounded, matrix, tuple(moved), tuple(patch), offsets)


def displacement_bounds(displacement: NDArray[np.float32] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest displacement along each axis: (m,) each, 0 for None."""
    if displacement is None:
        return np.zeros(1), np.zeros(1)
    flat = displacement.reshape(len(displacement), -1).astype(np.float64)
    return flat.min(axis=1), flat.max(axis=1)


def pieces(source: Source) -> Iterator[Piece]:
    """Yield the points of a patch in order; those outside lie on the margin."""
    shape, device = source.layers.shape[1:], source.layers.device
    strides = axis_strides(source)
    steps = [torch.arange(edge, dtype=torch.float64, device=device) - (edge - 1) / 2 for edge in source.patch]
    width = math.prod(source.patch[1:])
    n_rows = max(1, PIECE // width)
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
    """Return how far apart neighbours along each axis of *S lie in a flattened layer."""
    return source.layers.stride()[1:]


def interpolate(source: Source) -> Tensor:
    """Return (L, *patch): every layer, linear between its voxels."""
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
    """Do so where nothing is rotated: one axis after the other."""
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
    """Return ``layers`` at some places of an axis. ``index_select`` is quick along all axes but the last."""
    if axis < layers.ndim - 1:
        return layers.index_select(axis, index)
    return layers.gather(axis, index.expand(*layers.shape[:-1], -1))


def _between(values: Tensor, corner: Tensor, fractions: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Interpolate a layer (V,) in the cells of M points, one axis at a time."""
    if not fractions:
        return values.index_select(0, corner)
    low = _between(values, corner, fractions[1:], strides[1:])
    high = _between(values[strides[0] :], corner, fractions[1:], strides[1:])
    return high.sub_(low).mul_(fractions[0]).add_(low)
