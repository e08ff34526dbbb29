"""Writing of large volumes: Zarr 3, sharded, with OME-Zarr 0.5 metadata and a pyramid, shard by shard.

A shard is one file. It is written whole, by one process, and then marked as done, so that a killed run goes on with the
shards that have no mark, and processes that write different shards need not know of each other.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from autoseg.core.arrays import Shape3
from autoseg.core.atomic import lacks_room, no_room, write_json, write_text
from autoseg.core.boxes import Box, block_at, blocks
from autoseg.core.components import optional
from autoseg.core.errors import FileFormatError
from autoseg.core.geometry import ASSUMED, Geometry
from autoseg.io.chunked import open_chunked
from autoseg.io.downsampling import Reduction, downsampled, halving
from autoseg.io.file_contents import Shape4, unreadable
from autoseg.io.ome_zarr import EXTRA, json_object
from autoseg.io.stored_array import StoredArray

DONE = ".done"
"""Folder of marks in the folder of each level. It belongs to the array, so that deleting this deletes the marks."""
COMPRESSION = {"name": "zstd", "configuration": {"level": 3}}
UNIT = "millimeter"


@dataclass(frozen=True, slots=True)
class _Level:
    shape: Shape4
    scale: Shape3
    """Voxels of the finest level per voxel, (z, y, x)."""
    factors: Shape3
    """Voxels of the next finer level per voxel."""

    @property
    def spatial_shape(self) -> Shape3:
        _, z, y, x = self.shape
        return (z, y, x)


@dataclass(frozen=True)
class ZarrWriter:
    """A volume (C, z, y, x) that is written shard by shard. Level 0 is the full resolution."""

    path: Path
    shard: Shape3
    """Voxels (z, y, x) of a shard, which holds all channels."""
    chunk: Shape3
    reduction: Reduction
    levels: tuple[_Level, ...]
    dtype: np.dtype[Any]
    _arrays: tuple[Any, ...]

    def shards(self, level: int = 0) -> Iterator[Box]:
        """Yield the box of every shard of a level, cut off at the end of the volume, x fastest."""
        return blocks(Box.whole(self.levels[level].spatial_shape), self.shard)

    def pending(self, level: int = 0) -> list[Box]:
        """Return the boxes of the shards of a level that are not done, in the order of :meth:`shards`."""
        return [box for box in self.shards(level) if not self.is_done(box, level)]

    def is_done(self, box: Box, level: int = 0) -> bool:
        """Whether the shard that starts where ``box`` starts has been written whole."""
        return self._mark(box, level).is_file()

    def write(self, box: Box, values: NDArray[Any], level: int = 0) -> None:
        """Write the values (C, *box) of one whole shard, and mark it as done when they are on disk.

        A process that is killed leaves the shard as it was before, without a mark. A shard that is done is replaced.

        Raises
        ------
        ValueError
            If ``box`` is not exactly one shard, or if shape or type of ``values`` differ from those of the volume.
        StorageError
            If there is no room.
        """
        z, y, x = (at // length for at, length in zip(box.start, self.shard, strict=True))
        expected = block_at((z, y, x), self.levels[level].spatial_shape, self.shard)
        if box != expected or not box.n_voxels:
            raise ValueError(f"{self.path}: box {box} to write, expected one whole shard, such as {expected}")
        if values.shape != (self.levels[level].shape[0], *box.shape) or values.dtype != self.dtype:
            found = f"values {values.shape} of {values.dtype}"
            raise ValueError(f"{self.path}: {found}, expected {(self.levels[level].shape[0], *box.shape)} {self.dtype}")
        mark = self._mark(box, level)
        mark.unlink(missing_ok=True)
        array = self._arrays[level]
        of_axis = dict(zip("czyx", (slice(None), *box.slices), strict=True))
        place = array[tuple(of_axis[name] for name in array.domain.labels)]
        try:
            place.write(values.reshape(place.shape)).result()
        except (ValueError, OSError) as error:
            reason = _system_error(error)
            if lacks_room(reason, self.path):
                raise no_room(self.path, reason) from error
            raise
        write_text(mark, "")

    def reduce(self, box: Box, level: int) -> None:
        """Make one shard of a coarser level from the next finer level, chunk by chunk, and write it.

        Every voxel of the level belongs to one shard and depends on the 8 or fewer voxels of its cell alone, so that
        neither the order of shards nor their number matters. Raises ``ValueError`` if a finer shard is not done.
        """
        finer, factors = self.levels[level - 1], self.levels[level].factors
        needed = _scaled(box, factors).intersection(Box.whole(finer.spatial_shape))
        lacking = [part for part in blocks(needed, self.shard) if not self.is_done(part, level - 1)]
        if lacking:
            raise ValueError(f"{self.path}: shard {lacking[0]} of level {level - 1} is not done; write it first")
        source = self.open(level - 1)
        values = np.empty((finer.shape[0], *box.shape), dtype=self.dtype)
        for part in blocks(box, self.chunk):
            fine = source.read(_scaled(part, factors).intersection(needed))
            values[(slice(None), *part.relative_to(box).slices)] = downsampled(fine, factors, self.reduction)
        self.write(box, values, level)

    def finish(self) -> None:
        """Write what is pending of the coarser levels. Raises ``ValueError`` if a shard of level 0 is not done."""
        lacking = self.pending()
        if lacking:
            raise ValueError(f"{self.path}: {len(lacking)} shards are not done, such as {lacking[0]}; write them first")
        for level in range(1, len(self.levels)):
            for box in self.pending(level):
                self.reduce(box, level)

    def open(self, level: int = 0) -> StoredArray:
        """Return a level for reading; shards that are not done are read as 0."""
        return open_chunked(self.path, str(level))

    def _mark(self, box: Box, level: int) -> Path:
        index = (str(at // length) for at, length in zip(box.start, self.shard, strict=True))
        return self.path / str(level) / DONE / ".".join(index)


def create_zarr(
    path: Path,
    shape: Shape4,
    dtype: DTypeLike,
    geometry: Geometry,
    *,
    chunk: Shape3,
    shard: Shape3,
    levels: int = 1,
    names: Sequence[str] = (),
    reduction: Reduction = "mean",
) -> ZarrWriter:
    """Create a volume, or go on with the same one that was begun earlier.

    Processes that write parts of one volume all call this with the same arguments.

    Parameters
    ----------
    path
        Folder of the group (``prediction.zarr``); its levels are ``0``, ``1``, ... in it.
    shape
        (C, z, y, x) of the full resolution. Of 2-D geometry, z is 1, and the array has no such axis.
    dtype
        Integers or floating point.
    geometry
        Spacing and origin; OME-Zarr cannot store directions of axes. An assumed spacing is written without a unit.
    chunk, shard
        Voxels (z, y, x): a chunk is what is compressed, and read, at once; a shard is one file, and must be a multiple
        of the chunk. Each holds one channel and all channels.
    levels
        Number of levels, at least 1. Axes are halved from one to the next (``autoseg.io.downsampling.halving``).
    names
        Name of each channel. () if the volume has no axis of channels; C is then 1.
    reduction
        Rule for coarser levels: ``mean`` for images; ``majority`` or ``nearest`` for labels, whose metadata also say
        that they are labels.

    Raises
    ------
    ValueError
        If the arguments contradict each other.
    FileFormatError
        If ``path`` holds something else. Nothing is overwritten.
    ConfigError
        If tensorstore or yaozarrs is not installed.
    """
    if min(*chunk, *shard, levels) < 1 or any(edge % length for edge, length in zip(shard, chunk, strict=True)):
        raise ValueError(
            f"shard {shard}, expected a multiple of the chunk {chunk}; levels {levels}, expected 1 or more"
        )
    if np.dtype(dtype).kind not in "iuf":
        raise ValueError(f"values of {np.dtype(dtype)}, expected integers or floating point")
    if len(names) != shape[0] and (names or shape[0] != 1):
        raise ValueError(f"{len(names)} names of channels, expected {shape[0]}")
    if geometry.ndim == 2 and shape[1] != 1:
        raise ValueError(f"shape {shape}, expected one slice, as the geometry is 2-D")
    made = _levels(shape, geometry, levels)
    axes = ("c" if names else "") + ("z" if geometry.ndim == 3 else "") + "yx"
    top = float(np.iinfo(dtype).max) if np.dtype(dtype).kind in "iu" else 1.0
    _create_group(path, _group_metadata(made, axes, geometry, names, top, reduction))
    arrays = tuple(
        _create_array(path / str(number), axes, level.shape, np.dtype(dtype), chunk, shard)
        for number, level in enumerate(made)
    )
    return ZarrWriter(path, shard, chunk, reduction, made, np.dtype(dtype), arrays)


def check_written(folder: Path) -> None:
    """Raise ``FileFormatError`` if a volume at ``folder`` was begun here, and has shards that are not done.

    They would be read as 0. Anything else passes: nothing tells whether others have finished a volume.
    """
    marks, file = folder / "0" / DONE, folder / "0" / "zarr.json"
    if not marks.is_dir() or not file.is_file():
        return
    metadata = json_object(file)
    shape, shard = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
    n_shards = math.prod(-(-edge // length) for edge, length in zip(shape, shard, strict=True))
    n_done = sum(not mark.name.startswith(".") for mark in marks.iterdir())
    if n_done < n_shards:
        found = f"a volume of which {n_done} of {n_shards} shards are written"
        raise unreadable(folder, found, "all of them", "Go on with the command that writes it, until it ends.")


def _levels(shape: Shape4, geometry: Geometry, n_levels: int) -> tuple[_Level, ...]:
    found = [_Level(shape, (1, 1, 1), (1, 1, 1))]
    for _ in range(n_levels - 1):
        last = found[-1]
        dz, dy, dx = (edge * scale for edge, scale in zip(geometry.spacing, last.scale, strict=True))
        factors = halving(last.spatial_shape, (dz, dy, dx))
        z, y, x = (-(-length // factor) for length, factor in zip(last.spatial_shape, factors, strict=True))
        scale = [one * other for one, other in zip(last.scale, factors, strict=True)]
        found.append(_Level((shape[0], z, y, x), (scale[0], scale[1], scale[2]), factors))
    return tuple(found)


def _scaled(box: Box, factors: Shape3) -> Box:
    """Return the box of the finer level that a box of the coarser level stands for; it may overhang by one voxel."""
    (z0, y0, x0), (z1, y1, x1), (z, y, x) = box.start, box.stop, factors
    return Box((z0 * z, y0 * y, x0 * x), (z1 * z, y1 * y, x1 * x))


def _group_metadata(
    levels: tuple[_Level, ...], axes: str, geometry: Geometry, names: Sequence[str], top: float, reduction: Reduction
) -> dict[str, Any]:
    """Return the content of the group's ``zarr.json``. ``top`` is the value that viewers show as white."""
    v05 = optional("yaozarrs.v05", EXTRA)
    is_known = geometry.metadata.get("spacing") != ASSUMED
    unit = {"unit": UNIT} if is_known else {}
    x, y, z = geometry.origin
    origin, spacing = (z, y, x), geometry.spacing if is_known else (1.0, 1.0, 1.0)
    datasets = []
    for number, level in enumerate(levels):
        n_leading = len(axes) - len(axes.lstrip("c"))
        scale = [edge * factor for edge, factor in zip(spacing, level.scale, strict=True)]
        # The centre of a coarse voxel lies between the centres of the first and last voxel that it stands for.
        shift = [at + edge * (k - 1) / 2 for at, edge, k in zip(origin, spacing, level.scale, strict=True)]
        n_spatial = len(axes) - n_leading
        datasets.append(
            v05.Dataset(
                path=str(number),
                coordinateTransformations=[
                    v05.ScaleTransformation(scale=[1.0] * n_leading + scale[-n_spatial:]),
                    v05.TranslationTransformation(translation=[0.0] * n_leading + shift[-n_spatial:]),
                ],
            )
        )
    multiscale = v05.Multiscale(
        axes=[v05.ChannelAxis(name="c") if name == "c" else v05.SpaceAxis(name=name, **unit) for name in axes],
        datasets=datasets,
        type=reduction,
    )
    window = {"start": 0, "min": 0, "end": top, "max": top}
    channels = [v05.OmeroChannel(label=name, color="FFFFFF", window=window) for name in names]
    omero = v05.Omero(channels=channels) if names else None
    if reduction == "mean":
        image = v05.Image(multiscales=[multiscale], omero=omero)
    else:
        image = v05.LabelImage(multiscales=[multiscale], omero=omero, image_label=v05.ImageLabel(version="0.5"))
    group = v05.OMEZarrGroupJSON(attributes=v05.OMEAttributes(ome=image))
    return dict(json.loads(group.model_dump_json(exclude_none=True)))


