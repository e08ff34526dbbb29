"""Boxes of voxels, blocks that tile a volume, and the reading of boxes that overhang an array."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Shape3

Slices = tuple[slice, slice, slice]
Spans = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and one past the last, of each axis z, y, x, as JSON files hold a box."""


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Voxels from ``start`` (included) to ``stop`` (excluded), each (z, y, x).

    A box may overhang the array that it belongs to, on either side; coordinates may then be negative. It is empty if
    ``start`` equals ``stop`` on an axis.
    """

    start: Shape3
    stop: Shape3

    def __post_init__(self) -> None:
        if any(stop < start for start, stop in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"box from {self.start} to {self.stop}: the end lies before the start")

    @classmethod
    def whole(cls, shape: Shape3) -> Box:
        """Return the box of all voxels of an array of ``shape`` (z, y, x)."""
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> Shape3:
        """Edge lengths (z, y, x) in voxels."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return (z1 - z0, y1 - y0, x1 - x0)

    @property
    def spans(self) -> Spans:
        """First voxel and one past the last, of each axis."""
        z, y, x = zip(self.start, self.stop, strict=True)
        return (z, y, x)

    @property
    def n_voxels(self) -> int:
        """Number of voxels; 0 if the box is empty."""
        return math.prod(self.shape)

    @property
    def slices(self) -> Slices:
        """Index of the box for NumPy. Raises ``ValueError`` if a coordinate is negative, as NumPy counts from the end.

        A box that overhangs the far side gives a smaller array.
        """
        if min(self.start) < 0:
            raise ValueError(f"box from {self.start} to {self.stop}: a negative coordinate is no index")
        z, y, x = (slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))
        return (z, y, x)

    def is_within(self, shape: Shape3) -> bool:
        """Whether every voxel lies inside an array of ``shape`` (z, y, x)."""
        return min(self.start) >= 0 and all(stop <= edge for stop, edge in zip(self.stop, shape, strict=True))

    def shifted(self, offset: Shape3) -> Box:
        """Return the box moved by ``offset`` (z, y, x), which may be negative."""
        return Box(_plus(self.start, offset), _plus(self.stop, offset))

    def relative_to(self, other: Box) -> Box:
        """Return the box in the coordinates of an array that starts where ``other`` starts."""
        z, y, x = other.start
        return self.shifted((-z, -y, -x))

    def grown(self, margin: Shape3) -> Box:
        """Return the box with ``margin`` (z, y, x) voxels, at least 0, added on both sides."""
        z, y, x = margin
        return Box(_plus(self.start, (-z, -y, -x)), _plus(self.stop, margin))

    def intersection(self, other: Box) -> Box:
        """Return the voxels of both boxes; an empty box if there are none."""
        z0, y0, x0 = (max(pair) for pair in zip(self.start, other.start, strict=True))
        z1, y1, x1 = (min(pair) for pair in zip(self.stop, other.stop, strict=True))
        return Box((z0, y0, x0), (max(z0, z1), max(y0, y1), max(x0, x1)))

    def __str__(self) -> str:
        spans = (f"{start}:{stop}" for start, stop in zip(self.start, self.stop, strict=True))
        return f"[{', '.join(spans)}]"


def box_of(spans: Spans) -> Box:
    """Return the box whose :attr:`Box.spans` are given. Raises ``ValueError`` if one ends before it starts."""
    (z0, z1), (y0, y1), (x0, x1) = spans
    return Box((z0, y0, x0), (z1, y1, x1))


def _plus(point: Shape3, offset: Shape3) -> Shape3:
    z, y, x = (one + other for one, other in zip(point, offset, strict=True))
    return (z, y, x)


def n_blocks(shape: Shape3, size: Shape3) -> Shape3:
    """Return the number of blocks of ``size`` along each axis of an array of ``shape``, both (z, y, x)."""
    z, y, x = (-(-edge // length) for edge, length in zip(shape, size, strict=True))
    return (z, y, x)


def block_at(index: Shape3, shape: Shape3, size: Shape3) -> Box:
    """Return the block with the ``index`` (z, y, x) in the grid of blocks, cut off at the end of the array."""
    z, y, x = (number * length for number, length in zip(index, size, strict=True))
    return Box((z, y, x), _plus((z, y, x), size)).intersection(Box.whole(shape))


def blocks(inside: Box, size: Shape3) -> Iterator[Box]:
    """Yield the parts of ``inside`` that lie in each block of a grid, x fastest.

    The grid starts at voxel 0 of the array, with blocks of ``size`` (z, y, x). Every voxel lies in exactly one part.
    An empty box yields nothing.
    """
    ranges = (
        range(start // length, -(-stop // length) if stop > start else start // length)
        for start, stop, length in zip(inside.start, inside.stop, size, strict=True)
    )
    for index in product(*ranges):
        z, y, x = (number * length for number, length in zip(index, size, strict=True))
        yield Box((z, y, x), _plus((z, y, x), size)).intersection(inside)


def read_overhanging(
    read: Callable[[Box], NDArray[Any]], shape: Shape3, box: Box, *, outside: Literal["reflect"] | float = "reflect"
) -> NDArray[Any]:
    """Return a box that may overhang an array on any side, or lie outside it.

    Parameters
    ----------
    read
        Function that returns a box within the array, (..., *box).
    shape
        Shape (z, y, x) of the array; no axis may be empty.
    box
        Box in voxels of the array; coordinates may be negative or beyond its end, however far.
    outside
        "reflect" mirrors the array at its first and last voxel, which are not repeated, as ``numpy.pad`` with
        ``mode="reflect"`` does. A number is the value of every voxel outside.

    Returns
    -------
    array
        (..., *box). A single box is read, the smallest that holds every voxel that is needed.

    Notes
    -----
    Source: PyTorch Connectomics, whose tile data sets take negative coordinates and reflect.
    """
    if not isinstance(outside, str):
        return _filled(read, shape, box, outside)
    if not box.n_voxels:
        return _filled(read, shape, box, 0)
    indices = [_reflected(*axis) for axis in zip(box.start, box.stop, shape, strict=True)]
    z0, y0, x0 = (int(index.min()) for index in indices)
    z1, y1, x1 = (int(index.max()) + 1 for index in indices)
    array = read(Box((z0, y0, x0), (z1, y1, x1)))
    for axis, (index, start) in enumerate(zip(indices, (z0, y0, x0), strict=True)):
        if len(index) != array.shape[axis - 3] or (np.diff(index) != 1).any():
            array = np.take(array, index - start, axis=axis - 3)
    return array


def _filled(read: Callable[[Box], NDArray[Any]], shape: Shape3, box: Box, value: float) -> NDArray[Any]:
    """Return the box with ``value`` outside of the array."""
    there = box.intersection(Box.whole(shape))
    if not there.n_voxels:
        there = Box((0, 0, 0), (0, 0, 0))
    inner = read(there)
    array = np.full((*inner.shape[:-3], *box.shape), value, dtype=inner.dtype)
    if there.n_voxels:
        array[(..., *there.relative_to(box).slices)] = inner
    return array


def _reflected(start: int, stop: int, n: int) -> NDArray[np.int64]:
    """Return the index within 0 to n - 1 that each coordinate from ``start`` to ``stop`` is mirrored to."""
    if n == 1:
        return np.zeros(stop - start, dtype=np.int64)
    position = np.arange(start, stop) % (2 * n - 2)
    return np.minimum(position, 2 * n - 2 - position)
