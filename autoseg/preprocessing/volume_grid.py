"""The grid on which a case of a volume is read: level of a pyramid, voxels of the case, and shape of the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoseg.cases.case import CaseRecord
from autoseg.cases.scaling import Scaling
from autoseg.cases.volume_image import TurnedVolume, VolumeImage
from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import VoxelOrder
from autoseg.core.plan import Configuration, Plan
from autoseg.io.arrays import open_volume, volume_levels
from autoseg.io.stored_array import StoredArray
from autoseg.preprocessing.context import TRAINED_CONTEXT, context_margin
from autoseg.preprocessing.pipeline import anisotropic_axis, resampled_shape, target_spacing

if TYPE_CHECKING:
    from autoseg.dataset.volume_part import VolumePart

CLOSE = 0.01
"""Largest relative difference of two voxel sizes that are taken for equal, so that nothing is resampled."""


@dataclass(frozen=True)
class VolumeGrid:
    """Grid of a case of a volume before and after preprocessing."""

    locations: tuple[str, ...]
    """Locations of the level that is read, in channel order."""
    volume: StoredArray
    """All of that level."""
    inside: Box
    """Voxels of the level that are read: the case and its context."""
    own: Box
    """Voxels of the level that are the case."""
    geometry: Geometry
    """Of the case's voxels."""
    order: VoxelOrder
    """From the axes of the volume to those of the plan."""
    spacing_before: tuple[float, float, float]
    """mm, of the level; axes of the plan, as in what follows."""
    spacing: tuple[float, float, float]
    """mm, after resampling."""
    shape: Shape3
    """After resampling."""
    separate_axis: int | None

    @property
    def source(self) -> TurnedVolume:
        """The voxels that are read, in the axes of the plan."""
        return TurnedVolume(self.volume, self.inside, self.order)

    @property
    def is_resampled(self) -> bool:
        """Whether the image has other voxels than the level."""
        return self.source.shape != self.shape

    def image(self, scalings: tuple[Scaling, ...]) -> VolumeImage:
        """Return the place of the image for the cache, if it is not resampled."""
        return VolumeImage(
            locations=self.locations,
            start=self.inside.start,
            stop=self.inside.stop,
            transpose=self.order.axes,
            flipped=self.order.flipped,
            scalings=scalings,
        )

    def record(self, name: str) -> CaseRecord:
        """Return the record of the preprocessing, which crops nothing."""
        own = self.order.turned_box(self.own.relative_to(self.inside), self.inside.shape)
        return CaseRecord(
            case=name,
            geometry=self.geometry,
            transpose=self.order.axes,
            flipped=self.order.flipped,
            shape_before_crop=own.shape,
            crop_low=(0, 0, 0),
            crop_high=own.shape,
            context_low=own.start,
            context_high=Box(own.stop, self.source.shape).shape,
            spacing_before=self.spacing_before,
            spacing=self.spacing,
            shape=self.shape,
        )


def find_grid(part: VolumePart, plan: Plan, configuration: Configuration) -> VolumeGrid:
    """Return the grid of a case of a volume; no voxels are read.

    A level of the pyramid whose voxels are within 1 % of those that the plan wants, on every axis, is read as it is;
    without one the finest level is resampled. Of a box in a volume only the finest level is read.

    Raises
    ------
    FileFormatError
        If the volume cannot be opened.
    """
    finest = open_volume(part.images)
    order = plan.voxel_order(finest.geometry)
    wanted = target_spacing(order.permuted(finest.geometry.spacing), configuration)
    locations, volume = part.images, finest
    for of_level, geometry in () if part.box is not None else volume_levels(part.images):
        if is_close(order.permuted(geometry.spacing), wanted):
            locations, volume = of_level, open_volume(of_level)
            break
    whole = Box.whole(volume.spatial_shape)
    own, inside, geometry = whole, whole, volume.geometry
    if part.box is not None:
        margin = context_margin(plan, configuration, volume.geometry, TRAINED_CONTEXT)
        own, inside = part.box, part.box.grown(margin).intersection(whole)
        geometry = open_volume(part.image_paths).geometry
    before = order.permuted(volume.geometry.spacing)
    shape = order.permuted(inside.shape)
    separate = None
    if is_close(before, wanted):
        wanted = before
    else:
        shape, separate = resampled_shape(shape, before, wanted), anisotropic_axis(before, wanted)
    return VolumeGrid(locations, volume, inside, own, geometry, order, before, wanted, shape, separate)


def is_close(spacing: Sequence[float], wanted: Sequence[float]) -> bool:
    """Whether voxels of ``spacing`` are taken for those of another, in the same axes."""
    return all(math.isclose(edge, other, rel_tol=CLOSE) for edge, other in zip(spacing, wanted, strict=True))
