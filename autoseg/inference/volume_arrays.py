"""Arrays that the prediction of a volume writes: their layout, and what they hold of each slab."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from autoseg.core.arrays import Float32Array, Shape3
from autoseg.dataset.labels import Labels, background_value
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.export import outside_probabilities
from autoseg.inference.objects import core_units
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.temperature import calibrated
from autoseg.inference.uncertainty_files import member_temperatures
from autoseg.inference.uncertainty_maps import MAPS, uncertainty_maps
from autoseg.inference.volume_outputs import VolumeOutput
from autoseg.io.downsampling import Reduction
from autoseg.io.stored_array import StoredArray
from autoseg.io.zarr_writer import create_zarr
from autoseg.tasks.affinities import Affinities
from autoseg.tasks.separation import as_units
from autoseg.tasks.task import task_of

CORES, AFFINITIES, PROBABILITIES, UNCERTAINTY = "cores", "affinities", "probabilities", "uncertainty"
"""Folders beside the label map, so that no array in them can be taken for a prediction."""
FOLDERS = (CORES, AFFINITIES, PROBABILITIES, UNCERTAINTY)
CHUNK, FLAT_CHUNK = 64, 512
"""Edge of a chunk in voxels: of a cube, and of a square in a 2-D image."""
SHARD, FLAT_SHARD = 512, 2048
"""Edge of a shard in voxels across the planes; along them it is as thick as a chunk."""
TOP_LEVEL = 512
"""Largest edge of the coarsest level in voxels."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of the arrays, the same for every process that writes parts of them."""

    chunk: Shape3
    """Voxels (z, y, x) of a chunk."""
    shard: Shape3
    """Voxels of a shard."""
    n_levels: int
    """Levels of the pyramid."""

    @classmethod
    def of(cls, shape: Shape3, along: int, *, is_sliced: bool = False) -> Layout:
        """Return the layout for a volume of ``shape`` (z, y, x) that is predicted plane by plane of an axis.

        If planes are images of their own, memory holds one, and a shard is as thick.
        """
        n_levels = max(1, math.ceil(math.log2(max(shape) / TOP_LEVEL)) + 1)
        if is_sliced or (shape[0] == 1 and along == 0):
            return cls(_flat(along, FLAT_CHUNK), _flat(along, FLAT_SHARD), n_levels)
        z, y, x = (CHUNK if axis == along else SHARD for axis in range(3))
        return cls((CHUNK, CHUNK, CHUNK), (z, y, x), n_levels)


def volume_outputs(
    group: PredictorGroup,
    volume: StoredArray,
    path: Path,
    layout: Layout,
    *,
    save_probabilities: bool = False,
    save_uncertainty: bool = False,
    evidence: str | None = None,
) -> tuple[VolumeOutput, ...]:
    """Create the arrays of a prediction, or go on with those begun earlier; the label map is the first.

    Parameters
    ----------
    group
        The models.
    volume
        What they predict.
    path
        Zarr of the label map, ``<folder>/<case>.zarr``. Of a regression it holds the numbers, of the task instances
        the classes.
    layout
        Chunks and shards.
    save_probabilities
        Also ``probabilities/<case>.zarr``, (H, z, y, x) float16 in [0, 1].
    save_uncertainty
        Also ``uncertainty/<case>.zarr``, (3, z, y, x) float16 in [0, 1] (:mod:`.uncertainty_maps`).
    evidence
        Name of the array by which objects are parted; it is the second. ``CORES``: ``cores/<case>.zarr``, uint8, how
        probably a voxel is inside of an object, in 1/255. ``AFFINITIES``: ``affinities/<case>.zarr``, (A, z, y, x)
        uint8, the mean affinity at each offset in 1/255, without a pyramid, since offsets count voxels.
    """
    labels = group.dataset.labels
    if labels.targets:
        nothing = (math.nan,) * len(labels.targets)
        return (_output(path, volume, layout, "float32", "mean", labels.targets, nothing, _no_slab),)
    background = (float(background_value(labels)),)
    dtype = np.min_scalar_type(max(labels.class_values))
    outputs = [_output(path, volume, layout, dtype, "majority", (), background, _values)]
    beside = {name: path.parent / name / path.name for name in FOLDERS}
    if evidence == CORES:
        cores = partial(_cores, labels)
        outputs.append(_output(beside[CORES], volume, layout, "uint8", "mean", (), (0.0,), cores))
    if evidence == AFFINITIES:
        pairs = Affinities(labels)
        names, fill = pairs.outputs[-len(pairs.offsets) :], (0.0,) * len(pairs.offsets)
        finest = replace(layout, n_levels=1)
        outputs.append(_output(beside[AFFINITIES], volume, finest, "uint8", "mean", names, fill, _affinities))
    if save_probabilities:
        names, fill = tuple(head.name for head in labels.heads), tuple(map(float, outside_probabilities(labels)))
        path = beside[PROBABILITIES]
        outputs.append(_output(path, volume, layout, "float16", "mean", names, fill, _probabilities))
    if save_uncertainty:
        path, fill = beside[UNCERTAINTY], (0.0,) * len(MAPS)
        maps = partial(_maps, member_temperatures(group), task_of(labels).is_exclusive)
        outputs.append(_output(path, volume, layout, "float16", "mean", MAPS, fill, maps, needs_members=True))
    return tuple(outputs)


def _flat(along: int, edge: int) -> Shape3:
    """Return the shape of a square of one voxel along an axis."""
    z, y, x = (1 if axis == along else edge for axis in range(3))
    return (z, y, x)


def _output(
    path: Path,
    volume: StoredArray,
    layout: Layout,
    dtype: DTypeLike,
    reduction: Reduction,
    names: tuple[str, ...],
    fill: tuple[float, ...],
    values: Any,
    *,
    needs_members: bool = False,
) -> VolumeOutput:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = create_zarr(
        path, (len(fill), *volume.spatial_shape), dtype, volume.geometry, chunk=layout.chunk, shard=layout.shard,
        levels=layout.n_levels, names=names, reduction=reduction,
    )  # fmt: skip
    return VolumeOutput(writer, fill, values, needs_members)


def _no_slab(slab: DecidedSlab) -> NDArray[Any]:
    raise TypeError("a regression yields numbers, not slabs of classes")


def _values(slab: DecidedSlab) -> NDArray[Any]:
    return slab.values[None]


def _cores(labels: Labels, slab: DecidedSlab) -> NDArray[Any]:
    return core_units(slab, labels)[None]


def _affinities(slab: DecidedSlab) -> NDArray[Any]:
    if slab.affinities is None:
        raise TypeError("a model without affinities")
    return as_units(slab.affinities)


def _probabilities(slab: DecidedSlab) -> NDArray[Any]:
    return slab.probabilities


def _maps(temperatures: tuple[tuple[float, ...], ...], is_exclusive: bool, slab: DecidedSlab) -> Float32Array:
    members = [
        calibrated(member, own, is_exclusive=is_exclusive)
        for member, own in zip(slab.members, temperatures, strict=True)
    ]
    return uncertainty_maps(members, is_exclusive=is_exclusive)
