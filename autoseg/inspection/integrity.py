"""Check of all files of a data set before anything is computed: faults, warnings, and how much is annotated."""

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
from autoseg.core.location import ARRAY_ENDINGS
from autoseg.core.orientation import AS_STORED, VoxelOrder
from autoseg.core.parallel import Workers, map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.file_values import LEAST_VALUE, MAX_VALUE, NAN_VALUE, value_name
from autoseg.dataset.json_advice import as_written, declare_unknown
from autoseg.dataset.labels import Labels
from autoseg.dataset.objects import largest_written
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.dataset.schema import BACKGROUND
from autoseg.inspection.annotation_outside import background_note, foreground_warning
from autoseg.inspection.case_check import CaseCheck, check_case_files, naming_case
from autoseg.inspection.coverage import describe_gaps, turned_parts
from autoseg.inspection.painting_check import painting_warnings
from autoseg.inspection.unread_masks import unread_masks
from autoseg.inspection.volume_check import survey_volume
from autoseg.inspection.voxel_orders import order_warnings, prevailing_orders
from autoseg.inspection.voxel_sizes import mixed_sizes
from autoseg.io.images import LOSSY_ENDINGS, SUPPORTED_ENDINGS, written_ending
from autoseg.preprocessing.volume_size import is_large

MAX_VALUES_REPORTED = 10


