"""Look into the files of one case: what cannot be used, and how much is annotated.

Source: nnU-Net v2 ``experiment_planning/verify_dataset_integrity.py``. We differ in that each file is read once, that
infinite and constant images, wrong origins and directions and wrong streams are faults too, and that all are reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from autoseg.cases.label_codes import apply_mask, read_valid_mask
from autoseg.core.arrays import BoolArray
from autoseg.core.errors import AutosegError, DatasetError, Fault, FileFormatError
from autoseg.core.findings import listed
from autoseg.core.geometry import Geometry
from autoseg.core.json_arrays import JsonBool
from autoseg.core.orientation import has_axes, order_towards, orientation_name
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels
from autoseg.inspection.annotation_outside import Outside, outside_of_values
from autoseg.inspection.coverage import annotated_parts
from autoseg.inspection.voxel_sizes import VoxelSize
from autoseg.io.images import read_header, read_intensities, read_labels, read_remarks
from autoseg.preprocessing.crop import content_box, count_outside


@dataclass(frozen=True)
class Finding:
    """What is wrong with a case, and how much of it is annotated."""

    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    annotation: CaseAnnotation | None = None
    undeclared: Mapping[int, int] = field(default_factory=dict)
    """File value -> voxels."""
    parts: JsonBool | None = None
    """(3, 20): where something is drawn, see :func:`autoseg.inspection.coverage.annotated_parts`; file axes."""
    class_voxels: tuple[int, ...] = ()
    """Voxels drawn as each class; empty where the labels could not be read."""
    geometry: Geometry | None = None
    """Of the image; without what its format needs besides."""
    outside: Outside = field(default_factory=Outside)
    """What is annotated outside the box of what is not 0."""
    remarks: tuple[str, ...] = ()
    """What is strange about its files by their headers, without the name of the case."""
    size: VoxelSize | None = None
    """Of its voxels; None if the image cannot be read."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The files of a case, each as far as it could be read."""

    image: NDArray[Any] | None = None
    """(C, *S)."""
    geometry: Geometry | None = None
    """Of the image."""
    file_labels: NDArray[np.integer[Any]] | None = None
    """(*S)."""
    valid: BoolArray | None = None
    """(*S), True where it is annotated; also None without a mask."""


def look_into(case: CaseFiles, labels: Labels, n_channels: int) -> tuple[Finding, Opened]:
    """Read the files of a case once; return all that is wrong with them, and what was read.

    ``n_channels``: how many an image must have; 0 if that is not known.
    """
    faults: list[Fault] = []
    warnings: list[str] = []
    remarks: list[str] = []
    opened = Opened()
    label_geometry: Geometry | None = None
    try:
        image, geometry = read_intensities(case.images)
        opened = replace(opened, image=image, geometry=geometry)
        remarks += [text for path in case.images for text in read_remarks(path)]
        conditions = inspect_channels(image)
        faults += _image_faults(case, conditions, n_channels)
        warnings += _image_warnings(case, conditions)
    except FileFormatError as error:
        faults.append(_fault_of(f"image of case {case.name!r}", error))
    try:
        if case.label is not None:
            file_labels, label_geometry = read_labels(case.label, allow_nan=True)
            opened = replace(opened, file_labels=file_labels)
            remarks += [f"labels: {text}" for text in read_remarks(case.label, as_labels=True)]
    except FileFormatError as error:
        faults.append(_fault_of(f"label file of case {case.name!r}", error))
    faults += _mismatch_faults(case, opened, label_geometry)
    said, opened = _look_into_annotation(case, labels, opened)
    of_image = None if opened.geometry is None else opened.geometry.model_copy(update={"metadata": {}})
    found = replace(
        said,
        faults=(*faults, *said.faults),
        warnings=(*warnings, *said.warnings),
        remarks=tuple(remarks),
        geometry=of_image,
    )
    return found if opened.geometry is None else replace(found, size=VoxelSize.of(opened.geometry)), opened


