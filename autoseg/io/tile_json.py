"""Tile data sets: a JSON file that describes a volume as pictures, one a section or many tiles a section.

The keys are those of PyTorch Connectomics: ``image`` (one path a section, in which ``{row}`` and ``{column}`` stand for
the tile), ``depth``, ``height``, ``width``, ``tile_size``, ``tile_st`` (added to row and column in names of files),
``tile_ratio`` (factor by which each tile is resized) and ``dtype`` (of labels). ``height``, ``width`` and ``tile_size``
count voxels after resizing.
Source: PyTorch Connectomics 1.0 ``data/dataset/dataset_tile.py``. Differs in that a missing tile is unknown instead of
grey, a tile of a wrong size is an error, and resizing keeps the outer edges of a tile where they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator
from scipy import ndimage

from autoseg.core.boxes import Box
from autoseg.core.errors import FileFormatError
from autoseg.core.findings import counted, listed
from autoseg.core.geometry import Geometry
from autoseg.io.file_contents import StoredHeader, assumed_geometry, check_file, unreadable
from autoseg.io.file_formats import read_file
from autoseg.io.stored_array import StoredArray
from autoseg.io.tiled_planes import TileCache, TiledPlanes

ROW, COLUMN = "{row}", "{column}"
RGB_WEIGHTS = (1 << 16, 1 << 8, 1)
"""Labels in a colour picture are red * 65536 + green * 256 + blue."""


class TileVolume(BaseModel):
    """Content of a tile JSON; keys that are not listed (``ndim``) are descriptions and are not used."""

    model_config = ConfigDict(frozen=True)

    image: tuple[str, ...]
    """Path of each section, relative to the folder of the JSON file."""
    depth: PositiveInt
    height: PositiveInt
    width: PositiveInt
    tile_size: PositiveInt | tuple[PositiveInt, PositiveInt]
    """Edge of a tile, or height and width, in voxels after resizing."""
    tile_st: tuple[int, int] = (0, 0)
    """Row and column in the name of the first tile."""
    tile_ratio: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    dtype: Literal["uint8", "uint16", "uint32", "uint64"] | None = None
    """Type of labels; None takes that of the tiles. Images always have the type of their tiles."""
    n_rows: PositiveInt | None = None
    n_columns: PositiveInt | None = None
    spacing: tuple[float, float, float] | None = None
    """Voxel size (z, y, x) in mm, after resizing; None if it is not known. An addition of autoseg."""

    @model_validator(mode="after")
    def _agrees(self) -> TileVolume:
        faults = []
        if len(self.image) != self.depth:
            faults.append(
                f"image has {counted(len(self.image), 'path')}, but depth is {self.depth} (one path a section)"
            )
        halves = [path for path in self.image if (ROW in path) != (COLUMN in path)]
        if halves:
            faults.append(f"image has the path {halves[0]!r}, with only one of {ROW} and {COLUMN}")
        if self.spacing is not None and not all(math.isfinite(edge) and edge > 0 for edge in self.spacing):
            faults.append(f"spacing is {self.spacing}, but must be three numbers above 0, in mm")
        grid = tuple(-(-edge // size) for edge, size in zip((self.height, self.width), self.tile, strict=True))
        for name, stated, follows in (("n_rows", self.n_rows, grid[0]), ("n_columns", self.n_columns, grid[1])):
            if stated not in (None, follows):
                faults.append(f"{name} is {stated}, but height, width and tile_size give {follows}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of a tile in voxels after resizing."""
        return self.tile_size if isinstance(self.tile_size, tuple) else (self.tile_size, self.tile_size)


