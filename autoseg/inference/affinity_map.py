"""Affinities of a predicted case, kept as its logits come, by which its objects are parted after the last slab."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from skimage.segmentation import watershed

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import BoolArray, Float32Array, LabelMap
from autoseg.dataset.labels import Labels
from autoseg.inference.prepared import Separate
from autoseg.preprocessing import restore
from autoseg.preprocessing.axes import nearest_indices
from autoseg.preprocessing.crop import box_slices
from autoseg.tasks.affinities import Affinities
from autoseg.tasks.mutex import check_offsets, part_by_affinities
from autoseg.tasks.separation import UNITS, SeparationSettings, as_units, renumbered, with_unmarked


class AffinityMap:
    """Affinities of a case on the plan's grid, on which the offsets of the model count voxels.

    They take A bytes per voxel of that grid, 2 A if several models are averaged.
    """

    def __init__(self, record: CaseRecord, labels: Labels, n_models: int = 1) -> None:
        """Raise ``ConfigError`` if the offsets of the model cannot part objects of the case."""
        self.offsets = () if labels.instances is None else labels.instances.offsets
        check_offsets(f"case {record.case}", self.offsets, record.shape)
        self._record = record
        self._task = Affinities(labels)
        self._top = UNITS * n_models
        self._total = np.zeros((len(self.offsets), *record.shape), dtype=np.min_scalar_type(self._top))

    def keep_logits(self, first: int, logits: Float32Array) -> None:
        """Add the affinities of a slab of logits (O, planes, y, x) of one model; ``first`` is its first plane.

        More outputs, such as those of members, may follow.
        """
        self._total[:, first : first + logits.shape[1]] += as_units(expit(self._task.affinity_logits(logits)))

    def separation(self, settings: SeparationSettings, slice_axis: int | None = None) -> Separate:
        """Return :meth:`part` as a function that disregards probabilities and spacing.

        If the case is a slice of a volume along ``slice_axis`` of the file, masks and objects have that axis in front.
        """
        axis = 0 if slice_axis is None else slice_axis

        def part(mask: BoolArray, *_: object) -> LabelMap:
            return np.moveaxis(self.part(np.moveaxis(mask, 0, axis), settings), axis, 0)

        return part

    def part(self, mask: BoolArray, settings: SeparationSettings) -> LabelMap:
        """Return the objects (z, y, x) of a class in the file's axes, numbered from 1; ``mask`` are its voxels there.

        They are parted on the plan's grid. If that is another one than the file's, each voxel of the mask belongs to
        the object of the nearest voxel of the plan's grid; voxels that have none there to the object that grows to
        them first within the mask, and parts of the mask without one are objects of their own. Of ``settings`` only
        the least size counts.
        """
        record = self._record
        on_crop = record.voxel_order.apply(mask)[box_slices(record.crop_low, record.crop_high)]
        on_grid, own = np.zeros(record.shape, dtype=bool), record.own_box  # around it lies context
        on_grid[own.slices] = _nearest(on_crop, own.shape)
        objects = part_by_affinities(on_grid, self._total, self.offsets, top=self._top)
        moved = _nearest(objects[own.slices], record.shape_after_crop).astype(np.int32) * on_crop
        if (moved[on_crop] == 0).any():
            markers = with_unmarked(moved, on_crop)
            moved = watershed(np.zeros(markers.shape, dtype=np.uint8), markers, mask=on_crop)
        return renumbered(restore(moved.astype(np.uint32), record), settings.min_size)


def _nearest(array: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Return an array (z, y, x) on a grid of ``shape`` of the same extent, each voxel from the nearest one.

    Of an array without voxels all are 0.
    """
    if array.shape == shape:
        return array
    if not array.size:
        return np.zeros(shape, dtype=array.dtype)
    taken: NDArray[Any] = array[np.ix_(*map(nearest_indices, array.shape, shape))]
    return taken
