"""Check of the files of one case: faults, warnings, and how much is annotated.

Source: nnU-Net v2 ``experiment_planning/verify_dataset_integrity.py``. We differ in three points: each file is read
once; infinite and empty images, wrong origins, directions and file types are faults, too; and all faults of a case
are reported, not only the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.annotation.label_counts import (
    CaseAnnotation,
    ChannelCondition,
    contradictions,
    count_values,
    drawn_unannotated,
    inspect_channels,
    summarise_annotation,
    undeclared_values,
)
from autoseg.cases.label_codes import apply_mask, part_shape_faults, read_label_file, read_valid_mask
from autoseg.core.arrays import BoolArray, Float32Array, LabelMap
from autoseg.core.errors import AutosegError, DatasetError, Fault, FileFormatError
from autoseg.core.findings import counted, listed
from autoseg.core.geometry import Geometry
from autoseg.core.json_arrays import JsonBool
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels
from autoseg.inspection.annotation_outside import BorderAnnotation, border_annotation_of_values
from autoseg.inspection.coverage import annotated_parts
from autoseg.inspection.grid_faults import FileGrid, grid_faults
from autoseg.inspection.voxel_sizes import VoxelSize
from autoseg.io.arrays import open_volume
from autoseg.io.images import missing_boxes, read_header, read_intensities, read_remarks
from autoseg.preprocessing.crop import content_box, count_outside

SEPARATE_PARTS = 5
"""Parts of a single object above which a label file probably holds classes, and no numbers of objects."""


@dataclass(frozen=True)
class CaseCheck:
    """Result of the check of one case."""

    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    annotation: CaseAnnotation | None = None
    """Numbers of annotated voxels; None if the labels cannot be read."""
    undeclared: Mapping[int, int] = field(default_factory=dict)
    """File value that dataset.json does not declare -> voxels."""
    parts: JsonBool | None = None
    """(3, 20) bool: parts of each axis with annotation, see :func:`autoseg.inspection.coverage.annotated_parts`; file
    axes."""
    class_voxels: tuple[int, ...] = ()
    """Annotated voxels of each class; empty if the labels cannot be read."""
    geometry: Geometry | None = None
    """Geometry of the image, without the metadata of its format."""
    outside: BorderAnnotation = field(default_factory=BorderAnnotation)
    """Annotated voxels outside the box around all non-zero voxels."""
    remarks: tuple[str, ...] = ()
    """Unusual facts in the file headers, without the name of the case."""
    size: VoxelSize | None = None
    """Size of the voxels; None if the image cannot be read."""


@dataclass(frozen=True, slots=True)
class CaseArrays:
    """The arrays of a case; None for each file that cannot be read."""

    image: NDArray[Any] | None = None
    """(C, *S), any real type."""
    geometry: Geometry | None = None
    """Geometry of the image."""
    file_labels: NDArray[np.integer[Any]] | None = None
    """(*S) integers: values of the label file."""
    numbers: Float32Array | None = None
    """(R, *S) float32 targets of a regression, NaN where unknown; None for classes."""
    valid: BoolArray | None = None
    """(*S) bool, True where the case is annotated; also None if it has no mask."""


def check_case_files(case: CaseFiles, labels: Labels, n_channels: int) -> tuple[CaseCheck, CaseArrays]:
    """Read the files of a case once; return the result of the check, and the arrays.

    Parameters
    ----------
    n_channels
        Number of channels that the image must have; 0 if it is not known.
    """
    faults: list[Fault] = []
    warnings: list[str] = []
    remarks: list[str] = []
    arrays = CaseArrays()
    label_geometry: Geometry | None = None
    try:
        if case.volume is not None:
            open_volume(case.volume.images)  # channels of one volume, beyond the box, too
        image, geometry = read_intensities(case.images)
        arrays = replace(arrays, image=image, geometry=geometry)
        remarks += [text for path in case.images for text in read_remarks(path)]
        conditions = inspect_channels(image)
        faults += image_faults(case, conditions, n_channels)
        warnings += image_warnings(case, conditions)
        warnings += [text for path in case.images for text in missing_warnings(case, path)]
    except FileFormatError as error:
        faults.append(_fault_of(f"image of case {case.name!r}", error))
    try:
        if case.label is not None:
            content = read_label_file(case.label, labels)
            label_geometry = content.geometry
            arrays = replace(arrays, file_labels=content.drawn, numbers=content.numbers)
            warnings += missing_warnings(case, case.label, as_labels=True)
            remarks += [f"labels: {text}" for text in read_remarks(case.label, as_labels=content.numbers is None)]
            if content.objects is not None:
                warnings += _object_warnings(case, content.objects)
    except FileFormatError as error:
        faults.append(_fault_of(f"label file of case {case.name!r}", error))
    faults += part_shape_faults(case)
    faults += _mismatch_faults(case, case.label, arrays, label_geometry)
    of_annotation, arrays = _check_annotation_files(case, labels, arrays)
    of_image = None if arrays.geometry is None else arrays.geometry.model_copy(update={"metadata": {}})
    result = replace(
        of_annotation,
        faults=(*faults, *of_annotation.faults),
        warnings=(*warnings, *of_annotation.warnings),
        remarks=tuple(remarks),
        geometry=of_image,
    )
    return result if arrays.geometry is None else replace(result, size=VoxelSize.of(arrays.geometry)), arrays


def _object_warnings(case: CaseFiles, objects: LabelMap) -> list[str]:
    """Return a warning if objects (z, y, x) look like a class: a single number in many separate parts."""
    highest = objects.max(initial=0)
    if not highest or ((objects > 0) & (objects != highest)).any():
        return []
    n_parts = ndimage.label(objects > 0)[1]
    if n_parts <= SEPARATE_PARTS:
        return []
    return [
        f"case {case.name!r}: the label file has a single object, {highest}, in {n_parts} separate parts. If its "
        'values are classes, remove "task": "instances" from dataset.json'
    ]


@contextmanager
def naming_case(name: str) -> Iterator[None]:
    """Turn an unexpected error into a ``DatasetError`` that names the case, so that other cases are still checked."""
    try:
        yield
    except (AutosegError, MemoryError):
        raise
    except Exception as error:
        problem = f"files that cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
        fix = "Export its files again. If they are correct, this is an error of autoseg: please report it."
        raise DatasetError([Fault(f"case {name!r}", problem, "an image and labels", fix)]) from error


def _check_annotation_files(case: CaseFiles, labels: Labels, arrays: CaseArrays) -> tuple[CaseCheck, CaseArrays]:
    """Read the valid mask, and compare the annotation inside it with dataset.json."""
    if arrays.file_labels is None or not labels.n_classes:
        return CaseCheck(), arrays
    faults: list[Fault] = []
    try:
        valid = read_valid_mask(case, labels, arrays.file_labels.shape)
        if case.valid_mask is not None:
            faults = _mismatch_faults(case, case.valid_mask, arrays, read_header(case.valid_mask, as_labels=True)[1])
    except DatasetError as error:
        return CaseCheck(error.faults), arrays
    except FileFormatError as error:
        return CaseCheck((error.fault,)), arrays
    file_labels, labels = apply_mask(arrays.file_labels, valid, labels)
    result = _check_annotation(case, file_labels, labels)
    outside = _outside(case, file_labels, labels, arrays.image)
    return replace(result, faults=(*faults, *result.faults), outside=outside), replace(arrays, valid=valid)


def _outside(
    case: CaseFiles, file_labels: NDArray[np.integer[Any]], labels: Labels, image: NDArray[Any] | None
) -> BorderAnnotation:
    """Count annotated voxels in the empty border of ``image`` (C, *S); none if ``file_labels`` (*S) do not fit it.

    None in volumes, which are never cropped.
    """
    if case.volume is not None or image is None or image.shape[1:] != file_labels.shape:
        return BorderAnnotation()  # reported as a fault elsewhere
    return border_annotation_of_values(count_outside(file_labels, *content_box(image)), labels, case.name)


def _check_annotation(case: CaseFiles, file_labels: NDArray[np.integer[Any]], labels: Labels) -> CaseCheck:
    """Compare the file values (z, y, x) of a case with what dataset.json states about the case."""
    counts = count_values(file_labels)

    def first(value: int) -> str:
        place = np.unravel_index(int(np.argmax(file_labels == value)), file_labels.shape)
        return f", the first at {tuple(int(position) for position in place)} (z, y, x)"

    result = check_counts(case, counts, labels, first)
    return replace(result, parts=annotated_parts(file_labels, counts, labels, case.name))


def check_counts(
    case: CaseFiles, counts: Mapping[int, int], labels: Labels, first: Callable[[int], str] = lambda value: ""
) -> CaseCheck:
    """Compare the numbers of voxels (file value -> voxels) of a case with what dataset.json states about the case.

    ``first`` returns the end of a clause that names the first voxel of a value.
    """
    annotation = summarise_annotation(counts, labels, case.name)
    faults = []
    for value, what in contradictions(counts, labels, case.name).items():
        present = f"{counts[value]} voxels of {what}, which is declared absent{first(value)}"
        fix = f"Correct cases.{case.name}.absent in dataset.json, or the label file."
        faults.append(Fault(f"{case.label} of case {case.name!r}", present, "none", fix))
    warnings = [
        f"case {case.name!r}: {number} voxels are annotated as {name!r}, which cases.{case.name}.annotated omits: "
        + _NOT_LISTED[labels.lazy_semantics]
        for name, number in drawn_unannotated(counts, labels, case.name).items()
    ]
    if not annotation.informative:
        warnings.append(f"case {case.name!r}: no voxel is annotated; the case is not used for training")
    voxels = tuple(counts.get(value, 0) for value in labels.class_values)
    undeclared = undeclared_values(counts, labels)
    return CaseCheck(tuple(faults), tuple(warnings), annotation, undeclared, class_voxels=voxels)


_NOT_LISTED = {
    "marginal": "they count as that class, and voxels annotated as background may belong to it. If the class is "
    "completely annotated in this case, add it to the list",
    "seed": 'with lazy_semantics "seed" these voxels may have any class that is not absent. If the class is '
    "completely annotated in this case, add it to the list",
}
"""Meaning of ``lazy_semantics`` for annotated voxels of a class that ``cases.*.annotated`` omits."""


def _fault_of(where: str, error: FileFormatError) -> Fault:
    """Return the fault of a file; its place starts with ``where``, which names the case."""
    return replace(error.fault, where=f"{where}: {error.fault.where}")


def image_faults(case: CaseFiles, conditions: Sequence[ChannelCondition], n_channels: int) -> list[Fault]:
    """Return the faults of an image: number of channels, values that are not finite, 0 in every voxel."""
    where = f"image of case {case.name!r} ({listed([path.name for path in case.images])})"
    faults = []
    if n_channels and len(conditions) != n_channels:
        problem, expected = f"{len(conditions)} channels", f"{n_channels}, as in channel_names"
        faults.append(Fault(where, problem, expected, "Correct channel_names, or the files of the case."))
    for number, condition in enumerate(conditions):
        if condition.nan or condition.infinite:
            problem = f"{condition.nan} NaN and {condition.infinite} infinite voxels in channel {number}"
            problem += f", the first in {condition.first} (z, y, x)" if condition.first else ""
            faults.append(
                Fault(where, problem, "finite intensities", "Replace them, for example by 0, or remove the case.")
            )
    if _is_empty(conditions):
        fault = Fault(
            where,
            "an empty image: every voxel is 0",
            "intensities that differ",
            "Replace the file, or remove the case.",
        )
        faults.append(fault)
    return faults


def _is_empty(conditions: Sequence[ChannelCondition]) -> bool:
    """Whether every voxel is 0 in all channels: most often a file, or chunks of a volume, that were not written."""
    return all(condition.is_constant and condition.value == 0 for condition in conditions)


def _constants(conditions: Sequence[ChannelCondition]) -> list[str]:
    """Return the different values of constant channels as text."""
    return sorted({f"{condition.value:g}" for condition in conditions})


def image_warnings(case: CaseFiles, conditions: Sequence[ChannelCondition]) -> list[str]:
    """Return a warning for each channel without contrast, or one if none has any; () for an empty image, a fault.

    A blank section of a stack, or a box beside the sample, is an image like any other: it is normalised to 0, or by the
    statistics of its volume.
    """
    if _is_empty(conditions) or any(isnan(condition.value) for condition in conditions):
        return []  # reported as a fault
    if all(condition.is_constant for condition in conditions):
        files = listed([path.name for path in case.images])
        return [
            f"image of case {case.name!r} ({files}): constant, every voxel is {listed(_constants(conditions))}. It is "
            "used; remove the case unless a blank image is meant"
        ]
    return [
        f"image of case {case.name!r}: channel {number} is constant ({condition.value:g} everywhere)"
        for number, condition in enumerate(conditions)
        if condition.is_constant
    ]


def missing_warnings(case: CaseFiles, path: Path, *, as_labels: bool = False) -> list[str]:
    """Return a warning if tiles of an array of a case are missing."""
    boxes = missing_boxes(path, as_labels=as_labels)
    if not boxes:
        return []
    return [
        f"case {case.name!r}: {counted(len(boxes), 'tile')} of {path} {'is' if len(boxes) == 1 else 'are'} missing, "
        f"{sum(box.n_voxels for box in boxes)} voxels, which count as unannotated: {listed(map(str, boxes), 5)}"
    ]


def _mismatch_faults(case: CaseFiles, path: Path | None, arrays: CaseArrays, of_file: Geometry | None) -> list[Fault]:
    """Compare the grid of a label file or valid mask with that of the image; no fault if one of them cannot be read."""
    image, file_labels, of_image = arrays.image, arrays.file_labels, arrays.geometry
    if path is None or image is None or file_labels is None or of_image is None or of_file is None:
        return []
    grid_of_image = FileGrid(case.images[0], image.shape[1:], of_image)
    return grid_faults(FileGrid(path, file_labels.shape, of_file), grid_of_image)