def _create_group(path: Path, metadata: dict[str, Any]) -> None:
    """Write the group's metadata if ``path`` is new. Raise ``FileFormatError`` if it holds something else."""
    if path.exists() and not path.is_dir():
        raise _other(path, "a file")
    file = path / "zarr.json"
    is_new = not path.is_dir() or all(item.name.startswith(".") for item in path.iterdir())
    if file.is_file():  # looked up last, since another process may begin the same volume, with this file first
        if json_object(file) != metadata:
            raise _other(path, "another volume")
        return
    if not is_new:
        raise _other(path, "a folder with other files")
    write_json(file, metadata)


def _create_array(path: Path, axes: str, shape: Shape4, dtype: np.dtype[Any], chunk: Shape3, shard: Shape3) -> Any:
    """Return tensorstore's handle of a level, which is created if it does not exist."""
    tensorstore = optional("tensorstore", EXTRA)
    order = ["czyx".index(letter) for letter in axes]
    inner = [{"name": "bytes", "configuration": {"endian": "little"}}, COMPRESSION]
    sharding = {"chunk_shape": [(1, *chunk)[axis] for axis in order], "codecs": inner}
    grid = {"chunk_shape": [(shape[0], *shard)[axis] for axis in order]}
    metadata = {
        "shape": [shape[axis] for axis in order],
        "data_type": dtype.name,
        "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": grid},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(axes),
    }
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}, "metadata": metadata}
    try:
        array = tensorstore.open(spec, open=True, create=True).result()
    except ValueError as error:
        raise _other(path, "an array of another shape, type or layout") from error
    (path / DONE).mkdir(exist_ok=True)  # by which a volume without any mark is known as begun
    return array


def _system_error(error: Exception) -> Exception:
    """Return the system's error of which tensorstore's message holds the code; ``error`` itself without one."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return OSError(int(code[1]), os.strerror(int(code[1]))) if code else error


def _other(path: Path, found: str) -> FileFormatError:
    fix = "Choose another output, or delete what is there."
    return unreadable(path, found, "no such folder, or the same volume begun earlier", fix)
