"""A volume on the grid of a configuration: its boxes are read, normalised and resampled when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.cases.case import CaseRecord
from autoseg.cases.volume_image import TurnedVolume
from autoseg.core.arrays import Float32Array, Shape3
from autoseg.core.boxes import Box, blocks
from autoseg.core.plan import Configuration, Plan
from autoseg.inference.boxed_image import BoxedImage
from autoseg.inference.logit_resampling import resampling_of
from autoseg.io.stored_array import StoredArray, part_of
from autoseg.preprocessing import anisotropic_axis
from autoseg.preprocessing.normalize import normalized_box
from autoseg.preprocessing.pipeline import resampled_shape, target_spacing
from autoseg.preprocessing.resample_box import resample_box, source_box
from autoseg.preprocessing.volume_content import content_of
from autoseg.preprocessing.volume_grid import is_close, level_like
from autoseg.preprocessing.volume_statistics import ChannelStatistics, volume_statistics

TILE = 128
"""Edge in voxels of what is resampled at once."""
MOST_LAYER = 128
"""Most planes that are read at once."""


@dataclass(frozen=True)
class PreparedVolume:
    """A volume as a network needs it. Axes are the plan's unless stated otherwise."""

    plan: Plan
    configuration: Configuration
    record: CaseRecord
    """Description of the preprocessing, by which the prediction is brought to the grid of the volume."""
    source: TurnedVolume
    """The volume without its empty border, or a level of its pyramid."""
    statistics: tuple[ChannelStatistics, ...]
    """Of each channel of the finest level, without the empty border."""

    def image(self, box: Box) -> BoxedImage:
        """Return the image of which the part is predicted that a box, voxels of the crop, follows from."""
        shape = (self.source.array.shape[0], *self.record.shape)
        return BoxedImage(shape, resampling_of(self.record, box).source, self.read, self.layer)

    def read(self, box: Box) -> Float32Array:
        """Return (C, *box) float32, normalised, of a box of the plan's grid, which may be empty.

        What is resampled is made in tiles that do not depend on the box, so that its last bits do not either.
        """
        before, after = self.source.shape, self.record.shape
        if before == after or not box.n_voxels:
            return self._normalized(box)
        axis, limits = anisotropic_axis(self.record.spacing_before, self.record.spacing), self._limits()
        if axis is not None:
            limits = np.repeat(limits[:, None], before[axis], axis=1)
        size: Shape3 = (self.layer, TILE, TILE)
        whole_tiles = _aligned(box, size, after)
        needed = source_box(before, after, whole_tiles, separate_axis=axis)
        source = self._normalized(needed)

        def cut(part: Box) -> Float32Array:
            return source[(slice(None), *part.relative_to(needed).slices)]

        result = np.empty((len(source), *box.shape), dtype=np.float32)
        for tile in blocks(whole_tiles, size):
            inside = tile.intersection(box)
            values = resample_box(cut, before, after, tile, limits=limits, separate_axis=axis)
            place = (slice(None), *inside.relative_to(box).slices)
            result[place] = values[(slice(None), *inside.relative_to(tile).slices)]
        return result

    def _normalized(self, box: Box) -> Float32Array:
        """Return (C, *box) float32 of a box of the source, which may be empty."""
        stored = np.ascontiguousarray(self.source.read(box))
        return normalized_box(stored, self.plan, self.configuration, self.statistics)

    def _limits(self) -> Float32Array:
        """Return the smallest and the largest normalised intensity of each channel, (C, 2)."""
        ends = np.array([(item.low, item.high) for item in self.statistics], dtype=np.float64)
        both = normalized_box(ends[:, None, None, :], self.plan, self.configuration, self.statistics)
        return both.reshape(len(ends), 2)

    @property
    def layer(self) -> int:
        """Number of planes that are read at once: about a step of the windows, in whole chunks of the source."""
        along = self.record.transpose[0]
        ratio = self.record.shape[0] / self.source.shape[0]
        chunk = max(1, round(self.source.array.chunk[along] * ratio))
        depth = self.configuration.patch_size[0] if len(self.configuration.patch_size) == 3 else 1
        wanted = max(1, depth // 2)
        return min(-(-wanted // chunk) * chunk, MOST_LAYER, self.record.shape[0])


def prepare_volume(
    volume: StoredArray,
    name: str,
    locations: Sequence[str],
    plan: Plan,
    configuration: Configuration,
    *,
    is_file: bool,
    statistics: tuple[ChannelStatistics, ...] | None = None,
) -> PreparedVolume:
    """Return a volume on the grid of a configuration, with its statistics.

    These are those of ``volume`` even if a coarser level is read, whose means vary less: a model may have been trained
    on boxes of the finest level, which are normalised by them.

    Parameters
    ----------
    volume
        (C, z, y, x) of any size, whose channels and axes fit the plan.
    name
        Name of the case.
    locations
        Of the volume; a level of its pyramid that has the plan's spacing is read instead of the finest. () if it is
        not stored as it is.
    plan, configuration
        The decisions.
    is_file
        Whether it is an image file, which is cropped to what is not 0 if the plan says so, as in memory.
    statistics
        Of the channels, if they are known; None computes them, from the finest level.
    """
    order, shape = plan.voxel_order(volume.geometry), volume.spatial_shape
    content = content_of(volume) if plan.crop and is_file else Box.whole(shape)
    crop = order.turned_box(content, shape)
    spacing_before = order.permuted(volume.geometry.spacing)
    spacing = target_spacing(spacing_before, configuration)
    source = TurnedVolume(volume, content, order)
    if content == Box.whole(shape):
        _, level = level_like(tuple(locations), volume, order, spacing)
        source = TurnedVolume(level, Box.whole(level.spatial_shape), order)
    resampled = source.shape
    if not is_close(order.permuted(source.array.geometry.spacing), spacing):
        resampled = resampled_shape(crop.shape, spacing_before, spacing)
    record = CaseRecord(
        case=name,
        geometry=volume.geometry,
        transpose=order.axes,
        flipped=order.flipped,
        shape_before_crop=order.permuted(shape),
        crop_low=crop.start,
        crop_high=crop.stop,
        spacing_before=spacing_before,
        spacing=spacing,
        shape=resampled,
    )
    if statistics is None:
        statistics = volume_statistics(volume if content == Box.whole(shape) else part_of(volume, content))
    return PreparedVolume(plan, configuration, record, source, statistics)


def _aligned(box: Box, size: Shape3, shape: Shape3) -> Box:
    """Return the smallest box of whole blocks of ``size`` that holds a box of an array of ``shape``."""
    starts = [start // length * length for start, length in zip(box.start, size, strict=True)]
    stops = [-(-stop // length) * length for stop, length in zip(box.stop, size, strict=True)]
    whole = Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2]))
    return whole.intersection(Box.whole(shape))
