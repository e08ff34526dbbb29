"""What the promises of a data set settle, what in its annotation contradicts them, and what of them is estimated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from autoseg.annotation.distance import find_strays
from autoseg.annotation.promises import (
    TOGETHER,
    Contradiction,
    Settled,
    check_against_reference,
    contradictions,
    infer,
    single_promises,
)
from autoseg.annotation.reach import (
    ReachEvidence,
    estimate_reach,
    estimated_classes,
    is_estimated,
    measure_reach,
    resolve_reach,
)
from autoseg.annotation.simulation import Style, annotate
from autoseg.core.case import Target
from autoseg.core.dataset import CaseFiles, Dataset
from autoseg.core.errors import AutosegError, Fault, PlanError
from autoseg.core.geometry import slice_axis
from autoseg.core.labels import CaseStatement, Labels
from autoseg.core.parallel import map_unordered
from autoseg.core.protocol import AnnotationProtocol
from autoseg.core.reach import ReachEstimate, ReachEstimates
from autoseg.io.annotation import read_annotation
from autoseg.io.images import read_header
from autoseg.planning.files import load_promises, save_promises
from autoseg.planning.fingerprint import source_hash

PROMISES_FILE = "annotation_promises.json"

Progress = Callable[[int, int, str], None]
"""Called with (cases done, cases in all, name of the case just done)."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class PromiseReport:
    """What the promises of a data set say, over all its cases that can be read."""

    faults: tuple[Fault, ...] = ()
    """Drawn voxels that contradict a promise."""
    warnings: tuple[str, ...] = ()
    """What can be used but is probably not wanted, one line each."""
    settled: Mapping[str, Settled] = field(default_factory=dict)
    """Each promise, as its key in dataset.json, and all together -> the voxels that it settles."""
    reference: Mapping[str, Settled] = field(default_factory=dict)
    """The same in the densely annotated cases, as they would have been scribbled; empty without such cases."""
    n_cases: int = 0
    n_dense: int = 0
    """Cases in which every voxel is drawn."""
    reach_mm: Mapping[str, float] = field(default_factory=dict)
    """Class name -> mm, given or estimated."""
    estimates: Mapping[str, ReachEstimate] = field(default_factory=dict)
    """Class name -> what its reach was estimated from."""
    slice_axes: Mapping[str, int] = field(default_factory=dict)
    """z, y or x -> cases whose slices that axis counts; empty unless something is promised of slices."""

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values; shares from 0 to 1."""
        return {
            "faults": [str(fault) for fault in self.faults],
            "warnings": list(self.warnings),
            "settled": {name: _shares(counts) for name, counts in self.settled.items()},
            "dense_cases_as_scribbled": {
                name: _shares(counts) | {"wrong_foreground": counts.share("wrong")}
                for name, counts in self.reference.items()
            },
            "n_cases": self.n_cases,
            "n_dense_cases": self.n_dense,
            "reach_mm": dict(self.reach_mm),
            "slice_axes": dict(self.slice_axes),
            "reach_estimates": {name: estimate.model_dump() for name, estimate in self.estimates.items()},
        }


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a worker found in one case."""

    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    settled: Mapping[str, Settled]
    reference: Mapping[str, Settled]
    slice_axis: int


def settles_anything(dataset: Dataset) -> bool:
    """Whether the data set makes a promise that can narrow what its annotation leaves open."""
    labels = dataset.labels
    return bool(labels.n_classes) and not labels.is_dense and bool(single_promises(dataset.protocol))


def estimate_promises(dataset: Dataset, *, workers: int = 1, progress: Progress | None = None) -> ReachEstimates:
    """Estimate over all cases what the protocol leaves to be estimated. Cases that cannot be read are left out.

    Without anything to estimate no file is read.
    """
    if not is_estimated(dataset.protocol):
        return ReachEstimates()
    measure = partial(_measure, labels=dataset.labels, protocol=dataset.protocol)
    evidence = _over_cases(measure, dataset.cases, workers, progress)
    wanted = estimated_classes(dataset.protocol, dataset.labels.n_classes)
    classes = {index: estimate for index, estimate in estimate_reach(evidence).items() if index in wanted}
    return ReachEstimates(classes=classes, source_hash=source_hash(dataset))


def not_estimated(dataset: Dataset, reach: Mapping[int, float]) -> tuple[str, ...]:
    """Return one warning per class whose reach should be estimated and is not in ``reach``: it promises nothing."""
    missing = sorted(estimated_classes(dataset.protocol, dataset.labels.n_classes) - reach.keys())
    return tuple(
        f"reach_mm of {dataset.labels.class_names[index]!r} cannot be estimated: the class is annotated nowhere, or in "
        'single voxels without annotated background around them. It promises nothing; write a number instead of "auto"'
        for index in missing
    )


