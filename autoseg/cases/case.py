"""A case in memory: image, target, and the record of its preprocessing, by which it is mapped back to the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.cases.layers import Layer
from autoseg.core.arrays import BoolArray, CodeArray, Float32Array, LabelMap, Shape3
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
    spacing_before: tuple[float, float, float]
    """Spacing of the file, mm."""
    spacing: tuple[float, float, float]
    """Spacing after resampling, mm."""
    shape: Shape3
    """Shape after resampling."""

    @property
    def voxel_order(self) -> VoxelOrder:
        """Permutation and flips from the axes of the file to the plan's."""
        return VoxelOrder(self.transpose, self.flipped)

    @property
    def shape_after_crop(self) -> Shape3:
        """Shape after the crop, before resampling."""
        z, y, x = (high - low for low, high in zip(self.crop_low, self.crop_high, strict=True))
        return (z, y, x)
