"""The annotation of a case: its label file and valid mask, encoded by the rules of dataset.json.

All code that needs the annotation of a case reads it here, so that the mask cannot be forgotten.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.case import Target
from autoseg.cases.layers import Layer, LayerInfo, class_indices
from autoseg.cases.target_numbers import is_known, read_numbers
from autoseg.core.arrays import BoolArray, CodeArray, Float32Array, LabelMap
from autoseg.core.boxes import Box
from autoseg.core.errors import DatasetError, Fault, FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.file_values import NAN_VALUE
from autoseg.dataset.labels import Labels, undrawn_code, undrawn_set, weight_levels
from autoseg.dataset.objects import split_instances
from autoseg.io.arrays import open_array
from autoseg.io.images import read_header, read_known, read_labels


class LabelFile(NamedTuple):
    """Content of a label file."""

    drawn: NDArray[np.integer[Any]]
    """(z, y, x) values of classes; of a regression, 1 where a number is known and ``NAN_VALUE`` elsewhere."""
    geometry: Geometry
    numbers: Float32Array | None = None
    """(R, z, y, x) float32 targets of a regression, NaN where unknown; None for classes."""
    objects: LabelMap | None = None
    """(z, y, x) number of the object of each voxel, 0 where there is none; None unless label files hold numbers of
    objects. Then ``drawn`` has the values of their classes."""


def read_label_file(path: Path, labels: Labels) -> LabelFile:
    """Return the content of a label file of classes, of objects, or of the targets of a regression.

    Raises ``FileFormatError`` if the file cannot be read faithfully, or does not hold the targets or objects of
    ``labels``.
    """
    if not labels.targets:
        values, geometry = read_labels(path, allow_nan=True)
        classes, objects = classes_and_objects(values, labels, path)
        return LabelFile(classes, geometry, objects=objects)
    numbers, geometry = read_numbers(path, labels)
    return LabelFile(np.where(is_known(numbers), np.int16(1), np.int16(NAN_VALUE)), geometry, numbers)


def classes_and_objects(
    values: NDArray[np.integer[Any]], labels: Labels, path: Path
) -> tuple[NDArray[np.integer[Any]], LabelMap | None]:
    """Return values of classes and numbers of objects, both (*S), of the values (*S) of a file.

    Files of classes have no objects: None.

    Raises ``FileFormatError`` naming the file if it holds numbers of no object.
    """
    if labels.instances is None:
        return values, None
    try:
        return split_instances(values, labels)
    except ValueError as error:
        fix = "Correct the file, or instances_per_class in dataset.json."
        expected = "numbers of objects above 0, and the declared values of background and of unannotated voxels"
        raise FileFormatError(Fault(str(path), str(error), expected, fix)) from error


def read_annotation(files: CaseFiles, labels: Labels, shape: tuple[int, ...]) -> Target:
    """Return the annotation of a case: codes (z, y, x), label sets (N, K), and the code of unannotated voxels.

    Also the numbers of a regression. Voxels outside the valid mask are unannotated, whatever the label file holds
    there: they may have any class that is not absent from the case.

    Parameters
    ----------
    shape
        (z, y, x) of the image.

    Raises
    ------
    FileFormatError
        If a file cannot be read faithfully.
    DatasetError
        If there is no label file, a shape differs from that of the image, a value within the mask is not declared,
        or the mask is zero everywhere.
    """
    if faults := part_shape_faults(files):
        raise DatasetError(faults)
    content = read_label_file(_label_path(files), labels)
    _check_shape(files, content.drawn.shape, shape)
    valid = read_valid_mask(files, labels, shape)
    target = encode_target(content.drawn, labels, files.name, valid=valid, numbers=content.numbers)
    if content.objects is None:
        return target
    objects = content.objects if valid is None else np.where(valid, content.objects, content.objects.dtype.type(0))
    return replace(target, objects=objects)


def encode_target(
    file_labels: NDArray[Any],
    labels: Labels,
    case: str = "",
    *,
    valid: BoolArray | None = None,
    numbers: Float32Array | None = None,
) -> Target:
    """Return the target of file values (*S), with the code of unannotated voxels.

    ``valid`` is (*S) bool, False for unannotated voxels; ``numbers`` (R, *S) as in :class:`LabelFile`. Parameters and
    errors are those of :meth:`autoseg.dataset.labels.Labels.encode`.
    """
    codes, label_sets = labels.encode(file_labels, case, valid=valid)
    if numbers is not None and valid is not None:
        numbers = np.where(valid, numbers, np.float32(np.nan))
    undrawn = undrawn_code(labels, case, has_mask=valid is not None)
    levels = _weight_levels(file_labels, labels, is_unannotated=codes == undrawn) if labels.value_weights else None
    return Target(codes, label_sets, undrawn, numbers, levels)


def _weight_levels(file_labels: NDArray[Any], labels: Labels, *, is_unannotated: BoolArray) -> CodeArray:
    """Return :attr:`autoseg.cases.case.Target.levels` (*S) of file values (*S)."""
    weights = weight_levels(labels)
    levels = np.zeros(file_labels.shape, dtype=np.min_scalar_type(len(weights)))
    for value, weight in labels.value_weights.items():
        levels[file_labels == value] = weights.index(weight)
    levels[is_unannotated] = len(weights)
    return levels


def read_drawn(files: CaseFiles, shape: tuple[int, ...] | None = None) -> tuple[NDArray[np.integer[Any]], Geometry]:
    """Return the unchanged file values (z, y, x) of a case's label file, and their geometry.

    Parameters
    ----------
    shape
        (z, y, x) of the image; None reads it from the header of the image.

    Raises
    ------
    FileFormatError
        If a file cannot be read faithfully.
    DatasetError
        If there is no label file, or its shape differs from that of the image.
    """
    drawn, geometry = read_labels(_label_path(files), allow_nan=True)
    _check_shape(files, drawn.shape, read_header(files.images[0])[0][1:] if shape is None else shape)
    return drawn, geometry


def _label_path(files: CaseFiles) -> Path:
    """Return the label file of a case; raise ``DatasetError`` if it has none."""
    if files.label is None:
        fix = "Add it, or remove the image."
        if files.experts:
            fix = "Fuse the masks of its experts first: autoseg.interop.expert_labels.with_fused_labels."
        raise DatasetError([Fault(f"case {files.name!r}", "no label file", "one per training case", fix)])
    return files.label


def _check_shape(files: CaseFiles, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise ``DatasetError`` unless labels have the shape (z, y, x) of the image."""
    if shape != expected:
        where, shape_text = f"case {files.name!r}: {_label_path(files).name}", f"labels of shape {shape}"
        fix = "Export the labels on the grid of the image."
        raise DatasetError([Fault(where, shape_text, f"the shape of the image, {expected}", fix)])


