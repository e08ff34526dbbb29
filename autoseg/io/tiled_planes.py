"""Boxes put together from tiles: planes (y, x) of a volume, each cut into tiles that are decoded one by one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import product
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.boxes import Box, block_at
from autoseg.io.file_contents import Shape4

CACHE_BYTES = 128 << 20
"""Memory for the decoded tiles of one array. Neighbouring boxes share tiles, so without it each is decoded again."""


@dataclass
class TileCache:
    """Decoded tiles, the least recently used of which are dropped when all take more than ``limit`` bytes."""

    limit: int = CACHE_BYTES
    """Bytes. A tile that is larger is decoded each time that it is needed."""
    _tiles: OrderedDict[Hashable, NDArray[Any]] = field(default_factory=OrderedDict)
    _bytes: int = 0
    _lock: Lock = field(default_factory=Lock)

    def get(self, key: Hashable, decode: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the tile ``key``, which ``decode`` makes if it is not held. It must not be written to.

        Two threads may decode the same tile at the same time.
        """
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = decode()
        with self._lock:
            if key not in self._tiles and tile.nbytes <= self.limit:
                self._tiles[key] = tile
                self._bytes += tile.nbytes
            while self._bytes > self.limit:
                _, dropped = self._tiles.popitem(last=False)
                self._bytes -= dropped.nbytes
        return tile


@dataclass(frozen=True)
class TiledPlanes:
    """A volume whose planes are cut into tiles of equal size, the last of each row and column cut off at the border."""

    shape: Shape4
    """(C, z, y, x)."""
    tile: tuple[int, int]
    """Size (y, x) of a tile in voxels."""
    dtype: np.dtype[Any]
    decode: Callable[[int, int, int], NDArray[Any] | None]
    """Function of plane, row and column that returns a tile (C, h, w), at least as large as its part of the plane; None
    if it is missing."""

    def read(self, box: Box) -> NDArray[Any]:
        """Return (C, *box) of a box inside; 0 where tiles are missing."""
        array = np.zeros((self.shape[0], *box.shape), dtype=self.dtype)
        for index in self.indices(box):
            tile = self.decode(*index)
            if tile is None:
                continue
            part = self.part(index, box)
            (_, y, x), (height, width) = part.start, self.tile
            rows, columns = (slice(at % size, at % size + n) for at, size, n in zip(
                (y, x), (height, width), part.shape[1:], strict=True
            ))  # fmt: skip
            array[(slice(None), *part.relative_to(box).slices)] = tile[:, None, rows, columns]
        return array

    def indices(self, box: Box) -> Iterator[tuple[int, int, int]]:
        """Yield plane, row and column of each tile that a box, which is not empty, touches; columns fastest."""
        (z0, y0, x0), (z1, y1, x1), (height, width) = box.start, box.stop, self.tile
        rows, columns = range(y0 // height, -(-y1 // height)), range(x0 // width, -(-x1 // width))
        return product(range(z0, z1), rows, columns)

    def part(self, index: tuple[int, int, int], box: Box) -> Box:
        """Return the part of a box that lies in a tile."""
        _, z, y, x = self.shape
        return block_at(index, (z, y, x), (1, *self.tile)).intersection(box)