@dataclass(frozen=True)
class IntegrityReport:
    """Result of the check of a data set."""

    faults: tuple[Fault, ...]
    """Faults that must be corrected before planning."""
    warnings: tuple[str, ...]
    """Warnings, one line each: the data can be used, but the result is probably not wanted."""
    cases: Mapping[str, CaseAnnotation]
    """Case -> how much is annotated, without the cases whose label file cannot be read."""
    heads: tuple[str, ...] = ()
    """Names of the classes or regions, in order."""
    never_annotated: tuple[str, ...] = ()
    """Heads without an annotated voxel in any case."""
    notes: tuple[str, ...] = ()
    """Facts that are no problem but good to know, one line each."""

    @property
    def uninformative(self) -> tuple[str, ...]:
        """Cases without an annotated voxel; training does not use them."""
        return tuple(name for name, annotation in self.cases.items() if not annotation.informative)

    def raise_if_faulty(self) -> None:
        """Raise ``DatasetError`` with all faults; do nothing if there are none."""
        if self.faults:
            raise DatasetError(self.faults)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, with the annotated share (0 to 1) of each case and head."""
        return {
            "faults": [str(fault) for fault in self.faults],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "uninformative": list(self.uninformative),
            "never_annotated": list(self.never_annotated),
            "cases": {name: _annotation_json(annotation) for name, annotation in self.cases.items()},
        }


def check_dataset(
    dataset: Dataset,
    *,
    known_faults: Sequence[Fault] = (),
    workers: Workers = 1,
    progress: Progress = silent,
) -> IntegrityReport:
    """Read every case once, ``workers`` at a time, and report all faults; no fault raises an error.

    A data set without classes or channels (``Dataset.examine`` after a fault in dataset.json) is checked as far as
    possible.

    Parameters
    ----------
    known_faults
        Faults of dataset.json and of the file names; they come first in the report.
    workers
        Number of processes; 1 reads in this process.
    progress
        Called with (cases done, cases in all, name of the case just done).
    """
    unsupported = ending_fault(dataset)
    if unsupported is not None:
        return IntegrityReport((*known_faults, unsupported), dataset.warnings, {})
    check = partial(_check_case, labels=dataset.labels, n_channels=len(dataset.channels), protocol=dataset.protocol)
    results = map_ordered(check, dataset.cases, dataset.case_names, workers=workers, progress=progress)
    checks = {
        name: unchecked_case(name, result) if isinstance(result, AutosegError) else result
        for name, result in zip(dataset.case_names, results, strict=True)
    }
    return report_on(dataset, checks, known_faults)


def report_on(dataset: Dataset, checks: Mapping[str, CaseCheck], known_faults: Sequence[Fault] = ()) -> IntegrityReport:
    """Return the report on a data set from the checks (case -> check) of all its cases."""
    ordered = {case.name: checks[case.name] for case in dataset.cases}
    annotations = {name: item.annotation for name, item in ordered.items() if item.annotation is not None}
    heads = tuple(head.name for head in dataset.labels.heads)
    never = tuple(
        head for head in heads if annotations and not any(_has_annotated(item, head) for item in annotations.values())
    )
    faults = [fault for item in ordered.values() for fault in item.faults]
    faults += _nothing_to_train_on(dataset, annotations)
    warnings = [*dataset.warnings, *(warning for item in ordered.values() for warning in item.warnings)]
    warnings += [f"{dataset.name}: {head!r} has no annotated voxel in any case and cannot be learnt" for head in never]
    read = [item.class_voxels for item in ordered.values() if item.class_voxels]
    class_voxels = [sum(column) for column in zip(*read, strict=True)]
    warnings += [*unread_masks(dataset), *painting_warnings(dataset, class_voxels)]
    used = {name: item for name, item in ordered.items() if item.annotation is not None and item.annotation.informative}
    geometries = {name: item.geometry for name, item in used.items() if item.geometry is not None}
    outside = {} if dataset.labels.targets else {name: item.outside for name, item in used.items()}  # never cropped
    warnings += order_warnings(dataset.name, geometries)
    warnings += filter(None, [foreground_warning(dataset.name, outside)])
    warnings += _blind_spots(dataset, ordered, prevailing_orders(geometries))
    warnings += [*_other_ending_note(dataset), *grouped_by_text({name: item.remarks for name, item in ordered.items()})]
    faults += mixed_sizes({name: item.size for name, item in ordered.items() if item.size is not None})
    return IntegrityReport(
        faults=(*known_faults, *faults, *_undeclared_faults(ordered, dataset)),
        warnings=tuple(warnings),
        cases=annotations,
        heads=heads,
        never_annotated=never,
        notes=tuple(filter(None, [background_note(dataset.name, outside)])),
    )


def _has_annotated(annotation: CaseAnnotation, head: str) -> bool:
    """Whether a case has voxels from which ``head`` can be learnt.

    Background also counts where voxels are annotated as "none of the annotated classes", which leaves background
    possible. Together with cases in which other classes are annotated, such voxels determine the background.
    """
    is_left_open = head == BACKGROUND and annotation.informative > annotation.decided[head]
    return bool(annotation.positive[head]) or is_left_open


def _blind_spots(dataset: Dataset, checks: Mapping[str, CaseCheck], orders: Mapping[str, VoxelOrder]) -> list[str]:
    """Return warnings about parts of the field of view where no case is annotated.

    None if the annotation protocol determines the classes of voxels far from annotation.

    Parameters
    ----------
    orders
        Case -> change to the voxel order that prevails; the axes of a missing case stay as they are.
    """
    if dataset.protocol.excludes_far_classes:
        return []
    advice = "Add numbers there" if dataset.labels.targets else "Annotate a few cases there; background is enough"
    places = describe_gaps(
        turned_parts(item.parts, orders.get(name, AS_STORED)) for name, item in checks.items() if item.parts is not None
    )
    return [
        f"{dataset.name}: no case is annotated at {where} of the length of axis {axis} ({'zyx'[axis]}). Predictions "
        f"are not reliable there. {advice}"
        for axis, where in places.items()
    ]


def _other_ending_note(dataset: Dataset) -> list[str]:
    """Return a warning if label maps get another ending, since the format of the data set cannot hold them."""
    has_numbers = bool(dataset.labels.targets)
    ending, largest = dataset.file_ending, largest_written(dataset.labels)
    written = written_ending(ending, largest, has_numbers=has_numbers)
    if written == ending:
        return []
    what = "predictions" if has_numbers else "label maps"
    return [f"{dataset.name}: {what} are written as {written}, one file each, not as {ending}; both can be read"]


def ending_fault(dataset: Dataset) -> Fault | None:
    """Return a fault if the file ending of a data set is not supported; None if it is, or if there is none."""
    ending = dataset.file_ending
    supported = ending.lower() in (*SUPPORTED_ENDINGS, *ARRAY_ENDINGS)
    if not ending or (supported and ending.lower() not in LOSSY_ENDINGS):
        return None
    lossless = [item for item in SUPPORTED_ENDINGS if item not in LOSSY_ENDINGS]
    text = f"{ending!r}, a lossy format that changes label values" if ending.lower() in LOSSY_ENDINGS else repr(ending)
    fix = "Convert images and labels, for example to .nii.gz (3-D) or .png (2-D)."
    if ending.lower() in DICOM_ENDINGS:
        fix = conversion("FOLDER", "") + "."
    return Fault("dataset.json: file_ending", text, f"one of {', '.join(lossless)}", fix)


def _check_case(case: CaseFiles, *, labels: Labels, n_channels: int, protocol: AnnotationProtocol) -> CaseCheck:
    with naming_case(case.name):
        if is_large(case):
            return survey_volume(case, labels, n_channels, 1, protocol)[0]
        return check_case_files(case, labels, n_channels)[0]


def unchecked_case(name: str, error: AutosegError) -> CaseCheck:
    """Return the check of a case that ended with an error.

    If its worker process died, the fault names the case instead of everything that the worker was given.
    """
    if isinstance(error, DatasetError):
        return CaseCheck(faults=error.faults)
    fault = error.fault if isinstance(error, FileFormatError | WorkerError) else None
    if fault is None:
        fault = Fault("", " ".join(str(error).split()).rstrip("."), "a file that can be read", "Replace the file.")
    return CaseCheck(faults=(replace(fault, where=f"case {name!r}"),))


def _nothing_to_train_on(dataset: Dataset, annotations: Mapping[str, CaseAnnotation]) -> list[Fault]:
    """Return a fault if no case can be trained on: none is annotated, or every annotated case has priority 0."""
    informative = [case for case in dataset.cases if case.name in annotations and annotations[case.name].informative]
    if annotations and not informative and len(annotations) == len(dataset.cases):
        problem = f"no annotated voxel in {len(annotations)} cases"
        fix = "Annotate some of them, or correct the value of ignore or unlabelled in dataset.json."
        return [Fault(f"{dataset.name}: labels", problem, "at least one case with an annotated voxel", fix)]
    if not informative or any(case.priority for case in informative):
        return []
    problem = f"priority 0 for every annotated case ({listed(case.name for case in informative)})"
    fix = "Give some of these cases a priority above 0."
    return [Fault("dataset.json: cases", problem, "at least one case to train on", fix)]


def _undeclared_faults(checks: Mapping[str, CaseCheck], dataset: Dataset) -> list[Fault]:
    """Return one fault per undeclared file value with its cases; of more than ten values, those with most voxels.

    Each proposal for dataset.json assumes that the proposals for the values before it were followed.
    """
    content = dict(dataset.json)
    by_value: dict[int, dict[str, int]] = {}
    for name, item in checks.items():
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
        others = f"{len(rest)} further undeclared values in {len(affected)} cases: {listed(affected)}"
        fix = 'Correct the label files; if values are numbers of objects, write "task": "instances" in dataset.json.'
        faults.append(Fault("label files", others, "label values, not intensities", fix))
    return faults


def _how_to_declare(value: int, unknown: Mapping[str, Any]) -> str:
    """Return the remedy for an undeclared value.

    Parameters
    ----------
    unknown
        Keys of dataset.json that declare the value as unannotated; empty if that is impossible.
    """
    if value > 0 and value not in _UNSIGNED:
        return "Declare it in dataset.json (as a class, or as ignore), or correct the label files."
    if not unknown:
        return "Correct the label files: store them with a sign, for example as 32-bit integers."
    other = "declare it in labels as background or as a class, or correct" if value >= 0 else "correct"
    return (
        f"If these voxels are not annotated, write {as_written(unknown)} in dataset.json. Otherwise {other} the label "
        "files."
    )


_UNSIGNED = {limit: ", which is -1 stored without a sign" for limit in (2**8 - 1, 2**16 - 1, 2**32 - 1, 2**64 - 1)}


def _annotation_json(annotation: CaseAnnotation) -> dict[str, Any]:
    return {
        **asdict(annotation),
        "annotated_fraction": annotation.annotated_fraction,
        "positive_fraction": {head: annotation.positive_fraction(head) for head in annotation.positive},
    }