def current_estimates(
    dataset: Dataset, folder: Path, *, workers: int = 1, progress: Progress | None = None
) -> ReachEstimates:
    """Return the estimates in ``folder`` if the files are still those they were made of; else make and keep them.

    Without anything to estimate no file is read or written.
    """
    if not is_estimated(dataset.protocol):
        return ReachEstimates()
    path = folder / PROMISES_FILE
    try:
        known = load_promises(path)
    except PlanError:
        known = None
    if known is not None and known.source_hash == source_hash(dataset):
        return known
    estimates = estimate_promises(dataset, workers=workers, progress=progress)
    save_promises(estimates, path)
    return estimates


def known_reach(dataset: Dataset, folder: Path) -> dict[int, float]:
    """Return class index -> mm with the estimates that ``folder`` holds; nothing is estimated anew.

    Where there is no file, "auto" promises nothing; caches that were made with an estimate are then stale.
    """
    classes: Mapping[int, ReachEstimate] = {}
    if is_estimated(dataset.protocol) and (folder / PROMISES_FILE).is_file():
        classes = load_promises(folder / PROMISES_FILE).classes
    return resolve_reach(dataset.protocol, dataset.labels.n_classes, classes)


def check_promises(
    dataset: Dataset, estimates: ReachEstimates, *, workers: int = 1, progress: Progress | None = None
) -> PromiseReport:
    """Read the annotation of every case and hold the promises against it.

    Dense cases can confirm or refute a promise about sparse ones: they are scribbled as the literature simulates it,
    the promises are applied to the scribbles, and what they exclude wrongly is counted. Cases that cannot be read are
    left out (:func:`autoseg.planning.integrity.check_dataset` names them).
    """
    if not settles_anything(dataset):
        return PromiseReport()
    reach = resolve_reach(dataset.protocol, dataset.labels.n_classes, estimates.classes)
    check = partial(_check_case, labels=dataset.labels, protocol=dataset.protocol, reach=reach)
    findings = _over_cases(check, dataset.cases, workers, progress)
    names = dataset.labels.class_names
    return PromiseReport(
        faults=tuple(fault for item in findings for fault in item.faults),
        warnings=(*not_estimated(dataset, reach), *(warning for item in findings for warning in item.warnings)),
        settled=_summed([item.settled for item in findings]),
        reference=_summed([item.reference for item in findings if item.reference]),
        n_cases=len(findings),
        n_dense=sum(bool(item.reference) for item in findings),
        reach_mm={names[index]: distance for index, distance in reach.items()},
        estimates={names[index]: estimate for index, estimate in estimates.classes.items()},
        slice_axes=Counter("zyx"[item.slice_axis] for item in findings)
        if dataset.protocol.classes_complete_in == "slice"
        else {},
    )


def find_contradictions(
    dataset: Dataset, reach: Mapping[int, float], *, workers: int = 1, progress: Progress | None = None
) -> tuple[Fault, ...]:
    """Return the faults of :func:`check_promises` alone, which takes less time."""
    if not settles_anything(dataset):
        return ()
    check = partial(_find_faults, labels=dataset.labels, protocol=dataset.protocol, reach=reach)
    return tuple(fault for faults in _over_cases(check, dataset.cases, workers, progress) for fault in faults)


def _over_cases(
    function: Callable[[CaseFiles], Result], cases: Sequence[CaseFiles], workers: int, progress: Progress | None
) -> list[Result]:
    """Apply ``function`` to all cases; results in case order, without the cases that it cannot read."""
    results: dict[int, Result] = {}
    for done, (index, result) in enumerate(map_unordered(function, cases, workers=workers), start=1):
        if not isinstance(result, AutosegError):
            results[index] = result
        if progress is not None:
            progress(done, len(cases), cases[index].name)
    return [results[index] for index in sorted(results)]


def _read(files: CaseFiles, labels: Labels) -> tuple[Target, tuple[float, float, float], CaseStatement]:
    """Read the annotation of a case, the spacing of its image (mm) and what is said of it."""
    shape, geometry = read_header(files.images[0])
    target = read_annotation(files, labels, shape[1:])
    return target, geometry.spacing, labels.statements.get(files.name, CaseStatement())


def _measure(files: CaseFiles, labels: Labels, protocol: AnnotationProtocol) -> ReachEvidence:
    target, spacing, statement = _read(files, labels)
    return measure_reach(target.codes, target.label_sets, spacing, protocol, statement=statement)


