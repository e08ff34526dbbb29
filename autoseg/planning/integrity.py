"""Look into every file of a data set before anything is computed: what cannot be used, and how much is annotated.

Source: nnU-Net v2 ``experiment_planning/verify_dataset_integrity.py``. We differ in that each file is read once, that
infinite and constant images, wrong origins and directions and wrong streams are faults too, and that all are reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.inspection import (
    CaseAnnotation,
    ChannelCondition,
    contradictions,
    count_values,
    drawn_unannotated,
    inspect_channels,
    summarise_annotation,
    undeclared_values,
)
from autoseg.core.case import Float32Array
from autoseg.core.dataset import CaseFiles, Dataset
from autoseg.core.errors import AutosegError, DatasetError, Fault, FileFormatError
from autoseg.core.findings import listed
from autoseg.core.geometry import Geometry
from autoseg.core.label_json import BACKGROUND
from autoseg.core.labels import Labels
from autoseg.core.parallel import map_unordered
from autoseg.io.annotation import apply_mask, read_valid_mask
from autoseg.io.images import LOSSY_ENDINGS, SUPPORTED_ENDINGS, read_header, read_image, read_labels

MAX_VALUES_REPORTED = 10
_MESSAGE = re.compile(r"(?P<where>.+?): found (?P<found>.+?), expected (?P<expected>.+?)\. (?P<fix>.+)")
"""How every error of autoseg reads."""


@dataclass(frozen=True)
class IntegrityReport:
    """What the check of a data set found."""

    faults: tuple[Fault, ...]
    """What must be mended before planning."""
    warnings: tuple[str, ...]
    """What can be used but is probably not wanted, one line each."""
    cases: Mapping[str, CaseAnnotation]
    """Case -> how much is annotated; without the cases whose label file could not be read."""
    heads: tuple[str, ...] = ()
    """Names of the classes or regions, in order."""
    never_annotated: tuple[str, ...] = ()
    """Heads without a voxel in any case."""

    @property
    def uninformative(self) -> tuple[str, ...]:
        """Cases without one informative voxel: training leaves them out."""
        return tuple(name for name, annotation in self.cases.items() if not annotation.informative)

    def raise_if_faulty(self) -> None:
        """Raise ``DatasetError`` with all faults, if there are any."""
        if self.faults:
            raise DatasetError(self.faults)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, with the annotated fraction of each case and head (0 to 1)."""
        return {
            "faults": [str(fault) for fault in self.faults],
            "warnings": list(self.warnings),
            "uninformative": list(self.uninformative),
            "never_annotated": list(self.never_annotated),
            "cases": {name: _annotation_json(annotation) for name, annotation in self.cases.items()},
        }


@dataclass(frozen=True, slots=True)
class FoldGap:
    """Classes, and densities of annotation, that a fold cannot learn, or cannot be validated on."""

    fold: int
    part: str
    """``"train"`` or ``"val"``."""
    heads: tuple[str, ...]
    densities: tuple[str, ...] = ()
    """In words."""

    def __str__(self) -> str:
        """Return one line for a user."""
        consequence = "cannot be learnt" if self.part == "train" else "cannot be validated"
        lacks = []
        if self.heads:
            lacks.append(f"an annotated voxel of {listed(self.heads, 20)}: {consequence}")
        if self.densities:
            lacks.append(f"{' or '.join(self.densities)}, as others have: scores say nothing about such cases")
        return "; ".join(f"fold {self.fold}: no {self.part} case has {lack}" for lack in lacks)


@dataclass(frozen=True)
class _Finding:
    """What a worker found in one case."""

    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    annotation: CaseAnnotation | None = None
    undeclared: Mapping[int, int] = field(default_factory=dict)
    """File value -> voxels."""


