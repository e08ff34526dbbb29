"""Preprocessing of a case that is too large for memory, block by block into the cache.

A block is a shard of the cache's Zarr; every voxel belongs to one block. A run that is killed goes on with the shards
that are not done. Neither codes nor intensities depend on the size or the order of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.cache import remove_cases, write_entry
from autoseg.cases.entry import CacheEntry, VolumeArrays
from autoseg.cases.layers import LayerInfo, target_layers
from autoseg.cases.store import IMAGE, TARGET
from autoseg.cases.volume_image import read_scaled
from autoseg.cases.volume_store import BegunCase, layer_path, locations_path, read_begun, write_begun
from autoseg.core.arrays import BoolArray, CodeArray, Float32Array, Shape3
from autoseg.core.atomic import atomic_path
from autoseg.core.boxes import Box, blocks
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels
from autoseg.io.zarr_writer import ZarrWriter, create_zarr
from autoseg.preprocessing.axes import nearest_indices
from autoseg.preprocessing.block_progress import told
from autoseg.preprocessing.label_set_unions import LabelSetUnions
from autoseg.preprocessing.locations import Locations
from autoseg.preprocessing.normalize import check_rgb, scalings
from autoseg.preprocessing.resample_box import (
    Limits,
    codes_window,
    divided,
    measured_limits,
    resample_box,
    resample_codes_box,
    source_box,
    sources_of,
)
from autoseg.preprocessing.streamed_locations import StreamedLocations
from autoseg.preprocessing.volume_annotation import VolumeAnnotation, open_annotation
from autoseg.preprocessing.volume_grid import VolumeGrid, find_grid
from autoseg.preprocessing.volume_statistics import volume_statistics

CHUNK: Shape3 = (16, 64, 64)
"""Voxels (z, y, x) that are compressed together in the cache: a fraction of a patch."""
SHARD_VOXELS = 1 << 24
"""Voxels of a shard of a volume of small chunks, about."""
MOST, MOST_CODES = 1 << 25, 1 << 22
"""Source voxels of an image, and of codes, that are resampled together, about. Where codes would vanish, they need up
to 350 bytes a voxel."""
LEAST_EDGE, LARGEST_EDGE = 512, 2048
"""Edges of a shard within slices, in voxels. It is larger than ``LEAST_EDGE`` if the source has larger tiles, so that
none of them is decoded more often than needed."""

ReadImage = Callable[[Box], Float32Array]
"""Function that returns the normalised intensities (C, *box) of a box of the case before resampling."""


@dataclass(frozen=True, slots=True)
class VolumeJob:
    """A case to preprocess, and how."""

    files: CaseFiles
    labels: Labels
    plan: Plan
    configuration: Configuration
    folder: Path
    fingerprint: str


def write_volume_case(job: VolumeJob) -> None:
    """Preprocess a case of a volume into the cache, in bounded memory.

    The target is always written there, since its codes take little room; the image only if it must be resampled.

    Raises
    ------
    FileFormatError, DatasetError
        If an array cannot be read, if shapes differ, or if a value is not declared.
    StorageError
        If there is no room.
    """
    if job.files.volume is None:
        raise ValueError(f"case {job.files.name}: its files are no part of a volume")
    grid = find_grid(job.files.volume, job.plan, job.configuration)
    statistics = volume_statistics(grid.finest)
    for scheme, channel in zip(job.configuration.normalization, statistics, strict=True):
        if scheme == "rgb_to_0_1":
            check_rgb(channel.low, channel.high)
    rules = scalings(job.plan, job.configuration, statistics)
    level = grid.volume.spatial_shape if grid.locations != job.files.volume.images else None
    codes = _CodesOfCase(open_annotation(job.files, job.labels, level), grid, _begin(job))
    locations = _write_target(job, grid, codes)
    layers = target_layers(job.labels)  # numbers of objects, or nothing
    for info in layers:
        _write_layer(job, grid, info, codes)
    if grid.is_resampled:
        _write_image(job, grid, lambda box: read_scaled(grid.source, box, rules))
    with atomic_path(locations_path(job.folder, job.files.name)) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array(file, locations.indices, allow_pickle=False)
    entry = CacheEntry(
        record=grid.record(job.files.name),
        label_sets=_members(codes.label_sets),
        undrawn=codes.undrawn,
        n_classes=job.labels.n_classes,
        locations=locations.slices,
        code_counts=locations.counts,
        layers=layers,
        volume=VolumeArrays(image=None if grid.is_resampled else grid.image(rules)),
        fingerprint=job.fingerprint,
    )
    write_entry(job.folder, job.files.name, entry)


def block_shape(shape: Shape3, source_chunk: Shape3) -> tuple[Shape3, Shape3]:
    """Return the chunk and the shard (z, y, x) of a Zarr of ``shape`` that is made from chunks of ``source_chunk``."""
    z, y, x = (min(edge, _up(length, 8)) if length > 1 else 1 for edge, length in zip(CHUNK, shape, strict=True))
    wide = [
        min(_up(min(max(tile, LEAST_EDGE), LARGEST_EDGE), edge), _up(length, edge))
        for tile, edge, length in zip(source_chunk[1:], (y, x), shape[1:], strict=True)
    ]
    deep = min(_up(max(SHARD_VOXELS // math.prod(wide), 1), z), _up(shape[0], z))
    return (z, y, x), (deep, wide[0], wide[1])


def _up(length: int, step: int) -> int:
    return -(-length // step) * step


class _CodesOfCase:
    """The codes of a case on the grid of the result, box by box."""

    def __init__(self, annotation: VolumeAnnotation, grid: VolumeGrid, begun: BoolArray | None) -> None:
        self._annotation, self._grid = annotation, grid
        nothing = annotation.target(Box((0, 0, 0), (0, 0, 0)))
        self.undrawn = nothing.undrawn
        self.dtype = nothing.codes.dtype
        self._unions = LabelSetUnions(nothing.label_sets if begun is None else begun)
        is_level = annotation.shape != grid.own.shape  # labels have the finest level only
        self._inside = Box.whole(annotation.shape) if is_level else grid.inside.relative_to(grid.own)
        self._before: Shape3 = grid.order.permuted(self._inside.shape)
        self._unknown = self.undrawn if self._before != grid.shape and self._has_undrawn() else None

    @property
    def label_sets(self) -> BoolArray:
        """(N, K); unions of sets are added when they are found."""
        return self._unions.label_sets

    def read(self, box: Box) -> CodeArray:
        """Return the codes of a box of the result."""
        if self._before == self._grid.shape:
            return self._turned(box)
        codes = np.empty(box.shape, dtype=self.dtype)

        def sources(part: Box) -> Box:
            return sources_of(codes_window(self._before, self._grid.shape, part))

        for part in divided(box, sources, MOST_CODES):
            codes[part.relative_to(box).slices] = resample_codes_box(
                self._turned,
                self._before,
                self._grid.shape,
                part,
                unknown=self._unknown,
                separate_axis=self._grid.separate_axis,
                unions=self._unions,
            )
        return codes

    def read_objects(self, box: Box) -> NDArray[np.uint32]:
        """Return the numbers of objects of a box of the result: of the nearest voxel each."""
        nearest = [
            nearest_indices(n, m)[start:stop]
            for n, m, start, stop in zip(self._before, self._grid.shape, box.start, box.stop, strict=True)
        ]
        z, y, x = ((int(index[0]), int(index[-1]) + 1) for index in nearest)
        read = Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))
        objects = self._grid.order.apply(self._annotation.objects(self._stored(read)))
        return objects[np.ix_(*(index - at for index, at in zip(nearest, read.start, strict=True)))]

    def _turned(self, box: Box) -> CodeArray:
        """Return the codes of a box on the grid of the labels and their context, in the axes of the plan."""
        return self._grid.order.apply(self._annotation.codes(self._stored(box)))

    def _stored(self, box: Box) -> Box:
        """Return the box of the case's own voxels, which may overhang them, that a box before resampling stands for."""
        return self._grid.order.inverse.turned_box(box, self._before).shifted(self._inside.start)

    def _has_undrawn(self) -> bool:
        """Whether any voxel is unannotated; reads labels until one is found."""
        whole = Box.whole(self._annotation.shape)
        if self._inside != whole and self.undrawn == self._annotation.labels.unknown:
            return True  # context
        shard = block_shape(whole.shape, self._annotation.label.chunk)[1]
        return any((self._annotation.codes(box) == self.undrawn).any() for box in blocks(whole, shard))


