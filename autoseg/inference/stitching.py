"""Objects of a volume of any size, made block by block and joined across blocks, as a Zarr volume.

Three passes over blocks, each of which a killed run goes on with, and which processes may share. First each block's
objects are numbered for themselves. Then numbers that are one object in neighbouring blocks are joined (union-find over
the faces), which needs only the faces. Last, each block is written with the numbers of the whole volume. Every voxel
belongs to one block, whose size is what memory depends on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy import sparse

from autoseg.core.arrays import Shape3
from autoseg.core.atomic import write_json
from autoseg.core.boxes import Box, n_blocks
from autoseg.core.errors import Fault, FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.core.location import path_of
from autoseg.core.progress import Progress, silent
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.dataset.labels import Labels, background_value
from autoseg.inference.block_objects import (
    BlockObjects,
    Numbers,
    StitchSettings,
    adjacent,
    agreeing,
    objects_of_block,
)
from autoseg.inference.objects import object_values
from autoseg.inference.parting import Pairs, Parting
from autoseg.io.chunked import metadata_files
from autoseg.io.stored_array import StoredArray
from autoseg.io.zarr_writer import ZarrWriter, check_written, create_zarr
from autoseg.tasks.mutex import check_offsets

WORK = ".stitching"
"""Folder, in that of the result, of what a killed run goes on from; deleted at the end."""
RECORD = ".stitched.json"
"""File of the result with what it was made from, written last."""


class _Job(BaseModel):
    """What a result is made from, by which a run knows that it goes on with its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: str
    """Location, as seen from the result."""
    cores: str | None
    """Location of the array of the parting."""
    pairs: Pairs | None = None
    stamps: tuple[int, ...]
    """Times of modification of the arrays' files of metadata, ns."""
    shape: Shape3
    geometry: Geometry
    class_values: tuple[int, ...]
    unlabelled: int | None
    per_class: int | None
    settings: StitchSettings


