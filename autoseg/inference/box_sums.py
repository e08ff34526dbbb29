"""Slices and patches of an image as boxes on a grid, and sums over all of them at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Shape3
from autoseg.core.chunks import slabs
from autoseg.core.orientation import VoxelOrder
from autoseg.inference.window import window_positions

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class BoxGrid:
    """Boxes of one size in an image, at all combinations of the start positions along the three axes."""

    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Index of the first voxel of the boxes along each axis (z, y, x), ascending."""
    edges: Shape3
    """Size of a box in voxels along each axis."""
    axis: int | None = None
    """Axis perpendicular to the slices if the boxes are slices; None for patches."""

    @property
    def shape(self) -> Shape3:
        """Number of boxes along each axis."""
        a, b, c = (len(positions) for positions in self.starts)
        return (a, b, c)

    def turned(self, order: VoxelOrder, shape: Shape3) -> BoxGrid:
        """Return the same boxes in the image whose axes ``order`` has permuted and flipped; it then has ``shape``."""
        edges = order.permuted(self.edges)
        a, b, c = (
            tuple(size - edge - start for start in reversed(starts)) if is_flipped else starts
            for starts, edge, size, is_flipped in zip(
                order.permuted(self.starts), edges, shape, order.flipped, strict=True
            )
        )
        return BoxGrid((a, b, c), edges, None if self.axis is None else order.axes.index(self.axis))

    def corners(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the first voxels and one past the last voxels of all boxes, each (n, 3) intp, last axis fastest."""
        low = np.stack(np.meshgrid(*self.starts, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.intp)
        return low, low + np.asarray(self.edges, dtype=np.intp)


def slice_grid(shape: Shape3, axis: int) -> BoxGrid:
    """Return every slice of an image of ``shape``, one voxel thick along ``axis``."""
    starts: list[tuple[int, ...]] = [(0,), (0,), (0,)]
    edges = list(shape)
    starts[axis], edges[axis] = tuple(range(shape[axis])), 1
    return BoxGrid((starts[0], starts[1], starts[2]), (edges[0], edges[1], edges[2]), axis)


def patch_grid(shape: Shape3, patch: Shape3, step: float = 0.5) -> BoxGrid:
    """Return patches (sizes in voxels) that cover an image evenly, neighbours at most ``step`` of the patch apart.

    Along an axis where the patch is larger than the image, it has the size of the image.
    """
    a, b, c = (min(size, edge) for size, edge in zip(shape, patch, strict=True))
    d, e, f = (
        tuple(sorted({*window_positions(size, edge, step)})) for size, edge in zip(shape, (a, b, c), strict=True)
    )
    return BoxGrid((d, e, f), (a, b, c))


def box_sums(values: FloatArray, grid: BoxGrid, low: Shape3 = (0, 0, 0)) -> NDArray[np.float64]:
    """Return the sum of each map over each box.

    Parameters
    ----------
    values
        (M, *S) float: M maps on a part of the image; they count as 0 elsewhere.
    grid
        Boxes of the whole image.
    low
        First voxel (z, y, x) of the part.

    Returns
    -------
    (M, *n) float64, with ``n = grid.shape``. Computed by one matrix product per axis: overlap of boxes costs nothing.
    """
    sums: FloatArray = values
    for axis in (2, 1, 0):
        voxels = np.arange(low[axis], low[axis] + values.shape[axis + 1])
        first = np.asarray(grid.starts[axis])[:, None]
        inside = (voxels >= first) & (voxels < first + grid.edges[axis])  # (n, size)
        sums = np.moveaxis(np.tensordot(sums, inside.astype(sums.dtype), axes=(axis + 1, 1)), -1, axis + 1)
        sums = sums.astype(np.float64, copy=False)  # only now: the first product has made the array small
    return np.asarray(sums, dtype=np.float64)


def count_in_boxes(mask: BoolArray, grid: BoxGrid) -> NDArray[np.float64]:
    """Return the number of True voxels of ``mask`` (*S) bool in each box: (*n) float64, with ``n = grid.shape``."""
    total = np.zeros(grid.shape)
    for slab in slabs(mask.shape):
        total += box_sums(mask[None, slab].astype(np.float32), grid, (slab.start, 0, 0))[0]
    return total