def check_dataset(
    dataset: Dataset,
    *,
    known_faults: Sequence[Fault] = (),
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> IntegrityReport:
    """Read every case once, ``workers`` at a time, and report all faults; nothing is raised for them.

    A data set without classes or channels (``Dataset.examine`` after a fault in dataset.json) is looked into as far as
    that goes without them.

    Parameters
    ----------
    known_faults
        Those of dataset.json and the file names; they come first in the report.
    workers
        Processes; 1 reads in this one.
    progress
        Called with the number of cases done, of all cases, and the name of the case.
    """
    unsupported = _ending_fault(dataset.file_ending) if dataset.file_ending else None
    if unsupported is not None:
        return IntegrityReport((*known_faults, unsupported), dataset.warnings, {})
    findings: dict[str, _Finding] = {}
    check = partial(_check_case, labels=dataset.labels, n_channels=len(dataset.channels))
    for index, result in map_unordered(check, dataset.cases, workers=workers):
        name = dataset.cases[index].name
        findings[name] = _lost(name, result) if isinstance(result, AutosegError) else result
        if progress is not None:
            progress(len(findings), len(dataset.cases), name)
    ordered = {case.name: findings[case.name] for case in dataset.cases}
    annotations = {name: item.annotation for name, item in ordered.items() if item.annotation is not None}
    heads = tuple(head.name for head in dataset.labels.heads)
    never = tuple(
        head for head in heads if annotations and not any(_has_drawn(item, head) for item in annotations.values())
    )
    faults = [fault for item in ordered.values() for fault in item.faults]
    faults += _priority_faults(dataset, annotations)
    warnings = [*dataset.warnings, *(warning for item in ordered.values() for warning in item.warnings)]
    warnings += [
        f"{dataset.name}: {head!r} has no annotated voxel in any case, so it cannot be learnt" for head in never
    ]
    return IntegrityReport(
        faults=(*known_faults, *faults, *_undeclared_faults(ordered, dataset.labels)),
        warnings=tuple(warnings),
        cases=annotations,
        heads=heads,
        never_annotated=never,
    )


def _has_drawn(annotation: CaseAnnotation, head: str) -> bool:
    """Whether a case has voxels to learn ``head`` from.

    Background also counts where it is drawn as "none of the annotated classes": such voxels say something and leave
    background open. In other cases other classes are annotated, and together they single it out.
    """
    is_left_open = head == BACKGROUND and annotation.informative > annotation.decided[head]
    return bool(annotation.positive[head]) or is_left_open


def _ending_fault(ending: str) -> Fault | None:
    if ending.lower() in SUPPORTED_ENDINGS and ending.lower() not in LOSSY_ENDINGS:
        return None
    lossless = [item for item in SUPPORTED_ENDINGS if item not in LOSSY_ENDINGS]
    found = f"{ending!r}, a lossy format that changes label values" if ending.lower() in LOSSY_ENDINGS else repr(ending)
    fix = "Convert images and labels, for example to .nii.gz (3-D) or .png (2-D)."
    return Fault("dataset.json: file_ending", found, f"one of {', '.join(lossless)}", fix)


def _check_case(case: CaseFiles, *, labels: Labels, n_channels: int) -> _Finding:
    """Read the files of one case and return all that is wrong with them."""
    faults: list[Fault] = []
    warnings: list[str] = []
    image = file_labels = None
    try:
        image, image_geometry = read_image(case.images)
        conditions = inspect_channels(image)
        faults += _image_faults(case, conditions, n_channels)
        warnings += _image_warnings(case, conditions)
    except FileFormatError as error:
        faults.append(_unreadable(f"image of case {case.name!r}", error))
    try:
        if case.label is not None:
            file_labels, label_geometry = read_labels(case.label)
    except FileFormatError as error:
        faults.append(_unreadable(f"label file of case {case.name!r}", error))
    if file_labels is None:
        return _Finding(tuple(faults), tuple(warnings))
    if image is not None:
        faults += _mismatch_faults(case, image, file_labels, image_geometry, label_geometry)
    if not labels.n_classes:
        return _Finding(tuple(faults), tuple(warnings))
    try:
        valid = read_valid_mask(case, labels, file_labels.shape)
        if image is not None and case.valid_mask is not None:
            faults += _geometry_faults(case, case.valid_mask, image_geometry, read_header(case.valid_mask)[1])
    except DatasetError as error:
        return _Finding((*faults, *error.faults), tuple(warnings))
    except FileFormatError as error:
        return _Finding((*faults, _unreadable("", error)), tuple(warnings))
    said = _check_annotation(case, *apply_mask(file_labels, valid, labels))
    return replace(said, faults=(*faults, *said.faults), warnings=(*warnings, *said.warnings))


def _check_annotation(case: CaseFiles, file_labels: NDArray[np.integer[Any]], labels: Labels) -> _Finding:
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
    return _Finding(tuple(faults), tuple(warnings), annotation, undeclared_values(counts, labels))


_LEFT_OUT = {
    "marginal": "they count as that class, and voxels drawn as 0 may be of it too. Add it there if it is completely "
    "drawn",
    "seed": 'with lazy_semantics "seed" they say nothing but that no absent class is there. Add it there if it is '
    "completely drawn",
}


def _unreadable(where: str, error: AutosegError) -> Fault:
    """Turn the error of a reader into a fault that also names the case."""
    text = " ".join(str(error).split())
    parts = _MESSAGE.fullmatch(text)
    if parts and not where:
        return Fault(**parts.groupdict())
    if parts:
        return Fault(f"{where}: {parts['where']}", parts["found"], parts["expected"], parts["fix"])
    return Fault(where, text.rstrip("."), "a file that can be read", "Replace the file, or remove the case.")


def _lost(name: str, error: AutosegError) -> _Finding:
    """Name the case of a worker that died; its message would show all that the worker was given."""
    fault = _unreadable("", error)
    return _Finding(faults=(replace(fault, where=f"case {name!r}"),))


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


def _mismatch_faults(
    case: CaseFiles, image: Float32Array, file_labels: NDArray[Any], of_image: Geometry, of_labels: Geometry
) -> list[Fault]:
    """Compare shape and geometry of a label file with those of its image."""
    where = str(case.label)
    faults = []
    if image.shape[1:] != file_labels.shape:
        found, expected = f"shape {file_labels.shape} (z, y, x)", f"{image.shape[1:]}, as {case.images[0].name}"
        faults.append(Fault(where, found, expected, "Resample or crop the label file as its image was."))
    return faults + _geometry_faults(case, case.label, of_image, of_labels)


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


def _priority_faults(dataset: Dataset, annotations: Mapping[str, CaseAnnotation]) -> list[Fault]:
    """Find that no case is left to train on: those with a priority say nothing, the others are never drawn."""
    informative = [case for case in dataset.cases if case.name in annotations and annotations[case.name].informative]
    if not informative or any(case.priority for case in informative):
        return []
    found = f"priority 0 for every case that says something ({listed(case.name for case in informative)})"
    fix = "Give some of these cases a priority above 0."
    return [Fault("dataset.json: cases", found, "at least one case to train on", fix)]


def _undeclared_faults(findings: Mapping[str, _Finding], labels: Labels) -> list[Fault]:
    """Return one fault per undeclared value with its cases; above ten values the most frequent ones."""
    by_value: dict[int, dict[str, int]] = {}
    for name, item in findings.items():
        for value, number in item.undeclared.items():
            by_value.setdefault(value, {})[name] = number
    frequent = sorted(by_value, key=lambda value: -sum(by_value[value].values()))
    faults = []
    for value in sorted(frequent[:MAX_VALUES_REPORTED]):
        cases = by_value[value]
        most = sorted(cases, key=lambda name: (-cases[name], name))
        named = listed(f"{name} ({cases[name]} voxels)" for name in most)
        faults.append(
            Fault(
                f"label value {value}", f"{sum(cases.values())} voxels in {len(cases)} cases: {named}",
                f"only declared values {list(labels.file_values())}",
                "Declare it in dataset.json (as a class, or as ignore), or correct the label files.",
            )
        )  # fmt: skip
    rest = frequent[MAX_VALUES_REPORTED:]
    if rest:
        affected = sorted({name for value in rest for name in by_value[value]})
        found = f"{len(rest)} further undeclared values in {len(affected)} cases: {listed(affected)}"
        faults.append(Fault("label files", found, "label values, not intensities", "Correct the label files."))
    return faults


def _annotation_json(annotation: CaseAnnotation) -> dict[str, Any]:
    return {
        **asdict(annotation),
        "annotated_fraction": annotation.annotated_fraction,
        "positive_fraction": {head: annotation.positive_fraction(head) for head in annotation.positive},
    }
