"""Objects of one block of a volume, and which of them continue in the next block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage, sparse

from autoseg.core.arrays import Shape3
from autoseg.core.atomic import atomic_path
from autoseg.core.boxes import Box
from autoseg.core.errors import ConfigError, Fault, FileFormatError
from autoseg.core.findings import listed
from autoseg.core.resources import GB
from autoseg.dataset.labels import Labels
from autoseg.inference.parting import Parting
from autoseg.io.stored_array import StoredArray
from autoseg.tasks.separation import SeparationSettings

SHARED = 1
"""Planes on either side of a face between two blocks, on which both say how objects are parted. More planes lie nearer
to where one of the blocks sees nothing, and agreed less on objects longer than the halo."""

PARTED_BYTES, COMPONENT_BYTES = 120, 40
"""Bytes for each voxel of a block with its halo while its objects are parted by cores, or its components numbered;
measured."""
MUTEX_BYTES, OFFSET_BYTES = 60, 65
"""The same while they are parted by affinities, and besides for each offset; measured where foreground fills the block
and affinities are noise, which takes most."""
CHUNK, FLAT_CHUNK, LARGEST_BLOCK = 64, 256, 1024
"""Edges in voxels: of a chunk, of one of a single slice, and of the largest block."""
LARGEST_TOP = 1024
"""Longest edge of the coarsest level in voxels."""

Numbers = NDArray[np.uint32]


class StitchSettings(BaseModel):
    """Settings of objects that are made block by block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    separation: SeparationSettings = SeparationSettings()
    """How objects that touch are parted; of connected components only ``min_size`` counts."""
    halo: Shape3 = (32, 32, 32)
    """Voxels (z, y, x) around a block that are looked at to part objects. Twice the diameter of the largest object, and
    more, gives the objects of the whole volume; connected components need none."""
    block: Shape3 = (128, 128, 128)
    """Voxels (z, y, x) of a block: a file of the result. :func:`settings_within` chooses it by memory."""
    chunk: Shape3 = (64, 64, 64)
    """Voxels (z, y, x) that are compressed together; a block is a multiple of it."""
    levels: int = Field(1, ge=1)
    """Levels of the result, the finest included."""
    apart: int | None = Field(None, ge=0, le=2)
    """Axis along which no object goes on from one voxel to the next, since slices are images of their own; blocks are
    one voxel thick along it, and have no halo. None: objects go on along every axis."""


def settings_within(
    memory_gb: float,
    shape: Shape3,
    separation: SeparationSettings,
    *,
    halo: Shape3 = (32, 32, 32),
    is_parted: bool,
    n_offsets: int = 0,
    apart: int | None = None,
) -> StitchSettings:
    """Return settings whose blocks, with their halo, take at most ``memory_gb``, as large and as cubic as possible.

    Blocks are the same for every process, and for a run that goes on, as long as the arguments are.

    Parameters
    ----------
    memory_gb
        Gigabytes of one process, beside some 0.3 GB of the program.
    shape
        Of the volume, (z, y, x). Levels of the result are as many as halve its longest edge below ``LARGEST_TOP``.
    is_parted
        Whether touching objects are parted; connected components have no halo, and take less.
    n_offsets
        Offsets of the affinities by which objects are parted; 0: they are parted by cores, which takes less.
    apart
        See :class:`StitchSettings`. A slice is one block if it takes no more memory, whatever its edges.

    Raises
    ------
    ConfigError
        If a block of one chunk takes more.
    """
    per_voxel = PARTED_BYTES if is_parted else COMPONENT_BYTES
    if n_offsets:
        per_voxel = MUTEX_BYTES + OFFSET_BYTES * n_offsets
    halo = _without(halo, apart, 0)
    margin = halo if is_parted else (0, 0, 0)
    largest = LARGEST_BLOCK if apart is None else math.inf

    def needed(block: Sequence[int]) -> float:
        outer = (min(edge + 2 * around, end) for edge, around, end in zip(block, margin, shape, strict=True))
        return math.prod(outer) * per_voxel / GB

    flat = 0 if apart is None and shape[0] == 1 else apart
    chunk = (CHUNK, CHUNK, CHUNK) if flat is None else _without((FLAT_CHUNK, FLAT_CHUNK, FLAT_CHUNK), flat, 1)
    block = list(chunk)
    if needed(block) > memory_gb:
        raise ConfigError(
            f"memory for objects: found {memory_gb:g} GB, expected at least {needed(block):.2g} GB, for blocks of "
            f"{tuple(block)} voxels with a halo of {margin}. Give more memory, or a smaller halo."
        )
    axes = [axis for axis in range(3) if axis != flat and block[axis] < shape[axis]]
    while axes:
        axis = min(axes, key=block.__getitem__)
        larger = [edge + chunk[axis] if at == axis else edge for at, edge in enumerate(block)]
        if needed(larger) <= memory_gb and larger[axis] <= largest:
            block = larger
        if block != larger or block[axis] >= shape[axis]:
            axes.remove(axis)
    n_levels = 1 + max(0, math.ceil(math.log2(max(shape) / LARGEST_TOP)))
    size = (block[0], block[1], block[2])
    return StitchSettings(separation=separation, halo=halo, block=size, chunk=chunk, levels=n_levels, apart=apart)


