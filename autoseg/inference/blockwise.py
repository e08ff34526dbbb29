"""Prediction of a volume of any size, of which memory holds one column of planes at a time.

Windows are those of the whole volume, and a voxel is decided by all windows that reach it, whatever is predicted with
it: a voxel belongs to the shard of the output that it lies in, windows reach at most a patch less one voxel beyond (the
halo), and neither the order of shards nor the number of processes changes a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.core.boxes import Box, read_overhanging
from autoseg.core.channel_statistics import ChannelStatistics
from autoseg.core.errors import ConfigError, DatasetError
from autoseg.core.location import is_location, split_box
from autoseg.dataset.labels import background_value
from autoseg.inference.decided import DecidedSlab, Observer
from autoseg.inference.export import outside_probabilities
from autoseg.inference.inputs import header_faults
from autoseg.inference.numbers import number_slabs
from autoseg.inference.predictor import Predictor
from autoseg.inference.predictor_group import PredictorGroup, PreparedRegion, decided_regions
from autoseg.inference.prepared import PreparedCase, PreparedPart
from autoseg.inference.prepared_volume import PreparedVolume, prepare_volume
from autoseg.inference.volume_outputs import crop_part, file_part
from autoseg.inference.volume_slices import VolumeSlices
from autoseg.io.arrays import open_volume
from autoseg.io.stored_array import StoredArray, part_of
from autoseg.preprocessing.volume_statistics import volume_statistics
from autoseg.tasks.affinities import Affinities
from autoseg.tasks.instances import Instances
from autoseg.tasks.regions import Regions
from autoseg.tasks.semantic import Semantic
from autoseg.tasks.task import refuse_regression, task_of

_FINISHES = (Semantic.finish, Regions.finish, Instances.finish, Affinities.finish)
"""Methods that return the label map as it is."""
_CHANNEL_FIX = (
    "Give the arrays of the channels in a row, -i em.zarr marker.zarr, or one array (C, z, y, x) or with names of axes."
)
"""Way to give the channels of a volume."""


@dataclass(frozen=True)
class VolumePredictor:
    """Models, and a volume that they predict part by part."""

    group: PredictorGroup
    volume: StoredArray
    """The whole volume."""
    box: Box
    """Voxels of it that are to be written."""
    name: str
    """Name of the case."""
    prepared: tuple[PreparedVolume, ...]
    """The volume on the grid of each model; () if it is predicted slice by slice."""
    slices: VolumeSlices | None = None
    """The slices that models of 2-D images predict each by itself; None for a volume that is predicted as a whole."""

    @classmethod
    def open(
        cls, predictor: Predictor | PredictorGroup, locations: str | Sequence[str], name: str = "volume"
    ) -> VolumePredictor:
        """Open a volume for prediction; its statistics are computed, otherwise nothing is read.

        Parameters
        ----------
        predictor
            The model, or the models, whose probabilities are averaged.
        locations
            Location of the volume, or those of its channels in order (:func:`autoseg.io.arrays.open_volume`). With a
            box, ``volume.zarr[0:30, 0:64, 0:64]``, that is ``box``: it is predicted as a part of the whole volume.
        name
            Name of the case.

        Raises
        ------
        FileFormatError
            If the volume cannot be read.
        DatasetError
            If it does not fit the model: channels, axes, spacing.
        ConfigError
            If the model cannot predict parts of a volume, or channels have boxes that differ.
        """
        group = predictor if isinstance(predictor, PredictorGroup) else PredictorGroup((predictor,))
        _refuse(group)
        return _opened(group, (locations,) if isinstance(locations, str) else tuple(locations), name)

    @property
    def target(self) -> StoredArray:
        """The part of the volume that is to be written; its geometry is that of the outputs."""
        return self.volume if self.box == Box.whole(self.volume.spatial_shape) else part_of(self.volume, self.box)

    @property
    def record(self) -> CaseRecord:
        """Axes and crop of the volume, which all models share."""
        return self.prepared[0].record if self.slices is None else self.slices.record

    @property
    def statistics(self) -> tuple[ChannelStatistics, ...]:
        """Statistics of each channel of the volume."""
        return self.prepared[0].statistics if self.slices is None else self.slices.statistics

    def decided_slabs(
        self, box: Box, observers: Sequence[Observer] = (), pool: Executor | None = None
    ) -> Iterator[tuple[int, LabelMap]]:
        """Yield ``(first plane, file values (planes, y, x))`` of a box of the crop, in the plan's axes; not empty."""
        if self.slices is not None:
            return self.slices.decided_slabs(box, observers, pool)
        regions = [PreparedRegion(item.image(box), item.record, box) for item in self.prepared]
        return decided_regions(self.group, regions, observers, pool)

    def number_slabs(self, box: Box, pool: Executor | None = None) -> Iterator[tuple[int, Float32Array]]:
        """Yield ``(first plane, numbers (R, planes, y, x))`` of a box of the crop, by a model of regression."""
        if self.slices is not None:
            return self.slices.number_slabs(box, pool)
        (predictor,), (prepared,) = self.group.predictors, self.prepared
        slabs = predictor.slabs(prepared.image(box), self.name)
        model = predictor.model
        return number_slabs(slabs, prepared.record, model.dataset.labels, model.plan.targets, box=box, pool=pool)

    def predict_box(self, box: Box) -> LabelMap:
        """Return the label map of a box (z, y, x) of the volume, of the task instances that of classes.

        Parameters
        ----------
        box
            Voxels in the axes of the file; an empty box gives an empty map. Inside the volume they get what the
            prediction of the whole volume gives them. A box that overhangs is predicted as a part of the volume that is
            continued beyond its border by reflection, as far as the box reaches, so that windows lie otherwise;
            ``box.intersection(Box.whole(shape))`` is the part that lies inside. Where the volume has no data, the
            result is background.
        """
        labels = self.group.dataset.labels
        refuse_regression(labels, "the label map of a box")
        result = np.full(box.shape, background_value(labels), dtype=np.min_scalar_type(max(labels.class_values)))
        if not box.n_voxels:
            return result
        whole, local = self._around(box)
        for part, values in whole._parts(local, None):
            result[part.slices] = values
        for gap in whole.volume.missing(local):
            result[gap.relative_to(local).slices] = background_value(labels)
        return result

    def predict_probabilities(self, box: Box) -> Float32Array:
        """Return the probability (H, *box) float32 in [0, 1] of each head; the box as for :meth:`predict_box`.

        Where nothing is predicted, background has probability 1 and every other head 0 (regions: all 0).
        """
        refuse_regression(self.group.dataset.labels, "probabilities of a box")
        fill = np.reshape(outside_probabilities(self.group.dataset.labels), (-1, 1, 1, 1))
        result = np.empty((len(fill), *box.shape), dtype=np.float32)
        result[...] = fill
        if not box.n_voxels:
            return result
        whole, local = self._around(box)
        kept = _Kept()
        for part, _ in whole._parts(local, kept):
            result[(slice(None), *part.slices)] = self.record.voxel_order.inverse.apply(kept.probabilities)
        for gap in whole.volume.missing(local):
            result[(slice(None), *gap.relative_to(local).slices)] = fill
        return result

    def _parts(self, box: Box, observer: Observer | None) -> Iterator[tuple[Box, NDArray[np.unsignedinteger]]]:
        """Yield parts of a box of the file, which count from its first voxel, with their values (*part)."""
        inside = crop_part(box, self.record)
        if not inside.n_voxels:
            return
        (z0, y0, x0), (_, y1, x1) = inside.start, inside.stop
        for first, values in self.decided_slabs(inside, () if observer is None else (observer,)):
            planes = Box((z0 + first, y0, x0), (z0 + first + len(values), y1, x1))
            yield file_part(planes, self.record).relative_to(box), self.record.voxel_order.inverse.apply(values)

    def _around(self, box: Box) -> tuple[VolumePredictor, Box]:
        """Return the volume, continued by reflection if a box overhangs it, and the box as a box of that."""
        volume = self.volume
        shape = volume.spatial_shape
        if box.is_within(shape):
            return self, box
        low, high = (tuple(map(pick, zip(own, of_box, strict=True))) for pick, own, of_box in (
            (min, (0, 0, 0), box.start), (max, shape, box.stop),
        ))  # fmt: skip
        hull = Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

        def load(part: Box) -> NDArray[np.generic]:
            return read_overhanging(volume.read, shape, part.shifted(hull.start))

        wider = replace(
            volume,
            header=volume.header._replace(shape=(volume.shape[0], *hull.shape)),
            load=load,
            find_missing=lambda part: tuple(gap.relative_to(hull) for gap in volume.missing(part.shifted(hull.start))),
        )
        slices = None if self.slices is None else self.slices.continued(wider)
        prepared = tuple(
            prepare_volume(
                wider,
                self.name,
                (),
                item.plan,
                item.configuration,
                is_file=not is_location(volume.location),
                statistics=item.statistics,
            )
            for item in self.prepared
        )
        return replace(self, volume=wider, prepared=prepared, slices=slices), box.relative_to(hull)


