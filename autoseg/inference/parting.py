"""Partings of the objects of a block: connected components, a watershed on cores, a mutex watershed on affinities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from autoseg.core.arrays import BoolArray
from autoseg.core.boxes import Box
from autoseg.core.orientation import VoxelOrder
from autoseg.dataset.instance_numbers import Offset
from autoseg.io.stored_array import StoredArray
from autoseg.tasks.mutex import part_by_affinities
from autoseg.tasks.separation import UNITS, SeparationSettings, renumbered, separate


class Pairs(BaseModel):
    """Pairs of voxels of which affinities are known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    offsets: tuple[Offset, ...]
    """(A,) offsets (z, y, x) from a voxel to the other one, in the axes of the plan."""
    order: VoxelOrder = VoxelOrder()
    """What brings the axes of the array to those of the plan."""


@dataclass(frozen=True, slots=True)
class Parting:
    """How the objects of a class are told apart in a block of a volume, and the array that it needs."""

    array: StoredArray | None = None
    """(1, z, y, x) uint8, the probability of the inside of an object in 1/255; with ``pairs`` (A, z, y, x) uint8, the
    affinity of each voxel and the one at each offset; None: objects are connected components, which share faces."""
    pairs: Pairs | None = None
    """Pairs of the affinities, for :func:`autoseg.tasks.mutex.part_by_affinities`; None: objects are parted by
    :func:`autoseg.tasks.separation.separate`."""

    @property
    def n_channels(self) -> int:
        """Channels of the array."""
        return 1 if self.pairs is None else len(self.pairs.offsets)

    def read(self, box: Box) -> NDArray[np.uint8] | None:
        """Return what the array holds of a box, (C, *box), or None."""
        return None if self.array is None else self.array.read(box)

    def objects(
        self,
        mask: BoolArray,
        values: NDArray[np.uint8] | None,
        spacing: tuple[float, ...],
        settings: SeparationSettings,
        *,
        apart: int | None = None,
    ) -> NDArray[np.integer[Any]]:
        """Return the objects (*box) of any size of a class, numbered from 1 without gaps.

        Parameters
        ----------
        mask
            (*box) bool: voxels of the class.
        values
            What :meth:`read` returned of the box.
        spacing
            Edges of a voxel in mm, in the axes of the file, as those of ``mask``.
        settings
            Of the watershed on cores; nothing else has any but for the least size, which is 0 here.
        apart
            Axis along which ``mask`` has one voxel, as slices are images of their own; None: there is no such axis.
        """
        if values is None:
            components: NDArray[np.int32] = ndimage.label(mask)[0]
            return components
        if self.pairs is None:
            front = VoxelOrder() if apart is None else VoxelOrder().then([apart, *sorted({0, 1, 2} - {apart})])
            own = front.permuted(spacing)  # a single plane in front is parted as a 2-D image
            separation = settings.model_copy(update={"min_size": 0})
            return front.invert(separate(front.apply(mask), front.apply(values[0]), own, separation))
        order = self.pairs.order
        found = part_by_affinities(order.apply(mask), order.apply(values), self.pairs.offsets, top=UNITS)
        return order.invert(renumbered(found, 0))
