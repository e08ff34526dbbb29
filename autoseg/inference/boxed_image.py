"""Preprocessed image that is read box by box, and its planes, of which memory holds those that windows need next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from autoseg.core.arrays import Float32Array, Shape3
from autoseg.core.boxes import Box, read_overhanging
from autoseg.core.pipelined import background_thread, map_in_background

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """Image (C, z, y, x) on the grid of a plan, of which a region is predicted."""

    shape: Shape4
    """(C, z, y, x) of the whole image."""
    region: Box
    """Voxels whose logits are wanted, not empty, inside the image."""
    read: Callable[[Box], Float32Array]
    """Function that returns (C, *box) float32 of a box inside the image, which may be empty."""
    layer: int
    """Planes along z that are read at once: those between two multiples of this number."""


class RollingPlanes:
    """Planes of an image that is read box by box, from which windows are cut in the order of their first plane.

    Memory holds the planes that a window and the next ones reach into, within the y and x that any window reaches, and
    one layer more, which a thread reads meanwhile. Beyond the image, where a patch is larger than it, voxels are 0.
    """

    def __init__(self, image: BoxedImage, corners: Sequence[Shape3], patch: Shape3, offset: Shape3) -> None:
        """Prepare for windows of shape ``patch`` with the first voxels ``corners``, which count from ``-offset``."""
        self._image, self._patch = image, patch
        ends = [(min(axis), max(axis)) for axis in zip(*corners, strict=True)]
        low, high = ([end[side] - shift for end, shift in zip(ends, offset, strict=True)] for side in (0, 1))
        self._start: Shape3 = (low[0], low[1], low[2])
        self._box = Box(self._start, (high[0] + patch[0], high[1] + patch[1], high[2] + patch[2]))
        self._offset = offset
        self._planes = torch.empty((image.shape[0], 0, *self._box.shape[1:]))
        self._first = self._box.start[0]
        self._layers = self._read_layers()

    def cut(self, corner: Shape3) -> Tensor:
        """Return a view of the window (C, *patch) whose first voxel is ``corner``; no earlier plane is wanted later."""
        z, y, x = (at - shift - low for at, shift, low in zip(corner, self._offset, (0, *self._start[1:]), strict=True))
        depth, height, width = self._patch
        if z + depth > self._first + self._planes.shape[1]:
            self._advance(z, z + depth)
        first = z - self._first
        return self._planes[:, first : first + depth, y : y + height, x : x + width]

    def _advance(self, first: int, stop: int) -> None:
        """Read planes up to ``stop``, and forget those before ``first``.

        They get new memory, because windows that wait for a batch are views of the old.
        """
        pieces = [self._planes[:, first - self._first :]]
        end = self._first + self._planes.shape[1]
        while end < stop:
            pieces.append(torch.from_numpy(next(self._layers)))
            end += pieces[-1].shape[1]
        self._planes, self._first = torch.cat(pieces, dim=1), min(first, end)

    def _read_layers(self) -> Iterator[Float32Array]:
        """Yield the layers (C, planes, y, x) in order; while one is used, a thread reads the next."""
        with background_thread() as reader:
            yield from map_in_background(reader, self._read, self._layer_boxes())

    def _read(self, box: Box) -> Float32Array:
        whole: Shape3 = (self._image.shape[1], self._image.shape[2], self._image.shape[3])
        layer: Float32Array = read_overhanging(self._image.read, whole, box, outside=0.0)
        return layer

    def _layer_boxes(self) -> Iterator[Box]:
        """Yield the box of each layer; the first and the last also hold what lies beyond the image."""
        (z0, y0, x0), (z1, y1, x1) = self._box.start, self._box.stop
        length, n_planes = self._image.layer, self._image.shape[1]
        inner = range((max(z0, 0) // length + 1) * length, min(z1, n_planes), length)
        edges = [z0, *inner, z1]
        yield from (Box((low, y0, x0), (high, y1, x1)) for low, high in pairwise(edges))
