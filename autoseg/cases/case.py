"""A case in memory: image, target, and the record of its preprocessing, by which it is mapped back to the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.cases.layers import Layer
from autoseg.core.arrays import BoolArray, CodeArray, Float32Array, LabelMap, Shape3
from autoseg.core.boxes import Box
from autoseg.core.channel_statistics import ChannelStatistics
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import VoxelOrder


@dataclass(frozen=True, slots=True)
class Target:
    """Possible classes of each voxel: a map of codes, and one row of classes per code."""

    codes: CodeArray
    """(*S) unsigned integers < N."""
    label_sets: BoolArray
    """(N, K) bool. Rows 0..K-1 are the single classes, row K is all classes ("unknown"), further rows other sets."""
    undrawn: int
    """Code of unannotated voxels: :func:`autoseg.dataset.labels.undrawn_code` of the labels that encoded the map."""
    numbers: Float32Array | None = None
    """(R, *S) float32 targets of a regression, NaN where unknown; None for classes."""
    levels: CodeArray | None = None
    """(*S) index into ``dataset.labels.weight_levels`` of how much each voxel counts in training, one past the last
    where it is unannotated; None if all voxels count the same."""
    objects: LabelMap | None = None
    """(*S) uint16 or uint32 number of the object of each voxel, 0 where there is none; None unless label files hold
    numbers of objects."""


@dataclass(frozen=True, slots=True)
class Case:
    """One image as read from its files, with its target if it is annotated."""

    name: str
    image: NDArray[Any]
    """(C, *S) float32, or integers of at most 16 bits as the files store them; a 2-D image has one slice."""
    geometry: Geometry
    target: Target | None = None
    layers: tuple[Layer, ...] = ()
    """Further layers, on the grid of the image; may be empty."""
    box: Box | None = None
    """Voxels of the image that are the case, of which its geometry and its label map are; around them lies context.
    None: all of the image."""
    statistics: tuple[ChannelStatistics, ...] | None = None
    """Intensities of each channel of the volume that the image is a part of; None: it is a part of none."""

    @property
    def own_image(self) -> NDArray[Any]:
        """The image (C, *S) without context."""
        return self.image if self.box is None else self.image[(slice(None), *self.box.slices)]

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a layer lies on another grid than the image."""
        for layer in self.layers:
            if layer.array.shape[-3:] != self.image.shape[1:]:
                raise ValueError(
                    f"case {self.name}: found the layer {layer.info.name!r} of shape {layer.array.shape[-3:]}, "
                    f"expected {self.image.shape[1:]}, as the image"
                )


class CaseRecord(BaseModel):
    """Record of the preprocessing of a case, sufficient to undo it. Axes are the plan's unless stated otherwise."""

    model_config = ConfigDict(frozen=True)

    case: str
    geometry: Geometry
    """Geometry of the file, in the axes of the file."""
    transpose: Shape3
    """Axes of the file that became axes 0, 1, 2 of the plan."""
    flipped: tuple[bool, bool, bool] = (False, False, False)
    """Whether each axis was reversed, because most training files store it in the opposite direction."""
    shape_before_crop: Shape3
    """Shape of the whole image in voxels."""
    crop_low: Shape3
    """First voxel of the crop."""
    crop_high: Shape3
    """One past the last voxel of the crop."""
    context_low: Shape3 = (0, 0, 0)
    """Voxels of context that were read before the crop on each axis; they are part of the preprocessed image."""
    context_high: Shape3 = (0, 0, 0)
    """Voxels of context that were read behind it."""
    spacing_before: tuple[float, float, float]
    """Spacing of the file, mm."""
    spacing: tuple[float, float, float]
    """Spacing after resampling, mm."""
    shape: Shape3
    """Shape after resampling, with context."""

    @property
    def voxel_order(self) -> VoxelOrder:
        """Permutation and flips from the axes of the file to the plan's."""
        return VoxelOrder(self.transpose, self.flipped)

    @property
    def shape_after_crop(self) -> Shape3:
        """Shape after the crop, before resampling, without context."""
        z, y, x = (high - low for low, high in zip(self.crop_low, self.crop_high, strict=True))
        return (z, y, x)

    @property
    def shape_before_resampling(self) -> Shape3:
        """Shape after the crop, before resampling, with context."""
        z, y, x = (
            before + edge + behind
            for before, edge, behind in zip(self.context_low, self.shape_after_crop, self.context_high, strict=True)
        )
        return (z, y, x)

    @property
    def has_context(self) -> bool:
        """Whether the preprocessed image reaches beyond the case."""
        return any((*self.context_low, *self.context_high))

    @property
    def own_box(self) -> Box:
        """Voxels of the preprocessed image whose centres lie in the crop; all of it without context."""
        spans = [
            (math.ceil(before * after / whole - 0.5), math.ceil((before + edge) * after / whole - 0.5))
            for before, edge, whole, after in zip(
                self.context_low, self.shape_after_crop, self.shape_before_resampling, self.shape, strict=True
            )
        ]
        (z0, z1), (y0, y1), (x0, x1) = spans
        return Box((z0, y0, x0), (z1, y1, x1))
