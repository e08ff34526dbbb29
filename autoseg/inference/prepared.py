"""A case on the grid of the models that predict it, and the stack of slices that a volume is for models of 2-D images.

A model that was trained on 2-D images predicts each slice of a volume as it predicts that image alone: cropped,
normalised and resampled by itself. What follows from the slices is put together on the grid of the volume, so that
every output sees one case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.case import Case, CaseRecord
from autoseg.core.arrays import BoolArray, Float32Array, LabelMap
from autoseg.core.boxes import Box
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Plan
from autoseg.dataset.labels import Labels, background_value
from autoseg.inference.boxed_image import BoxedImage
from autoseg.inference.decided import DecidedSlab, Observer, needs_members
from autoseg.inference.export import outside_probabilities
from autoseg.preprocessing import Preprocessed

Separate = Callable[[BoolArray, NDArray[np.uint8], tuple[float, ...]], LabelMap]
"""(mask (z, y, x), probability (z, y, x) in 1/255, spacing in mm) -> objects (z, y, x), numbered from 1."""


@dataclass(frozen=True, eq=False, slots=True)
class PreparedPart:
    """A box of a volume on the grid of a network, with the windows of the whole volume."""

    boxed: BoxedImage
    """The volume, and the region of the plan's grid that the box follows from."""
    whole: CaseRecord
    """Of the volume."""
    box: Box
    """Voxels of the volume that are decided, in the plan's axes."""
    record: CaseRecord
    """Of the box as a case of its own, whose preprocessed image is the region."""

    @property
    def image(self) -> Float32Array:
        """The region (C, z, y, x); it is read anew each time."""
        return self.boxed.read(self.boxed.region)


