"""Objects of a predicted case: an observer keeps what their separation needs, and parts them after the last slab."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import LabelMap
from autoseg.core.errors import PlanError
from autoseg.dataset.instance_numbers import LARGEST_NUMBER, InstanceNumbers
from autoseg.dataset.labels import Labels, background_value
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.prepared import Separate
from autoseg.preprocessing import restore
from autoseg.tasks.separation import as_units


class ObjectMap:
    """Observer that keeps the class of each voxel of a case, and how probably it is inside of an object of it.

    That takes 2 bytes per voxel of the crop (3 for values of classes above 255). See :func:`core_units`.
    """

    needs_members: ClassVar[bool] = False

    def __init__(self, record: CaseRecord, labels: Labels) -> None:
        shape = record.shape_after_crop
        self._record = record
        self._labels = labels
        self._values = np.full(shape, background_value(labels), np.min_scalar_type(max(labels.class_values)))
        self._cores = np.zeros(shape, dtype=np.uint8)

    def __call__(self, slab: DecidedSlab) -> None:
        """Keep a slab."""
        planes = slice(slab.first, slab.first + len(slab.values))
        self._values[planes] = slab.values
        self._cores[planes] = core_units(slab, self._labels)

    def arrays(self) -> tuple[LabelMap, NDArray[np.uint8]]:
        """Return the values of classes and the probabilities in 1/255, both (z, y, x) in the file's axes."""
        fill = background_value(self._labels)
        return restore(self._values, self._record, fill=fill), restore(self._cores, self._record)

    def objects(self, separate: Separate, numbers: InstanceNumbers) -> LabelMap:
        """Return the label map (z, y, x) of objects in the file's axes, by ``numbers``; called after the last slab.

        Raises ``PlanError`` if a class has more objects than ``numbers`` leave it numbers.
        """
        record, labels = self._record, self._labels
        values, cores = self.arrays()
        result = np.full(values.shape, background_value(labels), dtype=np.uint32)
        for value in labels.class_values[1:]:
            mask = values == value
            objects = separate(mask, cores, record.geometry.spacing)
            named = _named(objects, value, labels, numbers, record.case)
            np.copyto(result, named, where=objects > 0)
        return result.astype(np.uint16) if result.max(initial=0) < 2**16 else result


def core_units(slab: DecidedSlab, labels: Labels) -> NDArray[np.uint8]:
    """Return how probably each voxel (planes, y, x) is inside of an object of its class, in 1/255; 0 in background.

    The probability is that of ``DecidedSlab.cores``, of a model without boundaries that of the class; of several
    regions with the class, the smallest.
    """
    heads = slab.probabilities if slab.cores is None else slab.cores
    cores = np.zeros(slab.values.shape, dtype=np.uint8)
    for index, value in enumerate(labels.class_values[1:], start=1):
        own = heads[labels.regions[:, index]]
        if len(own):
            np.copyto(cores, as_units(own.min(axis=0)), where=slab.values == value)
    return cores


def _named(
    objects: LabelMap, value: int, labels: Labels, numbers: InstanceNumbers, case: str
) -> NDArray[np.unsignedinteger]:
    """Return objects (z, y, x), numbered from 1, with the file values that ``numbers`` give those of a class."""
    values = object_values(int(objects.max(initial=0)), value, labels, numbers, case)
    return np.append(np.uint32(0), values)[objects]


def object_values(
    n_objects: int, value: int, labels: Labels, numbers: InstanceNumbers, case: str
) -> NDArray[np.uint32]:
    """Return the file value (n_objects,) of each object of the class with the file value ``value``, ascending.

    The file values of background and of unannotated voxels are passed over. Raises ``PlanError`` if ``numbers`` leave
    the class fewer values.
    """
    first = 0 if numbers.per_class is None else value * numbers.per_class
    last = LARGEST_NUMBER if numbers.per_class is None else first + numbers.per_class - 1
    values = np.arange(first + 1, first + n_objects + 1, dtype=np.int64)
    for taken in sorted({background_value(labels), labels.unlabelled or 0}):
        if first < taken <= last:
            values[values >= taken] += 1
    if n_objects and values[-1] > last:
        limit, fix = f"{LARGEST_NUMBER}, the largest number of an object", "Remove small objects."
        if numbers.per_class is not None:
            limit = f"{numbers.per_class}, instances_per_class in dataset.json"
            fix = "Use a larger number there, and in the label files, and train again."
        raise PlanError(
            f"case {case}: found {n_objects} objects of the class with the value {value}, more than {limit}, leaves "
            f"numbers for. {fix}"
        )
    return values.astype(np.uint32)
