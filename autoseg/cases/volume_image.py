"""The image of a case that lies in a volume on disk: its boxes are turned and normalised when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.cases.scaling import Scaling, scaled
from autoseg.core.arrays import Float32Array, Shape3
from autoseg.core.boxes import Box
from autoseg.core.orientation import VoxelOrder
from autoseg.io.arrays import open_volume
from autoseg.io.stored_array import StoredArray, refuse_broken


class VolumeImage(BaseModel):
    """Place of the image of a case, and its normalisation."""

    model_config = ConfigDict(frozen=True)

    locations: tuple[str, ...]
    """Locations of the volume, or of the level of its pyramid that is read, in channel order."""
    start: Shape3
    """First voxel of the case in that array."""
    stop: Shape3
    """One past its last voxel."""
    transpose: Shape3
    """Axes of the array that become axes 0, 1, 2."""
    flipped: tuple[bool, bool, bool]
    """Whether each axis is reversed then."""
    scalings: tuple[Scaling, ...]
    """One per channel."""

    @property
    def box(self) -> Box:
        """Voxels of the case in the array."""
        return Box(self.start, self.stop)

    @property
    def order(self) -> VoxelOrder:
        """Permutation and flips from the axes of the array to those of the case."""
        return VoxelOrder(self.transpose, self.flipped)

    def open(self) -> TurnedVolume:
        """Open the volume. Raises ``FileFormatError`` if it is not there any more."""
        return TurnedVolume(open_volume(self.locations), self.box, self.order)


@dataclass(frozen=True, slots=True)
class TurnedVolume:
    """A box of an array, in other axes."""

    array: StoredArray
    inside: Box
    """Voxels of the array that are the case."""
    order: VoxelOrder

    @property
    def shape(self) -> Shape3:
        """(z, y, x) of the case."""
        return self.order.permuted(self.inside.shape)

    def stored_box(self, box: Box) -> Box:
        """Return the box of the array that a box of the case stands for."""
        return self.order.inverse.turned_box(box, self.shape).shifted(self.inside.start)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the values (C, *box) of a box of the case, in the type of the array; 0 where they are missing.

        Raises ``FileFormatError`` naming the voxels if a value is NaN or infinite.
        """
        of_array = self.stored_box(box)
        values = self.array.read(of_array)
        refuse_broken(values, self.array.location, of_array)
        return self.order.apply(values)


def read_scaled(volume: TurnedVolume, box: Box, scalings: tuple[Scaling, ...]) -> Float32Array:
    """Return the normalised intensities (C, *box) of a box of a case, float32, C-contiguous."""
    return scaled(np.ascontiguousarray(volume.read(box)), scalings)