class _Record(BaseModel):
    """Content of ``RECORD``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: _Job
    n_objects: dict[int, int]
    n_long: int


@dataclass(frozen=True, slots=True)
class Stitched:
    """State of the objects of a volume."""

    n_pending: int
    """Blocks that another process has to do first, or that a run without ``part`` has to write; 0: all is done."""
    n_objects: dict[int, int]
    """File value of a class -> number of its objects; {} as long as blocks are pending."""
    n_long: int = 0
    """Objects that were parted and are longer than half the halo, along an axis that is divided into blocks. Where two
    blocks disagree about one of them it is cut between them; a wider halo helps."""


def stitch_objects(
    classes: StoredArray,
    cores: StoredArray | Parting | None,
    output: Path,
    labels: Labels,
    settings: StitchSettings,
    *,
    numbers: InstanceNumbers,
    case: str = "",
    part: tuple[int, int] = (1, 1),
    progress: Progress = silent,
) -> Stitched:
    """Write the objects of every class of a label map as a Zarr volume, in which each object has a number.

    Parameters
    ----------
    classes
        (1, z, y, x) file values of classes, without unannotated voxels.
    cores
        (1, z, y, x) uint8: probability of the inside of an object in 1/255. None: objects are the connected components
        of each class, whose voxels share faces. Otherwise objects that touch are parted, as
        :func:`autoseg.tasks.separation.separate` does. A :class:`autoseg.inference.parting.Parting` may part them by
        affinities instead.
    output
        Folder of the result: (1, z, y, x) uint16, or uint32 for larger numbers, with the geometry of ``classes``.
    settings
        Blocks, halo, and the separation. Objects of fewer voxels than ``separation.min_size``, in the whole volume,
        become background.
    numbers
        Rule of the numbers; those of a class ascend without gaps in the order of the first voxels of objects.
    part
        (i, n), i from 1 to n: do every n-th block, from the i-th on. The n processes do their blocks of the first pass;
        called again when all have ended, they write theirs; a last call without ``part`` writes coarser levels and
        cleans up.

    Raises
    ------
    FileFormatError
        If ``classes`` has values of no class, if the arrays differ in shape, or if ``output`` is something else or was
        begun with other arguments. Nothing is overwritten.
    PlanError
        If ``numbers`` leave a class fewer numbers than it has objects.
    ValueError
        If there is no such part.
    ConfigError
        If offsets of affinities cannot part objects (:func:`autoseg.tasks.mutex.missing_offsets`).

    Notes
    -----
    Connected components equal those of the whole volume. Parted objects equal them where each of them, with its
    neighbours, lies within the halo of the blocks that it touches; longer ones are joined where both blocks agree at
    their common face (:func:`autoseg.inference.block_objects.agreeing`), and are cut there if they do not. The result
    depends on neither the number of processes nor the order of blocks.
    """
    if not 1 <= part[0] <= part[1]:
        raise ValueError(f"part {part}, expected (i, n) with i from 1 to n")
    parting = cores if isinstance(cores, Parting) else Parting(cores)
    job = _Job(
        classes=_from(output, classes.location),
        cores=None if parting.array is None else _from(output, parting.array.location),
        pairs=parting.pairs,
        stamps=tuple(_stamp(array) for array in (classes, parting.array) if array is not None),
        shape=classes.spatial_shape,
        geometry=classes.geometry,
        class_values=labels.class_values,
        unlabelled=labels.unlabelled,
        per_class=numbers.per_class,
        settings=settings,
    )
    _check_inputs(classes, parting, settings.apart)
    finished = _begun(output, job)
    if finished is not None:
        shutil.rmtree(output / WORK, ignore_errors=True)  # which a process that was killed may have left
        return Stitched(0, finished.n_objects, finished.n_long)
    parts = create_zarr(
        output / WORK / "parts.zarr", (1, *job.shape), np.uint32, job.geometry, chunk=settings.chunk,
        shard=settings.block,
    )  # fmt: skip
    own = list(parts.shards())[part[0] - 1 :: part[1]]
    for number, box in enumerate(own):
        if not parts.is_done(box):
            _number(box, parts, objects_of_block(box, classes, parting, labels, settings))
        progress(number + 1, 2 * len(own), f"objects of {box}")
    if pending := parts.pending():
        return Stitched(len(pending), {})
    table = _joined(parts, labels, job, numbers, case=case)
    volume = _result(output, job, table, background_value(labels))
    return _written(volume, job, parts, table, own, background_value(labels), progress)


def _check_inputs(classes: StoredArray, parting: Parting, apart: int | None) -> None:
    """Raise ``FileFormatError`` unless both arrays are finished, of one shape, and of whole numbers.

    Also raises ``ConfigError`` if the offsets of affinities cannot part objects.
    """
    fix, cores = "Give the label map and the probabilities of one prediction.", parting.array
    for array, n_channels in ((classes, 1), *([] if cores is None else [(cores, parting.n_channels)])):
        check_written(path_of(array.location))
        expected = (n_channels, *classes.spatial_shape)
        if array.shape != expected:
            raise FileFormatError(Fault(array.location, f"shape {array.shape}", f"{expected} (C, z, y, x)", fix))
    if classes.dtype.kind not in "iu":
        raise FileFormatError(Fault(classes.location, f"values of {classes.dtype}", "integers", fix))
    if cores is not None and cores.dtype != np.uint8:
        raise FileFormatError(Fault(cores.location, f"values of {cores.dtype}", "uint8, in 1/255", fix))
    if parting.pairs is not None:
        edges = [1 if axis == apart else edge for axis, edge in enumerate(classes.spatial_shape)]
        check_offsets(classes.location, parting.pairs.offsets, parting.pairs.order.permuted(edges))


def _stamp(array: StoredArray) -> int:
    """Return the latest time of modification, ns, of the files of an array, but for its chunks; 0 without such files.

    An array that is written anew gets another one, one that is only finished does not.
    """
    path = path_of(array.location)
    own = metadata_files(path) if path.is_dir() else (path,)  # not what lies beside it, as the .json of a .tif does
    return max((file.stat().st_mtime_ns for file in own if file.is_file()), default=0)


def _from(output: Path, location: str) -> str:
    """Return a location as seen from ``output``: the folder that holds both may be moved, or mounted elsewhere."""
    path = path_of(location)
    return location.replace(str(path), os.path.relpath(path.resolve(), output.resolve()), 1)


def _begun(output: Path, job: _Job) -> _Record | None:
    """Begin a result, or go on with it; return the record of a finished one. Raise if ``output`` is anything else."""
    record, begun = output / RECORD, output / WORK / "job.json"
    fix = "Choose another output, or delete what is there."
    try:
        finished = _Record.model_validate_json(record.read_bytes()) if record.is_file() else None
        found = finished.job if finished else _Job.model_validate_json(begun.read_bytes()) if begun.is_file() else None
    except ValidationError as error:
        raise FileFormatError(Fault(str(output), "objects of another version", "none", fix)) from error
    if found is None and output.exists():
        is_other = not output.is_dir() or any(not item.name.startswith(".") for item in output.iterdir())
        if is_other:
            raise FileFormatError(Fault(str(output), "something else", "no such folder", fix))
    if found is not None and found != job:
        names = [name for name in _Job.model_fields if getattr(found, name) != getattr(job, name)]
        if names == ["stamps"]:
            raise FileFormatError(Fault(str(output), "objects of arrays that were written anew since", "none", fix))
        differing = "; ".join(f"{name} {getattr(found, name)}" for name in names if name != "stamps")
        expected = "; ".join(f"{name} {getattr(job, name)}" for name in names if name != "stamps")
        raise FileFormatError(Fault(str(output), f"objects that were made with {differing}", expected, fix))
    if found is None:
        write_json(begun, job.model_dump(mode="json"))
    return finished


def _number(box: Box, parts: ZarrWriter, objects: BlockObjects) -> None:
    """Keep the objects of a block; it is done when its shard is."""
    objects.save(_file(parts, box))
    parts.write(box, objects.numbers[None])


def _file(parts: ZarrWriter, box: Box) -> Path:
    index = (str(at // edge) for at, edge in zip(box.start, parts.shard, strict=True))
    return parts.path.parent / "blocks" / f"{'.'.join(index)}.npz"


class _Table(NamedTuple):
    """Numbers in the whole volume of the objects of all blocks."""

    offsets: NDArray[np.int64]
    """(n_blocks + 1,) place in ``values`` of the first object of each block, x fastest."""
    values: Numbers
    """(N,) file value of each object of each block."""
    n_objects: dict[int, int]
    n_long: int


def _joined(parts: ZarrWriter, labels: Labels, job: _Job, numbers: InstanceNumbers, *, case: str) -> _Table:
    """Return the numbers of objects in the whole volume; takes some 100 bytes for each object of a block."""
    tables = [_read(_file(parts, box), "classes", "sizes", "firsts", "spans") for box in parts.shards()]
    offsets = np.append(0, np.cumsum([len(own) for own, *_ in tables])).astype(np.int64)
    classes, sizes, firsts, spans = (np.concatenate(column) for column in zip(*tables, strict=True))
    rows, columns = _links(parts, offsets, is_parted=job.cores is not None, apart=job.settings.apart)
    is_same = classes[rows] == classes[columns]
    links = np.ones(np.count_nonzero(is_same), dtype=np.int8)
    graph = sparse.coo_array((links, (rows[is_same], columns[is_same])), shape=(len(classes), len(classes)))
    _, group = sparse.csgraph.connected_components(graph, directed=False)
    order = np.argsort(firsts, kind="stable")
    _, leaders = np.unique(group[order], return_index=True)
    leaders = order[leaders]  # the part with the first voxel of each group
    whole = np.zeros(len(leaders), dtype=np.int64)
    np.add.at(whole, group, sizes)
    least = max(1, job.settings.separation.min_size)
    of_group = np.full(len(leaders), background_value(labels), dtype=np.uint32)
    n_objects = {}
    for value in labels.class_values[1:]:
        kept = np.flatnonzero((classes[leaders] == value) & (whole >= least))
        kept = kept[np.argsort(firsts[leaders[kept]])]
        of_group[kept] = object_values(len(kept), value, labels, numbers, case)
        n_objects[value] = len(kept)
    return _Table(offsets, of_group[group], n_objects, _n_long(job, spans, group, whole >= least))


def _n_long(job: _Job, spans: NDArray[np.int32], group: NDArray[np.int32], is_kept: NDArray[np.bool_]) -> int:
    """Return ``Stitched.n_long``, given the bounding boxes (N, 2, 3) of objects of blocks and their group (N,)."""
    if job.cores is None:
        return 0
    starts = np.full((len(is_kept), 3), np.iinfo(np.int32).max, dtype=np.int32)
    stops = np.zeros_like(starts)
    np.minimum.at(starts, group, spans[:, 0])
    np.maximum.at(stops, group, spans[:, 1])
    is_divided = np.array(job.shape) > np.array(job.settings.block)
    is_divided[[axis for axis in range(3) if axis == job.settings.apart]] = False
    is_long = ((2 * (stops - starts) > np.array(job.settings.halo)) & is_divided).any(axis=1)
    return int(np.count_nonzero(is_long & is_kept))


def _links(
    parts: ZarrWriter, offsets: NDArray[np.int64], *, is_parted: bool, apart: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs (n,), (n,) of places of objects of neighbouring blocks that are one object."""
    shape = parts.levels[0].spatial_shape
    grid = n_blocks(shape, parts.shard)
    boxes = list(parts.shards())
    low: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    high = list(low)
    for place, box in enumerate(boxes):
        for axis, step in enumerate((grid[1] * grid[2], grid[2], 1)):
            if axis == apart or box.stop[axis] == shape[axis]:
                continue
            (own,) = _read(_file(parts, box), f"high{axis}")
            (next_,) = _read(_file(parts, boxes[place + step]), f"low{axis}")
            one, other = (agreeing if is_parted else adjacent)(own, next_)
            low.append(one.astype(np.int64) - 1 + offsets[place])
            high.append(other.astype(np.int64) - 1 + offsets[place + step])
    return np.concatenate(low), np.concatenate(high)