def describes_tiles(path: Path) -> bool:
    """Whether a JSON file describes a volume as tiles, right or wrong; False for any other file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"image", "depth"} <= content.keys()


class _Format(NamedTuple):
    """Facts about the tiles of a volume, known from the first that exists."""

    n_channels: int
    dtype: np.dtype[Any]
    is_whole_section: bool
    """Whether the file of a section holds all of it, although ``tile_size`` is smaller."""


@dataclass(frozen=True)
class _Tiles:
    """Tiles of a volume: their paths, and the way to decode them."""

    where: Path
    volume: TileVolume
    as_labels: bool
    cache: TileCache

    def name(self, z: int, row: int, column: int) -> str:
        """Return the path of a tile, which may not exist, as it counts from the folder of the JSON file."""
        first_row, first_column = self.volume.tile_st
        return self.volume.image[z].replace(ROW, str(row + first_row)).replace(COLUMN, str(column + first_column))

    def path(self, z: int, row: int, column: int) -> Path:
        """Return the path of a tile, which may not exist."""
        return self.where.parent / self.name(z, row, column)

    def stored(self, path: Path) -> NDArray[Any]:
        """Return the tile of a file as it is stored, (C, h, w); of labels, the numbers that colours stand for."""
        array = read_file(path, as_labels=self.as_labels).array
        if array.shape[1] != 1:
            raise unreadable(path, f"{array.shape[1]} slices", "a tile of one slice", "Save each section on its own.")
        return _numbers(path, array[:, 0]) if self.as_labels else array[:, 0]

    def decoded(self, size: tuple[int, int], form: _Format, index: tuple[int, int, int]) -> NDArray[Any] | None:
        """Return a tile (C, h, w) of ``size``, or larger if the file has voxels beyond the border; None if missing."""
        path = self.path(*index)
        rest = (self.volume.height - index[1] * size[0], self.volume.width - index[2] * size[1])
        needed = (min(size[0], rest[0]), min(size[1], rest[1]))
        if not path.is_file():
            return None
        return self.cache.get((path, needed), lambda: self._made(path, size, needed, form))

    def _made(self, path: Path, size: tuple[int, int], needed: tuple[int, int], form: _Format) -> NDArray[Any]:
        tile = self.stored(path)
        if len(tile) != form.n_channels or (not self.as_labels and tile.dtype != form.dtype):
            raise unreadable(
                path,
                f"{counted(len(tile), 'channel')} of {tile.dtype}",
                f"{form.n_channels} of {form.dtype}, as in the first tile",
                "Save all tiles in one form.",
            )
        tile = _resized(path, tile, self.volume.tile_ratio, size, needed, order=0 if self.as_labels else 1)
        return self._labels(path, tile, form.dtype) if self.as_labels else tile

    def _labels(self, path: Path, tile: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return labels as ``dtype``. Raise ``FileFormatError`` for a label that it cannot hold."""
        bounds = np.iinfo(dtype)
        wrong = [int(value) for value in (tile.max(), tile.min()) if not bounds.min <= int(value) <= bounds.max]
        if wrong:
            fix = f'Write another "dtype" into {self.where.name}.'
            raise unreadable(path, f"the label {wrong[0]}", f"{bounds.min} to {bounds.max} ({dtype})", fix)
        return tile.astype(dtype, copy=False)


def open_tiles(path: Path, *, as_labels: bool = False) -> StoredArray:
    """Return the volume that a tile JSON describes. One tile is decoded; whether the others exist is not looked up.

    With ``as_labels``, colours stand for numbers, and tiles are resized without interpolation.

    Raises
    ------
    FileFormatError
        If the file is no valid tile JSON (all faults are named), or if there is none of its tiles. Reading a box
        raises it if a tile is damaged or has a size other than ``tile_size``.
    """
    volume = _volume(path)
    tiles = _Tiles(path, volume, as_labels, TileCache())
    form = _format(tiles)
    size = (volume.height, volume.width) if form.is_whole_section else volume.tile
    shape = (form.n_channels, volume.depth, volume.height, volume.width)

    def decode(*index: int) -> NDArray[Any] | None:
        return tiles.decoded(size, form, (index[0], index[1], index[2]))

    planes = TiledPlanes(shape, size, form.dtype, decode)
    geometry = Geometry(spacing=volume.spacing) if volume.spacing else assumed_geometry(2 if volume.depth == 1 else 3)
    return StoredArray(
        location=str(path),
        header=StoredHeader(shape, geometry),
        dtype=form.dtype,
        chunk=(1, *size),
        load=planes.read,
        find_missing=partial(_missing, tiles, planes),
    )


def missing_tiles(path: Path) -> tuple[Path, ...]:
    """Return the paths of all tiles that a tile JSON names and that do not exist, each once, in the order of sections.

    Raises ``FileFormatError`` if the file is no valid tile JSON.
    """
    return tuple(name for name in tile_files(path) if not name.is_file())


def tile_files(path: Path) -> tuple[Path, ...]:
    """Return the paths of all tiles that a tile JSON names, whether they exist or not, each once.

    Raises ``FileFormatError`` if the file is no valid tile JSON.
    """
    return tuple(dict.fromkeys(_paths(_Tiles(path, _volume(path), False, TileCache()))))