def _opened(group: PredictorGroup, given: Sequence[str], name: str) -> VolumePredictor:
    """Return :meth:`VolumePredictor.open` of locations, whatever the task of the models."""
    wholes, boxes = zip(*map(split_box, given), strict=True)
    if len(set(boxes)) > 1:
        found = ", ".join(str(box or "none") for box in boxes)
        raise ConfigError(
            f"channels of the volume: found the boxes {found}, expected the same for each. Write one box after "
            "every location, or none."
        )
    volume = open_volume(wholes)
    box = Box.whole(volume.spatial_shape) if boxes[0] is None else boxes[0]
    part_of(volume, box)  # raises unless the box lies in the volume
    plans = [(model.plan, model.configuration) for model in group.models]
    faults = [
        fault
        for plan in plans
        for fault in header_faults(", ".join(wholes), volume.shape, volume.geometry, *plan, channel_fix=_CHANNEL_FIX)
    ]
    if faults:
        raise DatasetError(list(dict.fromkeys(faults)))
    slices = VolumeSlices.of(group, volume, name)
    if slices is not None:
        return VolumePredictor(group, volume, box, name, (), slices)
    is_file = not any(map(is_location, wholes))
    statistics = None if is_file else volume_statistics(volume)  # of an image file by the crop of each plan
    prepared = (prepare_volume(volume, name, wholes, *plan, is_file=is_file, statistics=statistics) for plan in plans)
    return VolumePredictor(group, volume, box, name, tuple(prepared))