def _find_faults(
    files: CaseFiles, labels: Labels, protocol: AnnotationProtocol, reach: Mapping[int, float]
) -> tuple[Fault, ...]:
    return _judged(files, *_read(files, labels), labels, protocol, reach)[0]


def _check_case(files: CaseFiles, labels: Labels, protocol: AnnotationProtocol, reach: Mapping[int, float]) -> _Finding:
    target, spacing, statement = _read(files, labels)
    faults, doubts = _judged(files, target, spacing, statement, labels, protocol, reach)
    reference: Mapping[str, Settled] = {}
    if target.codes.size and int(target.codes.max()) < labels.n_classes:
        drawn = annotate(target.codes, spacing, Style(scribbles=True), seed=0, case=files.name)
        scribbled = Target(np.where(drawn, target.codes, labels.unknown).astype(target.codes.dtype), target.label_sets)
        reference = _settled(scribbled, spacing, protocol, reach, CaseStatement(), dense=target)
    return _Finding(
        faults,
        (*doubts, *_stray_warnings(files, target, spacing, labels, reach)),
        _settled(target, spacing, protocol, reach, statement),
        reference,
        slice_axis(target.codes.shape, spacing),
    )


def _judged(
    files: CaseFiles,
    target: Target,
    spacing: Sequence[float],
    statement: CaseStatement,
    labels: Labels,
    protocol: AnnotationProtocol,
    reach: Mapping[int, float],
) -> tuple[tuple[Fault, ...], tuple[str, ...]]:
    """Return what contradicts a promise as faults, and what only contradicts an estimate as warnings."""
    found = contradictions(target.codes, target.label_sets, spacing, protocol, reach, statement=statement)
    estimated = estimated_classes(protocol, labels.n_classes)
    faults, warnings = [], []
    for item in found:
        fault = _fault(files, item, labels, protocol, reach)
        if item.promise in ("reach_mm", TOGETHER) and estimated & set(item.classes):
            warnings.append(f"{fault} This reach is estimated: what was drawn holds; a longer one can be written")
        else:
            faults.append(fault)
    return tuple(faults), tuple(warnings)


def _stray_warnings(
    files: CaseFiles, target: Target, spacing: Sequence[float], labels: Labels, reach: Mapping[int, float]
) -> tuple[str, ...]:
    return tuple(
        f"case {files.name!r}: {stray.n_voxels} voxels of {labels.class_names[stray.class_index]!r} at {stray.voxel} "
        f"(z, y, x) lie farther than its reach of {reach[stray.class_index]:g} mm from all its other annotation. If "
        "that is a slip of the pen, remove them: now the class may lie around them"
        for stray in find_strays(target.codes, spacing, reach)
    )


def _settled(
    target: Target,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    reach: Mapping[int, float],
    statement: CaseStatement,
    dense: Target | None = None,
) -> dict[str, Settled]:
    """Count what each promise settles in a case, then all together."""
    truth = None if dense is None else dense.codes
    singles = single_promises(protocol)
    counts = {}
    for name, promised in {**singles, **({TOGETHER: protocol} if len(singles) > 1 else {})}.items():
        kept = {} if promised.reach_mm is None else reach
        inference = infer(target.codes, target.label_sets, spacing, promised, kept, statement=statement)
        counts[name] = check_against_reference(target.codes, target.label_sets, inference, truth)
    return counts


def _fault(
    files: CaseFiles, item: Contradiction, labels: Labels, protocol: AnnotationProtocol, reach: Mapping[int, float]
) -> Fault:
    names = [labels.class_names[index] for index in item.classes]
    drawn = " or ".join(map(repr, names))
    found = (
        f"{item.n_voxels} voxels drawn as {drawn} of which {item.promise} leaves no class, the first at {item.voxel}"
    )
    distances = [f"{reach[index]:g} mm of {labels.class_names[index]!r}" for index in item.classes if index in reach]
    expected = {
        "reach_mm": f"annotation of one of these classes within its reach: {' or '.join(distances)}",
        "classes_complete_in": f"annotation of one of these classes in each {protocol.classes_complete_in} that has it",
        "background_encloses": "none that annotated background separates from all annotated foreground",
    }.get(item.promise, "voxels of which the promises leave a class")
    fix = "Correct the label file, or annotation_protocol in dataset.json if its promise was not kept."
    return Fault(f"{files.label} of case {files.name!r}", f"{found} (z, y, x)", expected, fix)


def _summed(cases: Sequence[Mapping[str, Settled]]) -> dict[str, Settled]:
    names = cases[0] if cases else ()
    return {name: sum((case[name] for case in cases), Settled()) for name in names}


def _shares(counts: Settled) -> dict[str, float]:
    return {part: counts.share(part) for part in ("drawn", "narrowed", "settled", "informative")}