def _read(path: Path, *names: str) -> list[NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in names]


def _result(output: Path, job: _Job, table: _Table, background: int) -> ZarrWriter:
    """Begin the volume of numbers, of the smallest type that holds them."""
    largest = max(int(table.values.max(initial=0)), background)
    return create_zarr(
        output,
        (1, *job.shape),
        np.uint16 if largest < 2**16 else np.uint32,
        job.geometry,
        chunk=job.settings.chunk,
        shard=job.settings.block,
        levels=job.settings.levels,
        reduction="majority",
    )


def _written(
    volume: ZarrWriter,
    job: _Job,
    parts: ZarrWriter,
    table: _Table,
    own: Sequence[Box],
    background: int,
    progress: Progress,
) -> Stitched:
    """Write the blocks ``own`` with their numbers in the whole volume; if these are all blocks, finish it."""
    source = parts.open()
    places = {box: place for place, box in enumerate(parts.shards())}
    for number, box in enumerate(own):
        if not volume.is_done(box):
            start, stop = table.offsets[places[box] : places[box] + 2]
            values = np.append(np.uint32(background), table.values[start:stop]).astype(volume.dtype)
            volume.write(box, values[source.read(box)])
        progress(len(own) + number + 1, 2 * len(own), f"numbers of {box}")
    if len(own) < len(places):
        return Stitched(max(1, len(volume.pending())), {})
    volume.finish()
    record = _Record(job=job, n_objects=table.n_objects, n_long=table.n_long)
    write_json(volume.path / RECORD, record.model_dump(mode="json"))
    shutil.rmtree(volume.path / WORK)
    return Stitched(0, table.n_objects, table.n_long)