def _without(edges: Shape3, axis: int | None, edge: int) -> Shape3:
    """Return edges with that of ``axis`` replaced by ``edge``; as they are for None."""
    z, y, x = (edge if index == axis else own for index, own in enumerate(edges))
    return (z, y, x)


@dataclass(frozen=True, eq=False, slots=True)
class BlockObjects:
    """Objects of a block, numbered from 1 in it. An object that goes on in other blocks has a number in each."""

    numbers: Numbers
    """(*box) object of each voxel; 0 for none."""
    classes: NDArray[np.int32]
    """(n,) file value of the class of each object."""
    sizes: NDArray[np.int64]
    """(n,) voxels in the block."""
    firsts: NDArray[np.int64]
    """(n,) place of its first voxel in the block, in the order of the whole volume."""
    spans: NDArray[np.int32]
    """(n, 2, 3) first voxel (z, y, x) of its bounding box in the volume, and the end of it."""
    faces: dict[str, Numbers]
    """``low0`` to ``high2`` -> objects next to the face towards the previous and next block along an axis, where there
    is one: the plane of the block at the face, or, of parted objects, ``SHARED`` planes on either side of it."""

    def save(self, path: Path) -> None:
        """Write everything but ``numbers``, atomically."""
        with atomic_path(path) as temporary:
            objects = {name: getattr(self, name) for name in ("classes", "sizes", "firsts", "spans")}
            arrays: dict[str, Any] = {**objects, **self.faces}
            np.savez_compressed(temporary, **arrays)


def objects_of_block(
    box: Box, classes: StoredArray, parting: Parting, labels: Labels, settings: StitchSettings
) -> BlockObjects:
    """Return the objects of a block.

    The block owns its voxels. Parted objects are those of the block with ``settings.halo`` around it, of which nothing
    but the planes next to faces is kept. Only these voxels are read. Small objects stay, since they may go on.

    Parameters
    ----------
    box
        Block within the volume.
    classes
        (1, z, y, x) file values of classes.
    parting
        What tells them apart.

    Raises
    ------
    FileFormatError
        If ``classes`` has a value of no class.
    """
    whole = Box.whole(classes.spatial_shape)
    is_parted = parting.array is not None
    outer = box.grown(settings.halo).intersection(whole) if is_parted else box
    values = classes.read(outer)[0]
    _check_values(classes, values, labels, box)
    evidence = parting.read(outer)
    numbers = np.zeros(outer.shape, dtype=np.uint32)
    of_class = [np.zeros(1, dtype=np.int32)]
    n_objects = 0
    for value in labels.class_values[1:]:
        mask = values == value
        if not mask.any():
            continue
        objects = parting.objects(mask, evidence, classes.geometry.spacing, settings.separation, apart=settings.apart)
        n_found = int(objects.max())
        np.add(numbers, objects, out=numbers, where=mask, casting="unsafe")
        np.add(numbers, np.uint32(n_objects), out=numbers, where=objects > 0)
        of_class.append(np.full(n_found, value, dtype=np.int32))
        n_objects += n_found
    depth = SHARED if is_parted else None
    return _owned(numbers, np.concatenate(of_class), box, outer, whole, depth=depth, apart=settings.apart)