def read_box(predictor: PredictorGroup, name: str, files: Sequence[Path]) -> PreparedCase:
    """Return the box of a volume, which locations of its channels name, as a case that is predicted as a part of it.

    Its label map, and what observers see, are those of the box. Voxels are read when they are predicted; memory holds
    the planes that windows need. Since the label map of the box is made at once, its task may have a ``finish`` of its
    own; otherwise errors are those of :meth:`VolumePredictor.open`.
    """
    if predictor.needs_network_to_prepare:
        _refuse(predictor)
    volume = _opened(predictor, [str(path) for path in files], name)
    box, geometry = crop_part(volume.box, volume.record), volume.target.geometry

    def part(prepared: PreparedVolume) -> PreparedPart:
        image, whole = prepared.image(box), prepared.record
        own = {"shape_before_crop": box.shape, "crop_low": (0, 0, 0), "crop_high": box.shape}
        record = whole.model_copy(update={**own, "geometry": geometry, "shape": image.region.shape})
        return PreparedPart(image, whole, box, record)

    parts = tuple(map(part, volume.prepared))
    missing = tuple(gap.relative_to(volume.box) for gap in volume.volume.missing(volume.box))
    return PreparedCase(parts[0].record, (parts,), missing=missing)


class _Kept:
    """Observer that keeps the probabilities of the last slab."""

    needs_members = False
    probabilities: Float32Array

    def __call__(self, slab: DecidedSlab) -> None:
        self.probabilities = slab.probabilities


def _refuse(group: PredictorGroup) -> None:
    """Raise ``ConfigError`` if the models cannot predict parts of a volume."""
    first, *others = group.models
    if group.needs_network_to_prepare:
        raise ConfigError(
            f"configuration {first.configuration.name}: found the second stage of a cascade, expected a configuration "
            "that needs no other: its input is the prediction of the whole volume. Predict with -c 3d_fullres or "
            "-c 3d_lowres."
        )
    labels = group.dataset.labels
    if labels.targets:
        if others:
            raise ConfigError("several models of regression: expected one for the parts of a volume. Give one with -m.")
        return
    task = task_of(labels)
    if getattr(type(task), "finish", None) not in _FINISHES:
        raise ConfigError(
            f"task {labels.task!r}: its method finish needs the whole label map, but the parts of a volume are written "
            "one by one. Predict with a task that inherits finish, or an image that fits into memory."
        )