def _begin(job: VolumeJob) -> BoolArray | None:
    """Return the label sets (N, K) of a case that was begun with the same sources; otherwise remove it, None."""
    begun = read_begun(job.folder, job.files.name)
    if begun is None or begun.fingerprint != job.fingerprint:
        remove_cases(job.folder, [job.files.name])
        return None
    rows = np.zeros((len(begun.label_sets), job.labels.n_classes), dtype=bool)
    for row, members in zip(rows, begun.label_sets, strict=True):
        row[list(members)] = True
    return rows


def _write_target(job: VolumeJob, grid: VolumeGrid, codes: _CodesOfCase) -> Locations:
    """Write the codes of all shards that are not done; return counts and locations of all."""
    name = job.files.name
    path = layer_path(job.folder, name, TARGET)
    known = len(codes.label_sets)
    write_begun(job.folder, name, BegunCase(fingerprint=job.fingerprint, label_sets=_members(codes.label_sets)))
    writer = _create(path, (1, *grid.shape), codes.dtype, grid)
    found, done = StreamedLocations(grid.shape), writer.open()
    for box in told(job.folder, name, TARGET, list(writer.shards())):
        if writer.is_done(box):
            part = done.read(box)[0]
        else:
            part = np.ascontiguousarray(codes.read(box))
            if len(codes.label_sets) > known:
                known = len(codes.label_sets)
                begun = BegunCase(fingerprint=job.fingerprint, label_sets=_members(codes.label_sets))
                write_begun(job.folder, name, begun)
            writer.write(box, part[None])
        found.add(part, box, codes.label_sets)
    return found.finish()


