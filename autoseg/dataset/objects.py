"""The class and the object that each value of a label file stands for, in files with numbers of objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import LabelMap
from autoseg.core.findings import listed
from autoseg.dataset.instance_numbers import LARGEST_NUMBER
from autoseg.dataset.labels import Labels


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