def _owned(
    numbers: Numbers,
    of_class: NDArray[np.int32],
    box: Box,
    outer: Box,
    whole: Box,
    *,
    depth: int | None,
    apart: int | None,
) -> BlockObjects:
    """Return the objects with a voxel in ``box``, given those of ``outer``.

    Faces have ``depth`` planes on either side; None: one plane of the block.
    """
    sizes = np.bincount(numbers[box.relative_to(outer).slices].reshape(-1), minlength=len(of_class))
    is_owned = sizes > 0
    is_owned[0] = False
    numbers = np.where(is_owned, np.cumsum(is_owned), 0).astype(np.uint32)[numbers]
    own = np.ascontiguousarray(numbers[box.relative_to(outer).slices])
    faces = {}
    for axis in range(3):
        for side, at, end in (("low", box.start, whole.start), ("high", box.stop, whole.stop)):
            if axis != apart and at[axis] != end[axis]:
                face = _face(box, axis, at[axis], depth).intersection(outer)
                faces[f"{side}{axis}"] = numbers[face.relative_to(outer).slices]
    return BlockObjects(
        numbers=own,
        classes=of_class[is_owned],
        sizes=sizes[is_owned].astype(np.int64),
        firsts=_firsts(own, box, whole),
        spans=_spans(own, box),
        faces=faces,
    )


def _face(box: Box, axis: int, at: int, depth: int | None) -> Box:
    """Return ``depth`` planes on either side of the face of a block at a coordinate; its own plane for None."""
    start, stop = list(box.start), list(box.stop)
    below, above = (depth, depth) if depth else (1, 0) if at == box.stop[axis] else (0, 1)
    start[axis], stop[axis] = at - below, at + above
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _firsts(own: Numbers, box: Box, whole: Box) -> NDArray[np.int64]:
    """Return the place (n,) of the first voxel of each object among all voxels of the volume, z slowest."""
    flat = own.reshape(-1)
    places = np.flatnonzero(flat)[::-1]
    first = np.zeros(int(flat.max(initial=0)) + 1, dtype=np.int64)
    first[flat[places]] = places  # of equal indices the last one stays
    z, y, x = (at + start for at, start in zip(np.unravel_index(first[1:], own.shape), box.start, strict=True))
    _, height, width = whole.shape
    place: NDArray[np.int64] = (z.astype(np.int64) * height + y) * width + x
    return place


def _spans(own: Numbers, box: Box) -> NDArray[np.int32]:
    """Return the bounding box (n, 2, 3) of each object in the volume."""
    found = ndimage.find_objects(own.astype(np.int32))
    spans = [[[part.start for part in parts], [part.stop for part in parts]] for parts in found]
    return np.array(spans, dtype=np.int32).reshape(-1, 2, 3) + np.array(box.start, dtype=np.int32)


def _check_values(classes: StoredArray, values: NDArray[Any], labels: Labels, box: Box) -> None:
    """Raise ``FileFormatError`` if a block (*S) has a value of no class."""
    if np.isin(values, labels.class_values).all():
        return
    found = f"the values {listed(np.setdiff1d(values, labels.class_values))} in {box}"
    expected = f"those of classes, {listed(labels.class_values)}"
    raise FileFormatError(Fault(classes.location, found, expected, "Give the label map that the model predicted."))


def adjacent(low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
    """Return pairs of objects, (n,) of the lower and (n,) of the upper block, whose voxels share a face.

    ``low`` is the last plane of the lower block, ``high`` the first plane of the upper block, of one shape. They may be
    of different classes.
    """
    rows, columns, _ = _overlaps(low, high)
    return rows, columns


def agreeing(low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
    """Return pairs of objects, (n,) of the lower and (n,) of the upper block, that are the same one.

    ``low`` and ``high`` are what each block says of the same voxels. Objects are the same if they share more than half
    of the voxels that each of them has there; so an object has at most one partner.
    """
    rows, columns, voxels = _overlaps(low, high)
    sizes, true_sizes = np.bincount(low.reshape(-1)), np.bincount(high.reshape(-1))
    is_same = (2 * voxels > sizes[rows]) & (2 * voxels > true_sizes[columns])
    return rows[is_same], columns[is_same]


def _overlaps(one: Numbers, other: Numbers) -> tuple[Numbers, Numbers, NDArray[np.int64]]:
    """Return the pairs (n,), (n,) of objects in the same voxels of two arrays, and the numbers of these voxels."""
    both = (one > 0) & (other > 0)
    rows, columns = one[both], other[both]
    shape = (int(rows.max(initial=0)) + 1, int(columns.max(initial=0)) + 1)
    table = sparse.coo_array((np.ones(len(rows), dtype=np.int64), (rows, columns)), shape=shape).tocsr().tocoo()
    return table.row.astype(np.uint32), table.col.astype(np.uint32), table.data