def part_shape_faults(files: CaseFiles) -> list[Fault]:
    """Return a fault for labels, or a mask, of a box that have neither its shape nor that of the volume.

    The box is cut of such an array without an error, from a place that means nothing. An array that cannot be opened,
    or that the box leaves, has no fault here: reading it raises one.
    """
    part = files.volume
    if part is None or part.box is None:
        return []
    faults = []
    for what, location in (("label file", part.label), ("valid mask", part.valid_mask)):
        with suppress(FileFormatError):
            volume = open_array(part.images[0]).spatial_shape
            shape = volume if location is None else open_array(location, as_labels=True).spatial_shape
            is_inside = part.box.intersection(Box.whole(shape)) == part.box
            if shape not in (volume, part.box.shape) and is_inside:
                where = f"{what} of case {files.name!r}: {location}"
                expected = f"that of the box, {part.box.shape}, or of the volume, {volume}"
                fix = "Export it on the grid of the image, or correct the location."
                faults.append(Fault(where, f"the shape {shape} (z, y, x)", expected, fix))
    return faults


def read_valid_mask(files: CaseFiles, labels: Labels, shape: tuple[int, ...]) -> BoolArray | None:
    """Return the valid mask of a case: (z, y, x) bool, True where it is annotated; None if it is so everywhere.

    Voxels of missing tiles, of image or labels, are not annotated.

    Raises
    ------
    FileFormatError
        If the file cannot be read, or holds numbers that are not integers.
    DatasetError
        If its shape is not ``shape``; if it is zero everywhere and dataset.json declares no class absent, so that the
        case has no annotation at all.
    """
    valid = _read_mask_file(files, labels, shape)
    known = [read_known(path) for path in files.images]
    known += [] if files.label is None else [read_known(files.label, as_labels=True)]
    for mask in known:
        if mask is not None and mask.shape == shape:
            valid = mask if valid is None else valid & mask
    return valid