@contextmanager
def naming_case(name: str) -> Iterator[None]:
    """Turn an error that nobody foresaw into one that names the case, so that all other cases are still looked into."""
    try:
        yield
    except (AutosegError, MemoryError):
        raise
    except Exception as error:
        found = f"files that cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
        fix = "Export its files again; if they are sound, this is an error of autoseg: please report it."
        raise DatasetError([Fault(f"case {name!r}", found, "an image and labels", fix)]) from error


def _look_into_annotation(case: CaseFiles, labels: Labels, opened: Opened) -> tuple[Finding, Opened]:
    """Read the mask, and hold what is drawn within it against dataset.json."""
    if opened.file_labels is None or not labels.n_classes:
        return Finding(), opened
    faults: list[Fault] = []
    try:
        valid = read_valid_mask(case, labels, opened.file_labels.shape)
        if opened.geometry is not None and case.valid_mask is not None:
            of_mask = read_header(case.valid_mask)[1]
            other = _order_fault(case, case.valid_mask, opened, of_mask, opened.file_labels.shape)
            faults = [other] if other else _geometry_faults(case, case.valid_mask, opened.geometry, of_mask)
    except DatasetError as error:
        return Finding(error.faults), opened
    except FileFormatError as error:
        return Finding((error.fault,)), opened
    file_labels, labels = apply_mask(opened.file_labels, valid, labels)
    said = _check_annotation(case, file_labels, labels)
    outside = _outside(case, file_labels, labels, opened.image)
    return replace(said, faults=(*faults, *said.faults), outside=outside), replace(opened, valid=valid)


def _outside(
    case: CaseFiles, file_labels: NDArray[np.integer[Any]], labels: Labels, image: NDArray[Any] | None
) -> Outside:
    if image is None or image.shape[1:] != file_labels.shape:
        return Outside()  # a fault
    return outside_of_values(count_outside(file_labels, *content_box(image)), labels, case.name)


def _check_annotation(case: CaseFiles, file_labels: NDArray[np.integer[Any]], labels: Labels) -> Finding:
    """Hold the values of a case (z, y, x) against what dataset.json says of them."""
    counts = count_values(file_labels)
    annotation = summarise_annotation(counts, labels, case.name)
    faults = []
    for value, what in contradictions(counts, labels, case.name).items():
        first = np.unravel_index(int(np.argmax(file_labels == value)), file_labels.shape)
        voxel = tuple(int(position) for position in first)
        found = f"{counts[value]} voxels of {what}, which is declared absent, the first at {voxel} (z, y, x)"
        fix = f"Correct cases.{case.name}.absent in dataset.json, or the label file."
        faults.append(Fault(f"{case.label} of case {case.name!r}", found, "none", fix))
    warnings = [
        f"case {case.name!r}: {number} voxels are drawn as {name!r}, which cases.{case.name}.annotated leaves out: "
        + _LEFT_OUT[labels.lazy_semantics]
        for name, number in drawn_unannotated(counts, labels, case.name).items()
    ]
    if not annotation.informative:
        warnings.append(f"case {case.name!r}: not one voxel says anything about its class; training leaves it out")
    parts = annotated_parts(file_labels, counts, labels, case.name)
    voxels = tuple(counts.get(value, 0) for value in labels.class_values)
    return Finding(tuple(faults), tuple(warnings), annotation, undeclared_values(counts, labels), parts, voxels)


_LEFT_OUT = {
    "marginal": "they count as that class, and drawn background may be of it too. Add it there if it is completely "
    "drawn",
    "seed": 'with lazy_semantics "seed" they say nothing but that no absent class is there. Add it there if it is '
    "completely drawn",
}


def _fault_of(where: str, error: FileFormatError) -> Fault:
    """Return the fault of a file, with the name of the case in front of its path."""
    return replace(error.fault, where=f"{where}: {error.fault.where}")


