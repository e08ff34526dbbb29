"""Resampling of logits from the plan's grid to the grid of the file, slab by slab, of all of it or of a box."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array, Shape3
from autoseg.core.boxes import Box
from autoseg.core.errors import PlanError
from autoseg.inference.window import SLAB_VALUES, Slab
from autoseg.preprocessing import anisotropic_axis
from autoseg.preprocessing.axes import IndexArray, linear_taps, nearest_indices

Logits = Float32Array | Iterable[Slab]
"""(O, *S) float32 on ``CaseRecord.shape``, the plan's axes: as one array, or as slabs in the order of the planes."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """The way from the plan's grid to the grid between crop and resampling, for a box of the latter."""

    case: str
    before: Shape3
    """Shape (z, y, x) of the whole plan's grid."""
    after: Shape3
    """Shape of the whole grid between crop and resampling, with context."""
    coarse: int | None
    """Axis along which the nearest plane is taken; None if there is none."""
    box: Box
    """Voxels of the grid between crop and resampling that are wanted."""
    source: Box
    """Voxels of the plan's grid that they follow from."""
    is_whole: bool
    """Whether the whole grid was asked for. Of a box, last bits must not depend on what else is in it."""

    def along(self, axis: int) -> Taps:
        """Return the source points of the box along an axis, counted from the first of ``source``."""
        taps = _taps(self.before[axis], self.after[axis], nearest=self.coarse == axis)
        return taps.cut(self.box.start[axis], self.box.stop[axis], self.source.start[axis])


def resampling_of(record: CaseRecord, box: Box | None = None) -> Resampling:
    """Return the resampling of a case, of a box of the crop (z, y, x) that is not empty; None is the whole crop.

    Context around the crop is resampled from, but not among the result.
    """
    before, after = record.shape, record.shape_before_resampling
    coarse = anisotropic_axis(record.spacing, record.spacing_before)
    wanted = (Box.whole(record.shape_after_crop) if box is None else box).shifted(record.context_low)
    ends = []
    for axis in range(3):
        taps = _taps(before[axis], after[axis], nearest=coarse == axis)
        ends.append((int(taps.lower[wanted.start[axis]]), int(taps.upper[wanted.stop[axis] - 1]) + 1))
    (z0, z1), (y0, y1), (x0, x1) = ends
    source = Box.whole(before) if box is None else Box((z0, y0, x0), (z1, y1, x1))
    return Resampling(record.case, before, after, coarse, wanted, source, box is None)


