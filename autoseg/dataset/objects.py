"""The class and the object that each value of a label file stands for, in files with numbers of objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import LabelMap
from autoseg.core.errors import PlanError
from autoseg.core.findings import listed
from autoseg.dataset.instance_numbers import LARGEST_NUMBER, InstanceNumbers
from autoseg.dataset.labels import Labels, background_value


def split_instances(values: NDArray[Any], labels: Labels) -> tuple[NDArray[np.int32], LabelMap]:
    """Return the value of the class of each voxel, (*S) int32, and its object, (*S) uint16 or uint32.

    Parameters
    ----------
    values
        (*S) integers of a label file with numbers of objects.
    labels
        With ``instances``.

    Returns
    -------
    classes, objects
        Values of unannotated voxels stay in ``classes``. An object is its file value, and 0 in all other voxels: the
        numbers are names, of which only equality means something.

    Raises
    ------
    ValueError
        Naming the values that are those of no object: negative ones, those of a class that is not declared, and those
        above ``LARGEST_NUMBER``.
    """
    rule = labels.instances
    if rule is None:
        raise ValueError("labels without instances have no objects")
    is_object = np.ones(values.shape, dtype=bool)
    for value in (labels.class_values[0], labels.unlabelled):
        if value is not None:
            is_object &= values != value
    high = int(values.max(initial=0))
    dtype: type[np.unsignedinteger[Any]] = np.uint16 if high < 2**16 else np.uint32
    objects: LabelMap = np.where(is_object & (values > 0), values, 0).astype(dtype)
    if rule.per_class is None:
        of_object = np.full_like(objects, labels.class_values[1])
        is_wrong = is_object & (objects == 0)
    else:
        of_object = objects // np.uint32(rule.per_class)  # which objects in uint16 may not hold
        is_wrong = is_object & ~np.isin(of_object, labels.class_values[1:])
    if high > LARGEST_NUMBER:
        is_wrong |= values > LARGEST_NUMBER
    if is_wrong.any():
        wrong = np.unique(values[is_wrong])
        raise ValueError(f"the values {listed(map(str, wrong.tolist()))}, which are numbers of no object")
    return np.where(is_object, of_object, values).astype(np.int32), objects


def largest_written(labels: Labels) -> int:
    """Return the largest value that a predicted label file may have to hold; 0 without classes."""
    return max(labels.file_values(), default=0) if labels.instances is None else LARGEST_NUMBER


def objects_of_class(objects: LabelMap, classes: NDArray[Any], value: int) -> LabelMap:
    """Return the objects (*S) of the class with the file value ``value``; 0 in other voxels."""
    return np.where(classes == value, objects, objects.dtype.type(0))


def object_values(
    n_objects: int, value: int, labels: Labels, numbers: InstanceNumbers, case: str = ""
) -> NDArray[np.uint32]:
    """Return the file value (n_objects,) that each object of the class with the file value ``value`` gets, ascending.

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
