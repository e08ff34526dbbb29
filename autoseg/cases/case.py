"""A case as it flows between the stages: image, target, and the record that leads back to the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.cases.layers import Layer
from autoseg.core.arrays import BoolArray, CodeArray, Shape3
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import VoxelOrder


@dataclass(frozen=True, slots=True)
class Target:
    """Which classes each voxel may still be: a map of codes and one row of classes per code."""

    codes: CodeArray
    """(*S) unsigned integers < N."""
    label_sets: BoolArray
    """(N, K). Rows 0..K-1 are the single classes, row K is "unknown" (all classes), further rows are other sets."""
    undrawn: int = -1
    """Code of voxels that nobody annotated: :func:`autoseg.dataset.labels.undrawn_code` of the labels that encoded the
    map. Left out where it is not asked, as of classes that promises leave, it is K."""

    def __post_init__(self) -> None:
        """Take "unknown" for the code of unannotated voxels where none is given."""
        if self.undrawn < 0:
            object.__setattr__(self, "undrawn", self.label_sets.shape[1])


@dataclass(frozen=True, slots=True)
class Case:
    """One image as read from its files, and its target when it has one."""

    name: str
    image: NDArray[Any]
    """(C, *S) float32, or integers of at most 16 bits as the files store them; a 2-D image has one slice."""
    geometry: Geometry
    target: Target | None = None
    layers: tuple[Layer, ...] = ()
    """Further layers, on the grid of the image."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a layer lies on another grid than the image."""
        for layer in self.layers:
            if layer.array.shape[-3:] != self.image.shape[1:]:
                raise ValueError(
                    f"case {self.name}: found the layer {layer.info.name!r} of shape {layer.array.shape[-3:]}, "
                    f"expected {self.image.shape[1:]}, as the image"
                )


class CaseRecord(BaseModel):
    """What preprocessing did to a case; enough to undo it. Axes are the plan's (turned) unless said."""

    model_config = ConfigDict(frozen=True)

    case: str
    geometry: Geometry
    """Of the file, in file axes."""
    transpose: Shape3
    """Axis of the file that became axis 0, 1, 2."""
    flipped: tuple[bool, bool, bool] = (False, False, False)
    """Whether that axis was reversed, since most training files store it the other way round."""
    shape_before_crop: Shape3
    crop_low: Shape3
    """First voxel kept."""
    crop_high: Shape3
    """One past the last voxel kept."""
    spacing_before: tuple[float, float, float]
    """mm."""
    spacing: tuple[float, float, float]
    """mm, after resampling."""
    shape: Shape3
    """After resampling."""

    @property
    def voxel_order(self) -> VoxelOrder:
        """How an array in the axes of the file is turned to the plan's."""
        return VoxelOrder(self.transpose, self.flipped)

    @property
    def shape_after_crop(self) -> Shape3:
        """Shape between crop and resampling."""
        z, y, x = (high - low for low, high in zip(self.crop_low, self.crop_high, strict=True))
        return (z, y, x)