def _write_layer(job: VolumeJob, grid: VolumeGrid, info: LayerInfo, codes: _CodesOfCase) -> None:
    """Write the numbers of objects into shards that are not done."""
    dtype = np.dtype(info.dtype)
    writer = _create(layer_path(job.folder, job.files.name, info.name), (1, *grid.shape), dtype, grid)
    for box in told(job.folder, job.files.name, info.name, writer.pending()):
        writer.write(box, np.ascontiguousarray(codes.read_objects(box), dtype=dtype)[None])


def _write_image(job: VolumeJob, grid: VolumeGrid, read: ReadImage) -> None:
    """Resample the image into shards that are not done."""
    path = layer_path(job.folder, job.files.name, IMAGE)
    n_channels = grid.volume.shape[0]
    writer = _create(path, (n_channels, *grid.shape), np.dtype(np.float32), grid)
    pending = writer.pending()
    if not pending:
        return
    before, axis = grid.source.shape, grid.separate_axis
    limits = _limits(job, grid, read)
    for box in told(job.folder, job.files.name, IMAGE, pending):
        values = np.empty((n_channels, *box.shape), dtype=np.float32)
        for part in divided(box, lambda part: source_box(before, grid.shape, part, separate_axis=axis), MOST):
            values[(slice(None), *part.relative_to(box).slices)] = resample_box(
                read, before, grid.shape, part, limits=limits, separate_axis=axis
            )
        writer.write(box, values)


def _limits(job: VolumeJob, grid: VolumeGrid, read: ReadImage) -> Limits:
    """Return the smallest and largest intensity of each channel, or of each slice of it, from one pass over all."""
    shape, axis = grid.source.shape, grid.separate_axis
    kind = (grid.volume.shape[0], 2) if axis is None else (grid.volume.shape[0], shape[axis], 2)
    limits = np.stack([np.full(kind[:-1], np.inf), np.full(kind[:-1], -np.inf)], axis=-1)
    boxes = list(blocks(Box.whole(shape), block_shape(shape, grid.order.permuted(grid.volume.chunk))[1]))
    for box in told(job.folder, job.files.name, f"range of the {IMAGE}", boxes):
        part = measured_limits(read(box), axis)
        inside = limits if axis is None else limits[:, box.start[axis] : box.stop[axis]]
        np.minimum(inside[..., 0], part[..., 0], out=inside[..., 0])
        np.maximum(inside[..., 1], part[..., 1], out=inside[..., 1])
    return limits


def _create(path: Path, shape: tuple[int, int, int, int], dtype: np.dtype[Any], grid: VolumeGrid) -> ZarrWriter:
    """Create, or go on with, a Zarr of the cache."""
    source = (1, 1, 1) if grid.is_resampled else grid.order.permuted(grid.volume.chunk)
    chunk, shard = block_shape(grid.shape, source)
    is_image = dtype.kind == "f"
    return create_zarr(
        path,
        shape,
        dtype,
        Geometry(spacing=grid.spacing),
        chunk=chunk,
        shard=shard,
        names=tuple(f"channel {index}" for index in range(shape[0])) if is_image else (),
        reduction="mean" if is_image else "nearest",
    )


def _members(table: BoolArray) -> tuple[tuple[int, ...], ...]:
    """Return the class indices of each row of a table (N, K) bool."""
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in table)
