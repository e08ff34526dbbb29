"""Memory that a column of a volume needs while it is predicted, by which the width of columns is chosen."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box
from autoseg.core.plan import Configuration
from autoseg.core.resources import GB, free_memory
from autoseg.inference.logit_resampling import resampling_of
from autoseg.inference.model import Model
from autoseg.inference.prepared_volume import PreparedVolume
from autoseg.inference.volume_slices import VolumeSlices
from autoseg.inference.window import SLAB_VALUES, default_batch, window_shape
from autoseg.preprocessing.pipeline import resampled_shape, target_spacing
from autoseg.tasks.task import outputs_of

_FEATURE_MAPS = 8
"""Feature maps of the finest stage that a network holds at a time."""
_SLAB_COPIES = 8
"""Arrays of the size of a slab of logits: the slab, resampled, decided, its probabilities, in two slabs at a time."""

_SLICE_COPIES = 4
"""Arrays of the size of the logits of a slice: resampled, their probabilities, and those moved to their place; one slab
at a time."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a prediction holds in memory, by which the bytes of a column follow from its width."""

    volume: PreparedVolume
    n_outputs: int
    """Logits of a voxel."""
    n_stacked: int
    """Sums of each logit: 1, and one for each member if those are needed."""
    written_bytes: int
    """Bytes of a voxel in all outputs that are written."""
    shard_depth: int
    """Planes of a shard along the axis of columns."""
    fixed: int
    """Bytes that do not depend on the width: feature maps, windows and their logits."""

    def bytes_of(self, column: Box) -> int:
        """Return the bytes for a column, a box of the crop in the plan's axes that is not empty.

        The sum over image planes within the reach of windows (:class:`~.boxed_image.RollingPlanes`: twice those of a
        patch and a layer, two layers that are read ahead, and what is read of the source for one), the sums of windows
        (:class:`~.plane_sums.PlaneSums`), copies of a slab, and two layers of shards of each output.
        """
        record, patch = self.volume.record, window_shape(self.volume.configuration.patch_size)
        n_sums = self.n_outputs * self.n_stacked
        n_channels, itemsize = self.volume.source.array.shape[0], self.volume.source.array.dtype.itemsize
        layer = self.volume.layer
        region = resampling_of(record, column).source.shape
        reach = [
            min(edge + 2 * (size - 1), whole) for edge, size, whole in zip(region, patch, record.shape, strict=True)
        ]
        plane = math.prod(max(edge, size) for edge, size in zip(reach[1:], patch[1:], strict=True))
        ratio = math.prod(self.volume.source.shape) / math.prod(record.shape)
        read = layer * plane * n_channels * (4 + (0 if ratio == 1 else 12 * ratio) + ratio * (itemsize + 5))
        image = 4 * n_channels * plane * (2 * (patch[0] + layer) + layer) + read
        sums = 4 * n_sums * patch[0] * region[1] * region[2]
        slab = 4 * _SLAB_COPIES * max(SLAB_VALUES * self.n_stacked, n_sums * math.prod(column.shape[1:]))
        layers = 2 * self.written_bytes * self.shard_depth * math.prod(column.shape[1:])
        return int(image + sums + slab + layers) + self.fixed


@dataclass(frozen=True, slots=True)
class SliceNeed:
    """What the prediction of a stack holds in memory: a few slices, from the one that is read to that which is written.

    Fields as for :class:`MemoryNeed`.
    """

    slices: VolumeSlices
    configuration: Configuration
    n_outputs: int
    n_stacked: int
    written_bytes: int
    fixed: int

    def bytes_of(self, column: Box) -> int:
        """Return the bytes, given the part of each slice that is written, as a box in the plan's axes.

        The sum over five slices as a network sees them (two decided, one predicted, two prepared), the reading of one
        (as stored, as numbers, normalised), the logits of two and the sums of windows of one, copies of the logits
        while they are decided, and two slices of each output.
        """
        record, volume = self.slices.record, self.slices.volume
        before = math.prod(record.shape[1:])
        spacing = target_spacing(record.spacing_before, self.configuration)
        patch = window_shape(self.configuration.patch_size)
        after = math.prod(map(max, resampled_shape(record.shape, record.spacing_before, spacing)[1:], patch[1:]))
        image = volume.shape[0] * (before * (volume.dtype.itemsize + 12) + 20 * after)
        n_sums = self.n_outputs * self.n_stacked
        logits = 4 * 3 * n_sums * after + 4 * _SLICE_COPIES * n_sums * before
        return int(image + logits + 2 * self.written_bytes * math.prod(column.shape[1:])) + self.fixed


def fixed_bytes(model: Model, batch_size: int | None, device: torch.device) -> int:
    """Return the bytes of main memory for windows, their logits and, on a processor, the feature maps of a network."""
    patch, topology = model.configuration.patch_size, model.configuration.topology
    windows = batch_size or default_batch(patch, device)
    maps = _FEATURE_MAPS * topology.features[0] if device.type == "cpu" else 0
    return 4 * windows * math.prod(patch) * (2 + maps + 4 * len(outputs_of(model.dataset.labels)))


def memory_budget(memory_gb: float | None) -> float:
    """Return the bytes that a prediction may take beside what this process has: of ``memory_gb`` in all (10**9 bytes).

    None is half of the free memory; without a limit if that is unknown.
    """
    if memory_gb is not None:
        return memory_gb * GB - resident_memory()
    free = free_memory()
    return math.inf if free is None else free / 2


def resident_memory() -> int:
    """Return the bytes of main memory that this process holds; 0 if the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def wide_patch(volume: PreparedVolume) -> Shape3:
    """Return the shape of a window in voxels of the volume, in the axes of the file, at least 1."""
    record = volume.record
    patch = window_shape(volume.configuration.patch_size)
    edges = [
        max(1, round(size * after / before))
        for size, after, before in zip(patch, record.shape_after_crop, record.shape, strict=True)
    ]
    z, y, x = record.voxel_order.inverse.permuted(edges)
    return (z, y, x)