def _image_faults(case: CaseFiles, conditions: Sequence[ChannelCondition], n_channels: int) -> list[Fault]:
    where = f"image of case {case.name!r} ({listed([path.name for path in case.images])})"
    faults = []
    if n_channels and len(conditions) != n_channels:
        found, expected = f"{len(conditions)} channels", f"{n_channels}, as in channel_names"
        faults.append(Fault(where, found, expected, "Correct channel_names, or the files of the case."))
    for number, condition in enumerate(conditions):
        if condition.nan or condition.infinite:
            found = f"{condition.nan} NaN and {condition.infinite} infinite voxels in channel {number}"
            faults.append(
                Fault(where, found, "finite intensities", "Replace those voxels, say by 0, or remove the case.")
            )
    if all(condition.is_constant for condition in conditions):
        found = f"an empty image: every voxel is {listed(_constants(conditions))}"
        faults.append(Fault(where, found, "intensities that differ", "Replace the file, or remove the case."))
    return faults


def _constants(conditions: Sequence[ChannelCondition]) -> list[str]:
    return sorted({f"{condition.value:g}" for condition in conditions})


def _image_warnings(case: CaseFiles, conditions: Sequence[ChannelCondition]) -> list[str]:
    if all(condition.is_constant for condition in conditions):
        return []  # a fault
    return [
        f"image of case {case.name!r}: channel {number} is constant ({condition.value:g} everywhere)"
        for number, condition in enumerate(conditions)
        if condition.is_constant
    ]


def _mismatch_faults(case: CaseFiles, opened: Opened, of_labels: Geometry | None) -> list[Fault]:
    """Compare shape and geometry of a label file with those of its image, if both could be read."""
    image, file_labels, of_image = opened.image, opened.file_labels, opened.geometry
    if image is None or file_labels is None or of_image is None or of_labels is None:
        return []
    where = str(case.label)
    other_order = _order_fault(case, case.label, opened, of_labels, file_labels.shape)
    if other_order is not None:
        return [other_order]
    faults = []
    if image.shape[1:] != file_labels.shape:
        found, expected = f"shape {file_labels.shape} (z, y, x)", f"{image.shape[1:]}, as {case.images[0].name}"
        faults.append(Fault(where, found, expected, "Resample or crop the label file as its image was."))
    return faults + _geometry_faults(case, case.label, of_image, of_labels)


def _order_fault(
    case: CaseFiles, path: Path | None, opened: Opened, of_file: Geometry, shape: tuple[int, ...]
) -> Fault | None:
    """Return a fault if a label file or mask covers the voxels of its image, but stores them in another order."""
    if opened.image is None or opened.geometry is None or not has_axes(opened.geometry):
        return None
    order = order_towards(of_file, opened.geometry.direction)
    is_same_grid = order.permuted(shape) == opened.image.shape[1:] and not order.turned(of_file, shape).differs_from(
        opened.geometry
    )
    if order.is_identity or not is_same_grid:
        return None
    found, expected = (orientation_name(geometry.direction) for geometry in (of_file, opened.geometry))
    fix = (
        "Do not copy the header, which would mirror or turn it; store it in the order of the image. In Python: import "
        f'SimpleITK as sitk; sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage("{path}"), "{expected}"), "{path}").'
    )
    return Fault(str(path), f"the voxels in the order {found}", f"{expected}, as {case.images[0].name}", fix)


def _geometry_faults(case: CaseFiles, path: Path | None, of_image: Geometry, of_file: Geometry) -> list[Fault]:
    """Compare the geometry of a label file or mask with that of its image."""
    faults = []
    for name in of_file.differs_from(of_image):
        found, expected = (f"{name} {_rounded(getattr(geometry, name))}" for geometry in (of_file, of_image))
        fix = f"Copy the header of the image if the voxels do lie on one another; {_ORDERS[name]}."
        faults.append(Fault(str(path), found, f"{expected}, as {case.images[0].name}", fix))
    return faults


_ORDERS = {"spacing": "order (z, y, x)", "origin": "order (x, y, z)", "direction": "3x3, row by row"}


def _rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(np.round(number, 6)) + 0.0 for number in numbers)  # + 0.0 turns -0.0 into 0.0