@dataclass(frozen=True, slots=True)
class PreparedCase:
    """A case as it enters the networks."""

    record: CaseRecord
    """Of the case for the first model; of a stack, that of the volume, without crop."""
    images: tuple[tuple[Preprocessed | PreparedPart, ...], ...]
    """For each image that is predicted by itself, one for each model: the case, each slice along the plan's first axis,
    in the order of the plan, or a part of a volume."""
    slice_axis: int | None = None
    """Axis of the file along which the slices lie; None if the case is one image."""
    missing: tuple[Box, ...] = ()
    """Boxes of the label map, in the axes of the file, of which there are no data: they are background."""

    @property
    def slice_spacing(self) -> tuple[float, ...]:
        """Spacing (mm, axes of the file) of each image; of a slice, that across it is that of the training images."""
        return self.images[0][0].record.geometry.spacing if self.images else self.record.geometry.spacing

    def by_slices(self, separation: Callable[[int], Separate]) -> Separate:
        """Return a separation that parts the objects of each slice alone, with numbers that no other slice has.

        ``separation`` returns that of an image, by its index in ``images``; of a case that is one image it is that.
        """
        if self.slice_axis is None:
            return separation(0)
        axis, spacing = self.slice_axis, _in_front(self.slice_spacing, self.slice_axis)

        def of_slices(mask: BoolArray, probability: NDArray[np.uint8], _: tuple[float, ...]) -> LabelMap:
            objects, highest = np.zeros(mask.shape, dtype=np.uint32), 0
            pairs = zip(*(np.moveaxis(array, axis, 0) for array in (mask, probability)), strict=True)
            indices = range(len(self.images))[:: -1 if self.record.flipped[0] else 1]
            planes = zip(indices, np.moveaxis(objects, axis, 0), pairs, strict=True)
            for index, plane, (own, probable) in planes:
                found = separation(index)(own[None], probable[None], spacing)[0]
                np.copyto(plane, found + np.uint32(highest), where=found > 0)
                highest += int(found.max(initial=0))
            return objects

        return of_slices

    def placed(self, index: int, observers: Sequence[Observer], labels: Labels) -> tuple[Observer, ...]:
        """Return observers of image ``index`` that hand ``observers`` its slabs as planes of the whole case."""
        if self.slice_axis is None or not observers:
            return tuple(observers)
        return (PlacedSlice(index, self.images[index][0].record, labels, tuple(observers)),)

    def put_together(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return one array (..., z, y, x) of the file from that of each image, in the order of ``images``."""
        if self.slice_axis is None:
            return arrays[0]
        in_order = arrays[::-1] if self.record.flipped[0] else arrays
        return np.concatenate(in_order, axis=self.slice_axis - 3)


@dataclass(frozen=True, slots=True)
class PlacedSlice:
    """Observer of a slice that hands its slab to those of the volume: outside its crop there is background."""

    index: int
    record: CaseRecord
    labels: Labels
    observers: tuple[Observer, ...]

    @property
    def needs_members(self) -> bool:
        """Whether an observer of the volume needs the probabilities of each member."""
        return needs_members(self.observers)

    def __call__(self, slab: DecidedSlab) -> None:
        """Hand on the slab of the slice, its only plane."""
        outside = outside_probabilities(self.labels)
        placed = DecidedSlab(
            self.index,
            self._whole(slab.values[None], [background_value(self.labels)])[0],
            self._whole(slab.probabilities, outside),
            tuple(self._whole(member, outside) for member in slab.members),
            None if slab.cores is None else self._whole(slab.cores, [0] * len(slab.cores)),
            None if slab.affinities is None else self._whole(slab.affinities, [0] * len(slab.affinities)),
        )
        for observe in self.observers:
            observe(placed)

    def _whole(self, planes: NDArray[Any], fills: Sequence[int]) -> NDArray[Any]:
        """Return maps (M, 1, y, x) of the crop in the whole slice, ``fills`` outside; as they are without a crop."""
        record = self.record
        if record.shape_after_crop == record.shape_before_crop:
            return planes
        whole = np.empty((len(planes), *record.shape_before_crop), planes.dtype)
        whole[...] = np.reshape(fills, (-1, 1, 1, 1))
        (_, y, x), (_, y_stop, x_stop) = record.crop_low, record.crop_high
        whole[:, :, y:y_stop, x:x_stop] = planes
        return whole


def n_slices(shape: Sequence[int], geometry: Geometry, plan: Plan) -> int:
    """Return the number of slices of an image of ``shape`` (C, z, y, x) that are predicted each by itself.

    1 for a model of volumes, which predicts an image as a whole.
    """
    return shape[1 + plan.voxel_order(geometry).axes[0]] if plan.is_of_2d_images else 1


def whole_image(prepared: tuple[Preprocessed, ...]) -> PreparedCase:
    """Return a case that is one image, prepared for each model."""
    return PreparedCase(prepared[0].record, (prepared,))


def stack_record(name: str, shape: Sequence[int], geometry: Geometry, plan: Plan) -> CaseRecord:
    """Return the record of a stack of ``shape`` (z, y, x) in the axes of its file: no crop, nothing resampled."""
    order = plan.voxel_order(geometry)
    own, spacing = order.permuted(shape), order.permuted(geometry.spacing)
    return CaseRecord(
        case=name, geometry=geometry, transpose=order.axes, flipped=order.flipped, shape_before_crop=own,
        crop_low=(0, 0, 0), crop_high=own, spacing_before=spacing, spacing=spacing, shape=own,
    )  # fmt: skip


def slice_place(record: CaseRecord, index: int) -> int:
    """Return the place of a slice along its axis of the file, given its index in the order of the plan."""
    return record.shape_before_crop[0] - 1 - index if record.flipped[0] else index


def slice_case(record: CaseRecord, place: int, image: Float32Array, plan: Plan) -> Case:
    """Return a slice of a stack, (C, z, y, x) with one voxel along the axis of slices, as a case of its own.

    Its spacing across the slice is that of the training images, where it has no meaning, so that a slice of a stack is
    resampled as the same slice in a file of its own.
    """
    spacing = [*record.geometry.spacing]
    spacing[record.transpose[0]] = plan.original_median_spacing[0]
    geometry = record.geometry.model_copy(update={"spacing": tuple(spacing)})
    return Case(f"{record.case}, slice {place}", image, geometry)


def stack_of_slices(case: Case, plan: Plan, prepare: Callable[[Case], tuple[Preprocessed, ...]]) -> PreparedCase:
    """Return a case of several slices, each prepared for each model by ``prepare`` as a case of one slice."""
    record = stack_record(case.name, case.image.shape[1:], case.geometry, plan)
    axis = record.transpose[0]

    def prepared(index: int) -> tuple[Preprocessed, ...]:
        place = slice_place(record, index)
        return prepare(slice_case(record, place, case.image.take([place], axis=1 + axis), plan))

    return PreparedCase(record, tuple(map(prepared, range(record.shape[0]))), axis)


def _in_front(values: Sequence[float], axis: int) -> tuple[float, ...]:
    """Return values of three axes with that of ``axis`` first."""
    return (values[axis], *(value for index, value in enumerate(values) if index != axis))
