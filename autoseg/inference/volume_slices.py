"""Volume of any size for models of 2-D images: a stack, of which memory holds a few slices at a time.

A slice is predicted as that image alone, with its own crop and normalisation. So it is read as a whole, and only whole
slices are parts of the work. A stack that fits into memory is put together by :mod:`autoseg.inference.prepared`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array, LabelMap, Shape3
from autoseg.core.boxes import Box
from autoseg.core.channel_statistics import ChannelStatistics
from autoseg.core.pipelined import background_thread, map_in_background
from autoseg.inference.decided import DecidedSlab, Observer, needs_members
from autoseg.inference.predictor_group import (
    PredictorGroup,
    PreparedRegion,
    decided_logits,
    numbers_of_image,
    region_logits,
)
from autoseg.inference.prepared import PlacedSlice, PreparedPart, n_slices, slice_case, slice_place, stack_record
from autoseg.inference.volume_outputs import file_part
from autoseg.inference.window import Slab
from autoseg.io.stored_array import StoredArray, refuse_broken
from autoseg.preprocessing import Preprocessed
from autoseg.preprocessing.volume_statistics import volume_statistics


@dataclass(frozen=True)
class VolumeSlices:
    """A volume as slices along the plan's first axis, each of which is an image of its own."""

    group: PredictorGroup
    volume: StoredArray
    record: CaseRecord
    """Record of the stack, without crop; boxes and planes below are in its axes, those of the plan."""
    statistics: tuple[ChannelStatistics, ...]
    """Of each channel of the volume. No slice is normalised by them; they tell one volume from another."""

    @classmethod
    def of(cls, group: PredictorGroup, volume: StoredArray, name: str) -> VolumeSlices | None:
        """Return the slices of a volume; None if it has one, or if the models predict a volume as a whole.

        Models of boxes do, even of boxes of one slice: these were normalised by the statistics of their volume.
        """
        plan = group.models[0].plan
        is_whole = any(model.dataset.labels.has_boxes for model in group.models)
        if is_whole or n_slices(volume.shape, volume.geometry, plan) == 1:
            return None
        record = stack_record(name, volume.spatial_shape, volume.geometry, plan)
        return cls(group, volume, record, volume_statistics(volume))

    def continued(self, volume: StoredArray) -> VolumeSlices:
        """Return the slices of ``volume``, which holds this one and its continuation; statistics stay."""
        plan = self.group.models[0].plan
        record = stack_record(self.record.case, volume.spatial_shape, volume.geometry, plan)
        return replace(self, volume=volume, record=record)

    @property
    def slice_shape(self) -> Shape3:
        """Voxels (z, y, x) of a slice in the axes of the file."""
        z, y, x = self.record.voxel_order.inverse.permuted((1, *self.record.shape[1:]))
        return (z, y, x)

    def decided_slabs(
        self, box: Box, observers: Sequence[Observer] = (), pool: Executor | None = None
    ) -> Iterator[tuple[int, LabelMap]]:
        """Yield ``(plane of the box, file values (1, y, x))`` of each slice within a box that is not empty.

        With ``pool`` a slice is decided, and taken in by the observers, while networks compute the next.
        """

        def computed() -> Iterator[tuple[int, list[PreparedRegion], list[list[Slab]]]]:
            for index, image in self._prepared(box):
                regions = [PreparedRegion(own.image, own.record) for own in image]
                yield index, regions, [list(slabs) for slabs in region_logits(self.group, regions, observers)]

        def decided(item: tuple[int, list[PreparedRegion], list[list[Slab]]]) -> tuple[int, LabelMap]:
            index, regions, logits = item
            cut = _Cut(box, observers)
            placed = PlacedSlice(index, regions[0].record, self.group.dataset.labels, (cut,))
            for _ in decided_logits(self.group, regions, logits, (placed,)):
                pass
            return index - box.start[0], cut.values

        return map(decided, computed()) if pool is None else map_in_background(pool, decided, computed())

    def number_slabs(self, box: Box, pool: Executor | None = None) -> Iterator[tuple[int, Float32Array]]:
        """Yield ``(plane of the box, numbers (R, 1, y, x))`` of each slice within a box, by models of regression."""
        _, *across = box.slices
        for index, image in self._prepared(box):
            numbers = self.record.voxel_order.apply(numbers_of_image(self.group, image, pool))
            yield index - box.start[0], numbers[:, :, *across]

    def _prepared(self, box: Box) -> Iterator[tuple[int, tuple[Preprocessed | PreparedPart, ...]]]:
        """Yield index and image, prepared for each model, of each slice of a box; the next is prepared meanwhile."""
        with background_thread() as reader:
            yield from map_in_background(reader, self._prepare, range(box.start[0], box.stop[0]))

    def _prepare(self, index: int) -> tuple[int, tuple[Preprocessed | PreparedPart, ...]]:
        _, height, width = self.record.shape
        box = file_part(Box((index, 0, 0), (index + 1, height, width)), self.record)
        stored = self.volume.read(box)
        refuse_broken(stored, self.volume.location, box)
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, which is refused
            image = np.require(stored, np.float32, ["C", "W"])
        case = slice_case(self.record, slice_place(self.record, index), image, self.group.models[0].plan)
        (prepared,) = self.group.prepare(case).images
        return index, prepared


class _Cut:
    """Observer of a whole slice that hands on the part of it within a box, and keeps its values."""

    values: LabelMap

    def __init__(self, box: Box, observers: Sequence[Observer]) -> None:
        self._first, self._observers = box.start[0], observers
        _, self._y, self._x = box.slices

    @property
    def needs_members(self) -> bool:
        """Whether an observer needs the probabilities of each member."""
        return needs_members(self._observers)

    def __call__(self, slab: DecidedSlab) -> None:
        """Hand on the slice."""
        part = (slice(None), slice(None), self._y, self._x)
        self.values = slab.values[part[1:]]
        cores = None if slab.cores is None else slab.cores[part]
        members = tuple(member[part] for member in slab.members)
        pairs = None if slab.affinities is None else slab.affinities[part]
        own = DecidedSlab(slab.first - self._first, self.values, slab.probabilities[part], members, cores, pairs)
        for observe in self._observers:
            observe(own)