def tile_folders(path: Path) -> tuple[Path, ...]:
    """Return the existing folders of tiles, each once, without that of the tile JSON, which holds other files, too.

    Raises ``FileFormatError`` if the file is no valid tile JSON.
    """
    tiles = _Tiles(path, _volume(path), False, TileCache())
    size = zip((tiles.volume.height, tiles.volume.width), tiles.volume.tile, strict=True)
    n_rows, n_columns = (-(-edge // length) for edge, length in size)
    found: dict[Path, None] = {}
    for z, section in enumerate(tiles.volume.image):
        folder = section.rpartition("/")[0]
        rows, columns = n_rows if ROW in folder else 1, n_columns if COLUMN in folder else 1
        found.update(dict.fromkeys(tiles.path(z, *index).parent for index in product(range(rows), range(columns))))
    return tuple(folder for folder in found if folder != path.parent and folder.is_dir())


def _volume(path: Path) -> TileVolume:
    check_file(path)
    fix = 'See docs/volumes.md: {"image": [...], "depth": 2, "height": 64, "width": 64, "tile_size": 32}.'
    try:
        return TileVolume.model_validate_json(path.read_bytes())
    except ValidationError as error:
        messages: dict[str, str] = {}
        for item in error.errors():
            key = str(item["loc"][0]) if item["loc"] else ""
            messages.setdefault(key, f"{key}: {item['msg']}".removeprefix(": ").removeprefix("Value error, "))
        raise unreadable(path, "; ".join(messages.values()), "a tile JSON without faults", fix) from error


def _paths(tiles: _Tiles) -> Iterator[Path]:
    volume = tiles.volume
    n_rows, n_columns = (
        -(-edge // size) for edge, size in zip((volume.height, volume.width), volume.tile, strict=True)
    )
    for index in product(range(volume.depth), range(n_rows), range(n_columns)):
        yield tiles.path(*index)


def _format(tiles: _Tiles) -> _Format:
    """Return what the first tile that exists says about all. Raise ``FileFormatError`` if none exists."""
    volume = tiles.volume
    path = next((name for name in _paths(tiles) if name.is_file()), None)
    if path is None:
        raise _no_tiles(tiles)
    tile = tiles.stored(path)
    dtype = np.dtype(volume.dtype) if tiles.as_labels and volume.dtype else tile.dtype
    resized = _resized_shape(tile.shape[1:], volume.tile_ratio)
    is_section = _agree(resized, (volume.height, volume.width), volume.tile_ratio)
    is_whole = ROW not in volume.image[0] and is_section and not _agree(resized, volume.tile, volume.tile_ratio)
    return _Format(len(tile), dtype, is_whole)


def _no_tiles(tiles: _Tiles) -> FileFormatError:
    first = tiles.path(0, 0, 0)
    others = sorted(item.name for item in first.parent.iterdir()) if first.parent.is_dir() else None
    found = f"no tile; the folder {first.parent} " + (
        "does not exist" if others is None else f"holds {listed(others, 3)}"
    )
    fix = "Correct the paths in image (they count from the folder of the JSON file), or tile_st."
    return unreadable(tiles.where, found, f"tiles such as {first.name} there", fix)


def _missing(tiles: _Tiles, planes: TiledPlanes, box: Box) -> tuple[Box, ...]:
    if not box.n_voxels:
        return ()
    exists: dict[str, bool] = {}  # by name, since half a million paths take much longer to make and compare
    gaps = []
    for index in planes.indices(box):
        name = tiles.name(*index)
        if name not in exists:
            exists[name] = (tiles.where.parent / name).is_file()
        if not exists[name]:
            gaps.append(planes.part(index, box))
    return tuple(gaps)


def _numbers(path: Path, tile: NDArray[Any]) -> NDArray[Any]:
    """Return the labels (1, h, w) of a tile (C, h, w): one channel as it is, red, green and blue as one number."""
    if len(tile) == 1 and tile.dtype.kind in "ui":
        return tile
    if len(tile) != 3 or tile.dtype != np.uint8:
        fix = "Save integers in a grey picture, or numbers as 8-bit colours (red * 65536 + green * 256 + blue)."
        raise unreadable(path, f"{counted(len(tile), 'channel')} of {tile.dtype}", "labels", fix)
    weights = np.array(RGB_WEIGHTS, dtype=np.uint32)[:, None, None]
    numbers: NDArray[Any] = (tile * weights).sum(axis=0, dtype=np.uint32, keepdims=True)
    return numbers


def _resized_shape(shape: tuple[int, ...], ratio: float) -> tuple[int, int]:
    return (max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio)))


def _agree(one: tuple[int, int], other: tuple[int, int], ratio: float) -> bool:
    """Whether two sizes are equal; if tiles are resized, up to one voxel of rounding."""
    return all(abs(a - b) <= (ratio != 1) for a, b in zip(one, other, strict=True))


def _resized(
    path: Path, tile: NDArray[Any], ratio: float, size: tuple[int, int], needed: tuple[int, int], *, order: int
) -> NDArray[Any]:
    """Return a tile (C, h, w) resized by ``ratio``: to ``needed``, or to a full ``size`` of which the rest is unused.

    Raises ``FileFormatError`` if it is neither.
    """
    found = _resized_shape(tile.shape[1:], ratio)
    target = []
    for edge, part, full in zip(found, needed, size, strict=True):
        slack = int(ratio != 1)
        fits = [length for length in (part, full) if abs(edge - length) <= slack]
        if not fits:
            resized = f", {found[0]} x {found[1]} after resizing by {ratio:g}" if ratio != 1 else ""
            expected = f"{needed[0]} x {needed[1]}" + ("" if needed == size else f" or {size[0]} x {size[1]}")
            fix = "Correct tile_size, tile_ratio, height or width in the JSON file, or the tile."
            raise unreadable(path, f"a tile of {tile.shape[1]} x {tile.shape[2]} pixels{resized}", expected, fix)
        target.append(min(fits, key=lambda length: abs(edge - length)))
    if tuple(target) == tile.shape[1:]:
        return tile
    zoom = (1.0, target[0] / tile.shape[1], target[1] / tile.shape[2])
    values = tile if order == 0 or tile.dtype.kind == "f" else tile.astype(np.float32)
    zoomed = ndimage.zoom(values, zoom, order=order, mode="nearest", grid_mode=True)
    if tile.dtype.kind in "ui" and order:
        zoomed = np.rint(zoomed)
    result: NDArray[Any] = zoomed.astype(tile.dtype, copy=False)
    return result