def _read_mask_file(files: CaseFiles, labels: Labels, shape: tuple[int, ...]) -> BoolArray | None:
    """Return the content of the mask file, as :func:`read_valid_mask`; None if there is none."""
    if files.valid_mask is None:
        return None
    try:
        mask, _ = read_labels(files.valid_mask)
    except FileFormatError as error:
        fault = replace(error.fault, where=f"valid mask of case {files.name!r}: {error.fault.where}")
        raise FileFormatError(fault) from error
    check_mask_shape(files, mask.shape, shape)
    valid: BoolArray = mask != 0
    check_mask_marks(files, labels, has_marks=bool(valid.any()))
    return valid


def check_mask_shape(files: CaseFiles, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise ``DatasetError`` unless the valid mask of a case has the ``shape`` (z, y, x) of its image."""
    if found != shape:
        where, fix = (
            f"valid mask of case {files.name!r}: {files.valid_mask}",
            "Export the mask on the grid of the image.",
        )
        raise DatasetError([Fault(where, f"shape {found} (z, y, x)", f"{shape}, as the image", fix)])


def check_mask_marks(files: CaseFiles, labels: Labels, *, has_marks: bool) -> None:
    """Raise ``DatasetError`` if a valid mask is 0 everywhere, unless dataset.json declares a class absent."""
    if undrawn_set(labels, files.name) == frozenset(range(labels.n_classes)) and not has_marks:
        where = f"valid mask of case {files.name!r}: {files.valid_mask}"
        fix = "Mark the annotated voxels with 1, or remove the case."
        raise DatasetError([Fault(where, "0 everywhere", "voxels above 0: otherwise nothing is annotated", fix)])


def read_class_map(path: Path, info: LayerInfo, labels: Labels, shape: tuple[int, ...]) -> Layer:
    """Return a layer of class indices (z, y, x), read from a dense label map of file values such as a prediction.

    Parameters
    ----------
    path
        The label map, on the grid of the image.
    info
        The layer, of kind CLASSES.
    shape
        (z, y, x) of the image.

    Raises
    ------
    FileFormatError
        If the file cannot be read, has another shape, or holds values that are no class.
    """
    values, _ = read_labels(path)
    if values.shape != shape:
        shape_text, expected = f"shape {values.shape} (z, y, x)", f"{shape}, as the image"
        raise FileFormatError(Fault(str(path), shape_text, expected, "Predict the case again."))
    try:
        return Layer(info, class_indices(values, labels))
    except ValueError as error:
        fault = Fault(str(path), str(error), "file values of classes only", "Predict the case again.")
        raise FileFormatError(fault) from error


def apply_mask(
    file_labels: NDArray[Any], valid: BoolArray | None, labels: Labels
) -> tuple[NDArray[np.integer[Any]], Labels]:
    """Return file values (*S) with the ignore value wherever a mask (*S) is False, and labels that declare that value.

    Used to count file values. Labels without an ignore value get one that neither they nor the file use; ``labels``
    itself is not changed. Without a mask both arguments are returned unchanged.
    """
    if valid is None:
        return file_labels, labels
    ignore = labels.ignore
    if ignore is None:
        ignore = max([*labels.file_values(), int(file_labels.max(initial=0))]) + 1
    dtype = np.result_type(file_labels.dtype, np.min_scalar_type(ignore))
    return np.where(valid, file_labels, np.array(ignore, dtype=dtype)), replace(labels, ignore=ignore)