def resampled_slabs(
    logits: Logits, record: CaseRecord, *, slab_values: int = SLAB_VALUES
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(first plane, logits (O, planes, y, x) float32)`` on the grid between crop and resampling, in order."""
    grid = resampling_of(record)
    for part in parts_of(_as_slabs(logits), grid, slab_values):
        yield part.first, resampled(part, grid)


def _as_slabs(logits: Logits) -> Iterable[Slab]:
    """Return an array (O, *S) as one slab; slabs as they are."""
    return [(0, logits)] if isinstance(logits, np.ndarray) else logits


def checked_slabs(logits: Logits, grid: Resampling, n_outputs: int) -> Iterator[Slab]:
    """Yield the slabs; raise ``PlanError`` unless they cover the planes of the grid's source in order."""
    n_planes, *plane = grid.source.shape
    done = 0
    for first, slab in _as_slabs(logits):
        planes = slab.shape[1]
        if (len(slab), *slab.shape[2:]) != (n_outputs, *plane) or first != done or done + planes > n_planes:
            raise _other_grid(f"logits of shape {slab.shape} for the planes from {first} on", grid, n_outputs)
        yield first, slab
        done += planes
    if done != n_planes:
        raise _other_grid(f"logits of {done} planes", grid, n_outputs)


def _other_grid(given: str, grid: Resampling, n_outputs: int) -> PlanError:
    return PlanError(
        f"case {grid.case}: found {given}, expected {(n_outputs, *grid.source.shape)} (outputs, then the grid of the "
        "plan). Predict with the model's own plan and labels."
    )


@dataclass(frozen=True, slots=True)
class Part:
    """Planes of the grid between crop and resampling, with the source planes that they are resampled from."""

    first: int
    """Index of the first plane in the box of the grid."""
    stop: int
    """One past the index of the last plane."""
    source: Tensor
    """(O, planes, y', x') float32 on the plan's grid."""
    source_first: int
    """Index of the first source plane in the source of the grid."""


def parts_of(slabs: Iterable[Slab], grid: Resampling, slab_values: int) -> Iterator[Part]:
    """Cut slabs into parts that can be resampled alone; planes that the next part also needs stay in memory."""
    shape, taps = grid.box.shape, grid.along(0)
    buffer, buffer_first, done = torch.empty(0), 0, 0
    for first, slab in slabs:
        tensor = torch.from_numpy(np.require(slab, np.float32, ["W"]))
        buffer = torch.cat((buffer, tensor), dim=1) if first > buffer_first else tensor
        end = first + tensor.shape[1]
        most = max(1, slab_values // max(1, len(tensor) * math.prod(shape[1:])))
        ready = int(np.searchsorted(taps.upper, end))  # number of planes whose source planes have all arrived
        while done < ready:
            stop = min(done + most, ready)
            low, high = int(taps.lower[done]), int(taps.upper[stop - 1]) + 1
            yield Part(done, stop, buffer[:, low - buffer_first : high - buffer_first], low)
            done = stop
        keep_from = min(end, int(taps.lower[done])) if done < shape[0] else end
        buffer, buffer_first = buffer[:, keep_from - buffer_first :], keep_from


def resampled(part: Part, grid: Resampling) -> Tensor:
    """Return the logits (O, planes, y, x) float32 of a part on the grid between crop and resampling."""
    slab = grid.along(0).cut(part.first, part.stop, part.source_first).take(part.source, 1)
    if grid.is_whole and grid.coarse not in (1, 2) and grid.before[1:] != grid.after[1:]:
        slab = nn.functional.interpolate(slab, size=grid.after[1:], mode="bilinear", align_corners=False)
        return slab[:, :, *grid.box.slices[1:]]
    for axis in (1, 2):
        slab = grid.along(axis).take(slab, axis + 1)
    return slab


@dataclass(frozen=True, slots=True)
class Taps:
    """Source points that each of m points along an axis is interpolated from, ascending."""

    lower: IndexArray
    """(m,) index of the source point below."""
    upper: IndexArray
    """(m,) index of the source point above."""
    weight: NDArray[np.float64] | None
    """(m,) weight of the upper point, 0 to 1; None where upper and lower are the same."""
    is_same: bool
    """Whether input and output points are the same, so that nothing is resampled."""

    def cut(self, first: int, stop: int, offset: int) -> Taps:
        """Return those of the points ``first`` to ``stop``, with source points that count from ``offset``."""
        weight = None if self.weight is None else self.weight[first:stop]
        return Taps(self.lower[first:stop] - offset, self.upper[first:stop] - offset, weight, self.is_same)

    def take(self, values: Tensor, axis: int) -> Tensor:
        """Return the m points along ``axis`` of ``values``; the other axes keep their shape."""
        if self.is_same:
            return values.narrow(axis, int(self.lower[0]), len(self.lower))
        lower, upper = torch.from_numpy(self.lower), torch.from_numpy(self.upper)
        if self.weight is None:
            return values.index_select(axis, lower)
        shape = [1] * values.ndim
        shape[axis] = -1
        weight = torch.from_numpy(self.weight.astype(np.float32)).view(shape)
        return torch.lerp(values.index_select(axis, lower), values.index_select(axis, upper), weight)


def _taps(n: int, m: int, *, nearest: bool) -> Taps:
    """Return the source points for resampling ``n`` points along an axis to ``m``.

    Linear between voxel centres and constant beyond the outermost centres. With ``nearest``, the nearest source point;
    the higher index on a tie.
    """
    if n == m:
        return Taps(np.arange(n), np.arange(n), None, is_same=True)
    if nearest:
        return Taps(nearest_indices(n, m), nearest_indices(n, m), None, is_same=False)
    return Taps(*linear_taps(n, m), is_same=False)
