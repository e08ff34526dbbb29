"""Look into every file of a data set before anything is computed: what cannot be used, and how much is annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from autoseg.annotation.label_counts import CaseAnnotation
from autoseg.core.dicom import ENDINGS as DICOM_ENDINGS
from autoseg.core.dicom import conversion
from autoseg.core.errors import AutosegError, DatasetError, Fault, FileFormatError, WorkerError
from autoseg.core.findings import grouped_by_text, listed
from autoseg.core.orientation import AS_STORED, VoxelOrder
from autoseg.core.parallel import map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.file_values import LEAST_VALUE, MAX_VALUE, NAN_VALUE, value_name
from autoseg.dataset.json_advice import as_written, declare_unknown
from autoseg.dataset.labels import Labels
from autoseg.dataset.schema import BACKGROUND
from autoseg.inspection.annotation_outside import background_note, foreground_warning
from autoseg.inspection.case_check import Finding, look_into, naming_case
from autoseg.inspection.coverage import describe_gaps, turned_parts
from autoseg.inspection.painting_check import painting_warnings
from autoseg.inspection.unread_masks import unread_masks
from autoseg.inspection.voxel_orders import order_warnings, prevailing_orders
from autoseg.inspection.voxel_sizes import mixed_sizes
from autoseg.io.images import LOSSY_ENDINGS, SUPPORTED_ENDINGS, written_ending

MAX_VALUES_REPORTED = 10


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
    notes: tuple[str, ...] = ()
    """What is as it should be and good to know, one line each."""

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
            "notes": list(self.notes),
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


def check_dataset(
    dataset: Dataset,
    *,
    known_faults: Sequence[Fault] = (),
    workers: int = 1,
    progress: Progress = silent,
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
    unsupported = ending_fault(dataset)
    if unsupported is not None:
        return IntegrityReport((*known_faults, unsupported), dataset.warnings, {})
    check = partial(_check_case, labels=dataset.labels, n_channels=len(dataset.channels))
    results = map_ordered(check, dataset.cases, dataset.case_names, workers=workers, progress=progress)
    findings = {
        name: lost(name, result) if isinstance(result, AutosegError) else result
        for name, result in zip(dataset.case_names, results, strict=True)
    }
    return report_on(dataset, findings, known_faults)


def report_on(dataset: Dataset, findings: Mapping[str, Finding], known_faults: Sequence[Fault] = ()) -> IntegrityReport:
    """Return the report on a data set of which every case (name -> finding) was looked into."""
    ordered = {case.name: findings[case.name] for case in dataset.cases}
    annotations = {name: item.annotation for name, item in ordered.items() if item.annotation is not None}
    heads = tuple(head.name for head in dataset.labels.heads)
    never = tuple(
        head for head in heads if annotations and not any(_has_drawn(item, head) for item in annotations.values())
    )
    faults = [fault for item in ordered.values() for fault in item.faults]
    faults += _nothing_to_train_on(dataset, annotations)
    warnings = [*dataset.warnings, *(warning for item in ordered.values() for warning in item.warnings)]
    warnings += [
        f"{dataset.name}: {head!r} has no annotated voxel in any case, so it cannot be learnt" for head in never
    ]
    read = [item.class_voxels for item in ordered.values() if item.class_voxels]
    class_voxels = [sum(column) for column in zip(*read, strict=True)]
    warnings += [*unread_masks(dataset), *painting_warnings(dataset, class_voxels)]
    used = {name: item for name, item in ordered.items() if item.annotation is not None and item.annotation.informative}
    geometries = {name: item.geometry for name, item in used.items() if item.geometry is not None}
    outside = {name: item.outside for name, item in used.items()}
    warnings += order_warnings(dataset.name, geometries)
    warnings += filter(None, [foreground_warning(dataset.name, outside)])
    warnings += _blind_spots(dataset, ordered, prevailing_orders(geometries))
    warnings += [*_written_otherwise(dataset), *grouped_by_text({name: item.remarks for name, item in ordered.items()})]
    faults += mixed_sizes({name: item.size for name, item in ordered.items() if item.size is not None})
    return IntegrityReport(
        faults=(*known_faults, *faults, *_undeclared_faults(ordered, dataset)),
        warnings=tuple(warnings),
        cases=annotations,
        heads=heads,
        never_annotated=never,
        notes=tuple(filter(None, [background_note(dataset.name, outside)])),
    )


def _has_drawn(annotation: CaseAnnotation, head: str) -> bool:
    """Whether a case has voxels to learn ``head`` from.

    Background also counts where it is drawn as "none of the annotated classes": such voxels say something and leave
    background open. In other cases other classes are annotated, and together they single it out.
    """
    is_left_open = head == BACKGROUND and annotation.informative > annotation.decided[head]
    return bool(annotation.positive[head]) or is_left_open


def _blind_spots(dataset: Dataset, findings: Mapping[str, Finding], orders: Mapping[str, VoxelOrder]) -> list[str]:
    """Say where in the field of view no case is annotated, unless promises settle what lies far from annotation.

    Axes are those of the order to which cases are brought (case -> how; those that are missing stay as they are).
    """
    if dataset.protocol.settles_far:
        return []
    places = describe_gaps(
        turned_parts(item.parts, orders.get(name, AS_STORED))
        for name, item in findings.items()
        if item.parts is not None
    )
    return [
        f"{dataset.name}: no case is annotated in {where} of the length of axis {axis} ({'zyx'[axis]}): what a network "
        "says there is a guess. Annotate there in a few cases (background counts, too)"
        for axis, where in places.items()
    ]


def _written_otherwise(dataset: Dataset) -> list[str]:
    """Say that label maps will have another ending than the files of the data set, which cannot hold them."""
    ending, written = dataset.file_ending, written_ending(dataset.file_ending)
    if written == ending:
        return []
    return [f"{dataset.name}: label maps are written as {written}, one file each, not as {ending}; both are read alike"]


def ending_fault(dataset: Dataset) -> Fault | None:
    """Return what is wrong with the file ending of a data set; None if nothing is, or it has none."""
    ending = dataset.file_ending
    if not ending or (ending.lower() in SUPPORTED_ENDINGS and ending.lower() not in LOSSY_ENDINGS):
        return None
    lossless = [item for item in SUPPORTED_ENDINGS if item not in LOSSY_ENDINGS]
    found = f"{ending!r}, a lossy format that changes label values" if ending.lower() in LOSSY_ENDINGS else repr(ending)
    fix = "Convert images and labels, for example to .nii.gz (3-D) or .png (2-D)."
    if ending.lower() in DICOM_ENDINGS:
        fix = conversion("FOLDER", "") + "."
    return Fault("dataset.json: file_ending", found, f"one of {', '.join(lossless)}", fix)


def _check_case(case: CaseFiles, *, labels: Labels, n_channels: int) -> Finding:
    with naming_case(case.name):
        return look_into(case, labels, n_channels)[0]


def lost(name: str, error: AutosegError) -> Finding:
    """Return the faults of a case that could not be checked.

    That of a worker that died names the case instead of all that the worker was given.
    """
    if isinstance(error, DatasetError):
        return Finding(faults=error.faults)
    fault = error.fault if isinstance(error, FileFormatError | WorkerError) else None
    if fault is None:
        fault = Fault("", " ".join(str(error).split()).rstrip("."), "a file that can be read", "Replace the file.")
    return Finding(faults=(replace(fault, where=f"case {name!r}"),))


def _nothing_to_train_on(dataset: Dataset, annotations: Mapping[str, CaseAnnotation]) -> list[Fault]:
    """Find that no case is left to train on: those with a priority say nothing, the others are never drawn."""
    informative = [case for case in dataset.cases if case.name in annotations and annotations[case.name].informative]
    if annotations and not informative and len(annotations) == len(dataset.cases):
        found = f"not one annotated voxel in {len(annotations)} cases"
        fix = "Draw something in some of them, or correct the value of ignore or unlabelled in dataset.json."
        return [Fault(f"{dataset.name}: labels", found, "at least one case with an annotated voxel", fix)]
    if not informative or any(case.priority for case in informative):
        return []
    found = f"priority 0 for every case that says something ({listed(case.name for case in informative)})"
    fix = "Give some of these cases a priority above 0."
    return [Fault("dataset.json: cases", found, "at least one case to train on", fix)]


def _undeclared_faults(findings: Mapping[str, Finding], dataset: Dataset) -> list[Fault]:
    """Return one fault per undeclared value with its cases; above ten values the most frequent ones.

    What to write so that nothing is known of it takes what was proposed for the values before it for written.
    """
    content = dict(dataset.json)
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
        unknown = declare_unknown(content, value) if LEAST_VALUE <= value <= MAX_VALUE or value == NAN_VALUE else {}
        content |= unknown
        faults.append(
            Fault(
                f"label value {value_name(value)}{_UNSIGNED.get(value, '')}",
                f"{sum(cases.values())} voxels in {len(cases)} cases: {named}",
                f"only declared values [{', '.join(map(value_name, dataset.labels.file_values()))}]",
                _how_to_declare(value, unknown),
            )
        )
    rest = frequent[MAX_VALUES_REPORTED:]
    if rest:
        affected = sorted({name for value in rest for name in by_value[value]})
        found = f"{len(rest)} further undeclared values in {len(affected)} cases: {listed(affected)}"
        faults.append(Fault("label files", found, "label values, not intensities", "Correct the label files."))
    return faults


def _how_to_declare(value: int, unknown: Mapping[str, Any]) -> str:
    """Say what to do about a value that is not declared; ``unknown``: the keys that say that nothing is known of it."""
    if value > 0 and value not in _UNSIGNED:
        return "Declare it in dataset.json (as a class, or as ignore), or correct the label files."
    if not unknown:
        return "Correct the label files; what was stored without a sign must be stored with it, say as 32-bit integers."
    other = "declare it in labels as background or as a class, or correct" if value >= 0 else "correct"
    return (
        f"If nobody looked at these voxels, write {as_written(unknown)} in dataset.json; else {other} the label files."
    )


_UNSIGNED = {limit: ", which is -1 stored without a sign" for limit in (2**8 - 1, 2**16 - 1, 2**32 - 1, 2**64 - 1)}


def _annotation_json(annotation: CaseAnnotation) -> dict[str, Any]:
    return {
        **asdict(annotation),
        "annotated_fraction": annotation.annotated_fraction,
        "positive_fraction": {head: annotation.positive_fraction(head) for head in annotation.positive},
    }
