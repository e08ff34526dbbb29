"""Outputs of the prediction of a volume: arrays in its axes, written shard by shard as planes arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box, blocks
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.volume_units import Unit
from autoseg.io.stored_array import StoredArray
from autoseg.io.zarr_writer import ZarrWriter


@dataclass(frozen=True)
class VolumeOutput:
    """One array (C, z, y, x) that a prediction writes."""

    writer: ZarrWriter
    fill: tuple[float, ...]
    """(C,) values of voxels that are not predicted: outside the crop, and where the volume has no data."""
    values: Callable[[DecidedSlab], NDArray[Any]]
    """Function that returns (C, planes, y, x) of a slab."""
    needs_members: bool = False
    """Whether it needs the probabilities of each member."""


class ShardLayers:
    """Layers of shards that are filled plane by plane, and written when they are full.

    Memory holds one layer of each output. What is not predicted has the value of ``VolumeOutput.fill``.
    """

    def __init__(
        self, outputs: Sequence[VolumeOutput], unit: Unit, record: CaseRecord, volume: StoredArray, origin: Shape3
    ) -> None:
        """Begin with a unit, which counts from the voxel ``origin`` of the volume."""
        self._outputs, self._record, self._volume, self._origin = outputs, record, volume, origin
        self._inside = self._crop(unit.box)
        self._layers = list(unit.layers)
        self.n_written = 0
        self._next = self._inside.start[0]
        self._buffers: list[NDArray[Any]] = []

    @property
    def needs_members(self) -> bool:
        """Whether an output needs the probabilities of each member."""
        return any(output.needs_members for output in self._outputs)

    def __call__(self, slab: DecidedSlab) -> None:
        """Take in a slab of classes."""
        self.put([output.values(slab) for output in self._outputs])

    def put(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Take in the next planes (C, planes, y, x) of each output, in the plan's axes."""
        done, n_planes = 0, arrays[0].shape[1]
        while done < n_planes:
            self._skip_empty()
            stop = self._crop(self._layers[0]).stop[0]
            count = min(n_planes - done, stop - self._next)
            for array, buffer in zip(arrays, self._buffers, strict=True):
                self._fill(buffer, array[:, done : done + count])
            self._next += count
            done += count
            if self._next == stop:
                self._write()

    def finish(self) -> None:
        """Write the layers that lie outside the crop; called last."""
        while self._layers:
            self._begin()
            self._write()

    def _skip_empty(self) -> None:
        """Begin the layer of the next plane, if it has not begun; write those before it that lie outside the crop."""
        while not self._buffers:
            self._begin()
            if not self._crop(self._layers[0]).n_voxels:
                self._write()

    def _crop(self, box: Box) -> Box:
        return crop_part(box.shifted(self._origin), self._record)

    def _begin(self) -> None:
        shape = self._layers[0].shape
        for output in self._outputs:
            buffer = np.empty((len(output.fill), *shape), dtype=output.writer.dtype)
            buffer[...] = _per_channel(output, buffer)
            self._buffers.append(buffer)

    def _fill(self, buffer: NDArray[Any], planes: NDArray[Any]) -> None:
        """Put planes (C, planes, y, x) into a buffer (C, *layer), which has the axes of the file."""
        (_, y0, x0), (_, y1, x1) = self._inside.start, self._inside.stop
        part = Box((self._next, y0, x0), (self._next + planes.shape[1], y1, x1))
        of_file = file_part(part, self._record).relative_to(self._layers[0].shifted(self._origin))
        buffer[(slice(None), *of_file.slices)] = self._record.voxel_order.inverse.apply(planes)

    def _write(self) -> None:
        """Write the shards of the first layer, and forget it."""
        layer = self._layers.pop(0)
        of_file = layer.shifted(self._origin)
        gaps = [gap.relative_to(of_file) for gap in self._volume.missing(of_file)]
        for output, buffer in zip(self._outputs, self._buffers, strict=True):
            for gap in gaps:
                buffer[(slice(None), *gap.slices)] = _per_channel(output, buffer)
            for shard in blocks(layer, output.writer.shard):
                output.writer.write(shard, buffer[(slice(None), *shard.relative_to(layer).slices)])
        self._buffers = []
        self.n_written += 1


def _per_channel(output: VolumeOutput, buffer: NDArray[Any]) -> NDArray[Any]:
    """Return the fill of each channel as (C, 1, 1, 1), in the type of a buffer."""
    return np.array(output.fill, dtype=buffer.dtype).reshape(-1, 1, 1, 1)


def crop_part(box: Box, record: CaseRecord) -> Box:
    """Return the part of a box of the file that lies in the crop, in voxels of the crop and the axes of the plan."""
    order = record.voxel_order
    shape: Shape3 = order.inverse.permuted(record.shape_before_crop)
    inside = order.turned_box(box, shape).intersection(Box(record.crop_low, record.crop_high))
    return inside.relative_to(Box(record.crop_low, record.crop_high))


def file_part(box: Box, record: CaseRecord) -> Box:
    """Return a box of the crop, in the axes of the plan, as a box of the file."""
    return record.voxel_order.inverse.turned_box(box.shifted(record.crop_low), record.shape_before_crop)
