"""Parts of a volume that are predicted one after the other, or by several processes: whole shards of the output.

A part belongs to one process: a box of whole shards that depends on the number of parts alone, so that processes agree
on it without knowing of each other's memory. Within a part, columns are as wide as the memory of the process allows,
and are predicted as a stream of planes. Windows are those of the whole volume, so no result depends on either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box, block_at, blocks, n_blocks
from autoseg.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Part:
    """One of several parts of a prediction: number ``index`` of ``count``, from 1."""

    index: int = 1
    count: int = 1

    def __repr__(self) -> str:
        return f"part {self.index} of {self.count}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """Return the part that ``i/n`` names. Raises ``ConfigError`` unless 1 <= i <= n."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        index, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= index <= count:
            raise ConfigError(f"--part: found {text!r}, expected i/n with 1 <= i <= n. Write --part 1/4, for example.")
        return cls(index, count)


@dataclass(frozen=True, slots=True)
class Unit:
    """Part of a volume that is predicted in one stream of planes: a column, or a piece of one."""

    box: Box
    """Voxels of the file, whole shards."""
    layers: tuple[Box, ...]
    """The parts of the box that are written at once, in the order in which planes arrive; each is one shard thick."""


def box_of_part(shape: Shape3, shard: Shape3, patch: Shape3, part: Part) -> Box:
    """Return the voxels of a part of a volume, whole shards; an empty box if there are more parts than shards.

    The parts of a volume are halved again and again, each time along the axis with the most windows, so that they are
    compact and few windows reach into two of them. Together they hold every voxel once.

    Parameters
    ----------
    shape, shard
        Of the volume and of its shards, (z, y, x) in voxels.
    patch
        Shape of a window in voxels of the volume.
    part
        Which of how many.
    """
    grid = Box.whole(n_blocks(shape, shard))
    index, count = part.index - 1, min(part.count, grid.n_voxels)
    if index >= count:
        return Box((0, 0, 0), (0, 0, 0))
    while count > 1:
        lower, upper, n_lower = _halves(grid, [a / b for a, b in zip(shard, patch, strict=True)], count)
        is_lower = index < n_lower
        grid, index, count = (lower, index, n_lower) if is_lower else (upper, index - n_lower, count - n_lower)
    z, y, x = (edge - 1 for edge in grid.stop)
    return Box(block_at(grid.start, shape, shard).start, block_at((z, y, x), shape, shard).stop)


def columns(box: Box, shard: Shape3, along: int, patch: Shape3, fits: Callable[[Shape3], bool]) -> list[Box]:
    """Return columns along an axis that tile a box of whole shards, as few as fit.

    Parameters
    ----------
    box
        Voxels, whole shards.
    shard
        Voxels (z, y, x) of a shard.
    along
        Axis of the columns.
    patch
        Shape of a window in voxels of the volume. The axis along which a column has more windows is halved first.
    fits
        Whether a column of a shape fits into the memory. If not even a column of one shard does, that is what is
        returned.
    """
    counts = [1, 1, 1]
    while True:
        size = _column(box, shard, along, counts)
        rooms = {axis: size[axis] / patch[axis] for axis in range(3) if axis != along and size[axis] > shard[axis]}
        if fits(size) or not rooms:
            break
        counts[max(rooms, key=lambda axis: rooms[axis])] += 1
    local = Box.whole(box.shape)
    return [part.shifted(box.start) for part in blocks(local, size)]


def units(
    columns_: Sequence[Box], shard: Shape3, along: int, *, is_reversed: bool, is_done: Callable[[Box], bool]
) -> list[Unit]:
    """Return what is still to be predicted of columns: each stretch of layers that are not done.

    Parameters
    ----------
    columns_
        Boxes of whole shards.
    shard
        Voxels (z, y, x) of a shard.
    along
        Axis of the columns.
    is_reversed
        Whether planes arrive from the end of the axis.
    is_done
        Whether a shard has been written.
    """
    found = []
    for column in columns_:
        layer: Shape3 = tuple(shard[axis] if axis == along else column.stop[axis] for axis in range(3))  # type: ignore[assignment]
        layers = list(blocks(column, layer))
        pending = [not all(map(is_done, blocks(item, shard))) for item in layers]
        for is_pending, group in groupby(zip(pending, layers, strict=True), key=lambda pair: pair[0]):
            if is_pending:
                stretch = [item for _, item in group]
                ordered = tuple(reversed(stretch)) if is_reversed else tuple(stretch)
                found.append(Unit(Box(stretch[0].start, stretch[-1].stop), ordered))
    return found


def _halves(grid: Box, windows: Sequence[float], count: int) -> tuple[Box, Box, int]:
    """Return two halves of a box of shards, and how many of ``count`` parts the first is for.

    ``windows`` is the number of windows in a shard along each axis.
    """
    edges = grid.shape
    axis = max((axis for axis in range(3) if edges[axis] > 1), key=lambda axis: edges[axis] * windows[axis])
    n_lower = count // 2
    section = grid.n_voxels // edges[axis]
    cut = min(max(1, round(edges[axis] * n_lower / count)), edges[axis] - 1)
    n_lower = min(max(n_lower, count - (edges[axis] - cut) * section, 1), cut * section, count - 1)
    starts, stops = list(grid.start), list(grid.stop)
    starts[axis] = stops[axis] = grid.start[axis] + cut
    lower = Box(grid.start, (stops[0], stops[1], stops[2]))
    return lower, Box((starts[0], starts[1], starts[2]), grid.stop), n_lower


def _column(box: Box, shard: Shape3, along: int, counts: Sequence[int]) -> Shape3:
    """Return the shape of columns, whole shards, if an axis of a box is divided into ``counts``."""
    edges = []
    for axis, (edge, length, count) in enumerate(zip(box.shape, shard, counts, strict=True)):
        n_shards = math.ceil(edge / length)
        edges.append(edge if axis == along else min(edge, math.ceil(n_shards / count) * length))
    return (edges[0], edges[1], edges[2])
