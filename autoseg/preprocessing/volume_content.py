"""Box of the voxels of a volume that are not 0, found by reading its border alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autoseg.core.boxes import Box, blocks
from autoseg.io.stored_array import StoredArray
from autoseg.preprocessing.crop import any_nonzero

_BLOCK = 256
"""Largest edge of a block that is read at once."""


def content_of(volume: StoredArray) -> Box:
    """Return the box of all voxels that are not 0 in at least one channel; the whole volume if there are none.

    Layers of chunks are read from each side inwards until one holds such a voxel, so that of a volume without an empty
    border hardly anything is read. It equals :func:`autoseg.preprocessing.crop.content_box`.
    """
    box = Box.whole(volume.spatial_shape)
    for axis in range(3):
        start = _outermost(volume, box, axis, from_end=False)
        if start is None:
            return box
        stop = _outermost(volume, box, axis, from_end=True)
        box = _with_span(box, axis, start, box.stop[axis] if stop is None else stop + 1)
    return box


def _outermost(volume: StoredArray, box: Box, axis: int, *, from_end: bool) -> int | None:
    """Return the index along an axis of the first voxel within a box that is not 0, or of the last; None without."""
    for layer in _layers(volume, box, axis, from_end=from_end):
        best: int | None = None
        edge = layer.stop[axis] - 1 if from_end else layer.start[axis]
        for block in _blocks(volume, layer):
            mask = any_nonzero(volume.read(block))
            used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
            if used.size:
                found = block.start[axis] + int(used[-1 if from_end else 0])
                best = found if best is None else (max if from_end else min)(best, found)
            if best == edge:
                break
        if best is not None:
            return best
    return None


def _layers(volume: StoredArray, box: Box, axis: int, *, from_end: bool) -> Iterator[Box]:
    """Yield the parts of a box in each layer of chunks along an axis, from its start or from its end."""
    start, stop = box.start[axis], box.stop[axis]
    length = min(volume.chunk[axis], _BLOCK)
    firsts = range(start // length * length, stop, length)
    for first in reversed(firsts) if from_end else firsts:
        yield _with_span(box, axis, max(first, start), min(first + length, stop))


def _blocks(volume: StoredArray, layer: Box) -> Iterator[Box]:
    z, y, x = (max(1, _BLOCK // edge) * edge if edge < _BLOCK else _BLOCK for edge in volume.chunk)
    return blocks(layer, (z, y, x))


def _with_span(box: Box, axis: int, start: int, stop: int) -> Box:
    starts, stops = list(box.start), list(box.stop)
    starts[axis], stops[axis] = start, stop
    return Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2]))
