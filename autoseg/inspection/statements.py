"""What the promises of a data set settle, what in its annotation contradicts them, and what of them is estimated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from autoseg.annotation.distance import find_strays
from autoseg.annotation.promises import (
    TOGETHER,
    KeptOpen,
    PromiseCounts,
    check_against_reference,
    find_kept_open,
    infer,
)
from autoseg.annotation.reach import (
    LEAST_CASES,
    ClassExtents,
    estimate_reach,
    estimated_classes,
    is_estimated,
    measure_reach,
    resolve_reach,
)
from autoseg.annotation.slices import SliceCounts, case_axis, common_axis, is_clear, measure_slices
from autoseg.annotation.touches import promise_statement, touched_classes
from autoseg.cases.case import Target
from autoseg.cases.label_codes import read_annotation
from autoseg.core.errors import AutosegError, Fault, PlanError
from autoseg.core.findings import listed
from autoseg.core.json_models import load_model, save_model
from autoseg.core.parallel import map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.commands import PLANNING
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.estimates import PromiseEstimates, ReachEstimate
from autoseg.dataset.labels import CaseStatement, Labels
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.inspection.measure import source_hash
from autoseg.io.images import read_header
from autoseg.simulation.styles import Style, annotate

PROMISES_FILE = "annotation_promises.json"
NOTHING_ESTIMATED = PromiseEstimates(classes={}, slice_axis=None, unclear=())

"""Called with (cases done, cases in all, name of the case just done)."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class PromiseReport:
    """What the promises of a data set say, over all its cases that can be read."""

    faults: tuple[Fault, ...] = ()
    """Promises that cannot be read: nothing tells across which axis the slices lie."""
    warnings: tuple[str, ...] = ()
    """What can be used but is probably not wanted, one line each."""
    settled: Mapping[str, PromiseCounts] = field(default_factory=dict)
    """Each promise, as its key in dataset.json, and all together -> the voxels that it settles."""
    reference: Mapping[str, PromiseCounts] = field(default_factory=dict)
    """The same in the densely annotated cases, as they would have been scribbled; empty without such cases."""
    kept_open: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Promise -> case -> voxels drawn as one of several classes of which it would leave fewer, if only classes drawn
    alone counted. They keep what was drawn."""
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
            "kept_open": {name: dict(cases) for name, cases in self.kept_open.items()},
            "n_cases": self.n_cases,
            "n_dense_cases": self.n_dense,
            "reach_mm": dict(self.reach_mm),
            "slice_axes": dict(self.slice_axes),
            "reach_estimates": {name: estimate.model_dump() for name, estimate in self.estimates.items()},
        }


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a worker found in one case."""

    case: str
    warnings: tuple[str, ...]
    kept_open: tuple[KeptOpen, ...]
    settled: Mapping[str, PromiseCounts]
    reference: Mapping[str, PromiseCounts]
    slice_axis: int | None


def settles_anything(dataset: Dataset) -> bool:
    """Whether the data set makes a promise that can narrow what its annotation leaves open."""
    labels = dataset.labels
    return bool(labels.n_classes) and not labels.is_dense and bool(dataset.protocol.single_promises())


def leaves_to_estimate(protocol: AnnotationProtocol) -> bool:
    """Whether something of the promises has to be found in the annotation: a reach, or the axis of the slices."""
    return is_estimated(protocol) or (protocol.speaks_of_slices and protocol.slice_axis is None)


def estimate_promises(dataset: Dataset, *, workers: int = 1, progress: Progress = silent) -> PromiseEstimates:
    """Find over all cases what the protocol leaves to be found. Cases that cannot be read are left out.

    Without anything to find no file is read.
    """
    if not leaves_to_estimate(dataset.protocol):
        return NOTHING_ESTIMATED
    measure = partial(_measure, labels=dataset.labels)
    found = _over_cases(measure, dataset.cases, workers, progress)
    wanted = estimated_classes(dataset.protocol, dataset.labels.n_classes)
    reaches = estimate_reach([reach for _, reach, _ in found])
    axis = dataset.protocol.slice_axis
    unclear: tuple[str, ...] = ()
    if axis is None and dataset.protocol.speaks_of_slices:
        axis = common_axis([slices for _, _, slices in found])
        unclear = tuple(name for name, _, slices in found if not is_clear(slices, axis))
    return PromiseEstimates(
        classes={index: estimate for index, estimate in reaches.items() if index in wanted},
        slice_axis=axis,
        unclear=unclear,
        source_hash=source_hash(dataset),
    )


def settled(dataset: Dataset, estimates: PromiseEstimates) -> Dataset:
    """Return the data set with every promise spelt out: distances in mm, and the axis of the slices.

    A reach without an estimate is left out and promises nothing.
    """
    protocol = dataset.protocol
    if not leaves_to_estimate(protocol):
        return dataset
    reach = None if protocol.reach_mm is None else resolve_reach(protocol, dataset.labels.n_classes, estimates.classes)
    axis = estimates.slice_axis if protocol.slice_axis is None else protocol.slice_axis
    return replace(dataset, protocol=replace(protocol, reach_mm=reach, slice_axis=axis))


def not_estimated(dataset: Dataset, estimates: PromiseEstimates) -> tuple[str, ...]:
    """Return a warning that names the classes whose reach cannot be estimated: they promise nothing. Else nothing."""
    missing = sorted(estimated_classes(dataset.protocol, dataset.labels.n_classes) - estimates.classes.keys())
    if not missing:
        return ()
    names = [dataset.labels.class_names[index] for index in missing]
    example = ", ".join(f'"{name}": 40' for name in names)
    return (
        f"reach_mm of {listed(map(repr, names))} cannot be estimated: strokes do not tell how large a class is, only "
        f"cases do in which it is densely annotated, at least {LEAST_CASES}. Now it promises nothing. Write the mm "
        f'that you are sure of, say "reach_mm": {{{example}}}, or annotate {LEAST_CASES} cases densely',
    )


def unclear_slices(dataset: Dataset, estimates: PromiseEstimates) -> tuple[Fault, ...]:
    """Return a fault if classes are promised to be complete in slices and nothing tells which slices these are."""
    if dataset.protocol.classes_complete_in != "slice" or not estimates.unclear:
        return ()
    found = (
        'classes_complete_in "slice" without slice_axis, and neither what is drawn nor the spacing tells across which '
        f"axis the slices lie, in {listed(map(repr, estimates.unclear))}"
    )
    fix = (
        'Write "slice_axis": "z" into annotation_protocol, or "y" or "x": the axis across which you drew, slice by '
        "slice (z is the last axis of a NIfTI file, x the first). If it is not the same in all cases, store them alike."
    )
    where = f"dataset.json of {dataset.name}: annotation_protocol"
    return (Fault(where, found, "one axis that counts the slices", fix),)


def current_estimates(
    dataset: Dataset, folder: Path, *, workers: int = 1, progress: Progress = silent
) -> PromiseEstimates:
    """Return the estimates in ``folder`` if the files are still those they were made of; else make and keep them.

    Without anything to estimate no file is read or written.
    """
    if not leaves_to_estimate(dataset.protocol):
        return NOTHING_ESTIMATED
    path = folder / PROMISES_FILE
    try:
        known = _load_estimates(path)
    except PlanError:
        known = None
    if known is not None and known.source_hash == source_hash(dataset):
        return known
    estimates = estimate_promises(dataset, workers=workers, progress=progress)
    save_model(estimates, path)
    return estimates


def with_known_promises(dataset: Dataset, folder: Path) -> Dataset:
    """Return the data set with its promises spelt out by what ``folder`` holds; nothing is estimated anew.

    Where there is no file, what is left to be estimated promises nothing; caches that were made with an estimate are
    then stale.
    """
    if not leaves_to_estimate(dataset.protocol) or not (folder / PROMISES_FILE).is_file():
        return dataset
    return settled(dataset, _load_estimates(folder / PROMISES_FILE))


def check_promises(
    dataset: Dataset, estimates: PromiseEstimates, *, workers: int = 1, progress: Progress = silent
) -> PromiseReport:
    """Read the annotation of every case and hold the promises against it.

    Dense cases can confirm or refute a promise about sparse ones: they are scribbled as the literature simulates it,
    the promises are applied to the scribbles, and what they exclude wrongly is counted. Cases that cannot be read are
    left out (:func:`autoseg.inspection.integrity.check_dataset` names them).
    """
    if not settles_anything(dataset):
        return PromiseReport()
    protocol = settled(dataset, estimates).protocol
    check = partial(_check_case, labels=dataset.labels, protocol=protocol)
    findings = _over_cases(check, dataset.cases, workers, progress)
    names = dataset.labels.class_names
    reach = resolve_reach(protocol, dataset.labels.n_classes)
    warnings = (warning for item in findings for warning in item.warnings)
    axes = Counter("zyx"[item.slice_axis] for item in findings if item.slice_axis is not None)
    return PromiseReport(
        faults=unclear_slices(dataset, estimates),
        warnings=(*not_estimated(dataset, estimates), *warnings),
        settled=_summed([item.settled for item in findings]),
        reference=_summed([item.reference for item in findings if item.reference]),
        kept_open=_by_promise(findings),
        n_cases=len(findings),
        n_dense=sum(bool(item.reference) for item in findings),
        reach_mm={names[index]: distance for index, distance in reach.items()},
        estimates={names[index]: estimate for index, estimate in estimates.classes.items()},
        slice_axes=axes if protocol.speaks_of_slices else {},
    )


def _over_cases(
    function: Callable[[CaseFiles], Result], cases: Sequence[CaseFiles], workers: int, progress: Progress
) -> list[Result]:
    """Apply ``function`` to all cases; results in case order, without the cases that it cannot read."""
    results = map_ordered(function, cases, [case.name for case in cases], workers=workers, progress=progress)
    return [item for item in results if not isinstance(item, AutosegError)]


def _read(files: CaseFiles, labels: Labels) -> tuple[Target, tuple[float, float, float], CaseStatement]:
    """Read the annotation of a case, the spacing of its image (mm) and what is said of it."""
    shape, geometry = read_header(files.images[0])
    target = read_annotation(files, labels, shape[1:])
    return target, geometry.spacing, promise_statement(labels, files.name)


def _measure(files: CaseFiles, labels: Labels) -> tuple[str, ClassExtents, SliceCounts]:
    target, spacing, statement = _read(files, labels)
    reach = measure_reach(target.codes, target.label_sets, spacing, statement)
    return files.name, reach, measure_slices(target.codes, target.label_sets, spacing, statement)


def _check_case(files: CaseFiles, labels: Labels, protocol: AnnotationProtocol) -> _Finding:
    target, spacing, statement = _read(files, labels)
    axis = case_axis(target.codes.shape, spacing, protocol.slice_axis)
    reference: Mapping[str, PromiseCounts] = {}
    if target.codes.size and int(target.codes.max()) < labels.n_classes:
        drawn = annotate(target.codes, spacing, Style(scribbles=True, axis=axis), seed=0, case=files.name)
        scribbled = Target(np.where(drawn, target.codes, labels.unknown).astype(target.codes.dtype), target.label_sets)
        reference = _settled(scribbled, spacing, protocol, CaseStatement(), dense=target)
    kept = find_kept_open(target.codes, target.label_sets, spacing, protocol, statement=statement)
    reach = resolve_reach(protocol, labels.n_classes)
    return _Finding(
        files.name,
        (
            *(_kept_warning(files, item, labels) for item in kept),
            *_stray_warnings(files, target, spacing, labels, reach),
            *_slice_warnings(files, measure_slices(target.codes, target.label_sets, spacing, statement), protocol),
        ),
        kept,
        _settled(target, spacing, protocol, statement),
        reference,
        axis,
    )


def _kept_warning(files: CaseFiles, item: KeptOpen, labels: Labels) -> str:
    names = [[labels.class_names[index] for index in classes] for classes in (item.classes, item.kept)]
    drawn, kept = (" or ".join(map(repr, part)) for part in names)
    return (
        f"case {files.name!r}: {item.n_voxels} voxels drawn as one of several classes keep all of them, the first at "
        f"{item.voxel} (z, y, x): drawn as {drawn}, of which {item.promise} would exclude {kept} if only classes drawn "
        "alone counted as touched. If that is what you mean, draw there what is left"
    )


def _slice_warnings(files: CaseFiles, shown: SliceCounts, protocol: AnnotationProtocol) -> tuple[str, ...]:
    """Say that a case was drawn across another axis than ``slice_axis``, of which promises about slices speak."""
    said = protocol.slice_axis
    if not protocol.speaks_of_slices or None in (said, shown.drawn_axis) or said == shown.drawn_axis:
        return ()
    drawn, axis = ("zyx"[number] for number in (shown.drawn_axis or 0, said or 0))
    return (
        f"case {files.name!r}: drawn slice by slice across {drawn}, not across {axis} as slice_axis says, so promises "
        f"about slices may exclude what is there. If its file stores the voxels in another order than those of other "
        f"cases, store image and labels as they do; else correct slice_axis, or leave out the promise",
    )


def _stray_warnings(
    files: CaseFiles, target: Target, spacing: Sequence[float], labels: Labels, reach: Mapping[int, float]
) -> tuple[str, ...]:
    touched = touched_classes(target.label_sets, promise_statement(labels, files.name))
    return tuple(
        f"case {files.name!r}: {stray.n_voxels} voxels of {labels.class_names[stray.class_index]!r} at {stray.voxel} "
        f"(z, y, x) lie farther than its reach of {reach[stray.class_index]:g} mm from all its other annotation. If "
        "that is a slip of the pen, remove them: now the class may lie around them"
        for stray in find_strays(target.codes, touched, spacing, reach)
    )


def _settled(
    target: Target,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    statement: CaseStatement,
    dense: Target | None = None,
) -> dict[str, PromiseCounts]:
    """Count what each promise settles in a case, then all together."""
    truth = None if dense is None else dense.codes
    singles = protocol.single_promises()
    counts = {}
    for name, promised in {**singles, **({TOGETHER: protocol} if len(singles) > 1 else {})}.items():
        inference = infer(target.codes, target.label_sets, spacing, promised, statement=statement)
        counts[name] = check_against_reference(target.codes, target.label_sets, inference, truth)
    return counts


def _by_promise(findings: Sequence[_Finding]) -> dict[str, dict[str, int]]:
    """Return promise -> case -> voxels that keep what was drawn."""
    voxels: dict[str, dict[str, int]] = {}
    for finding in findings:
        for item in finding.kept_open:
            voxels.setdefault(item.promise, {})[finding.case] = item.n_voxels
    return voxels


def _summed(cases: Sequence[Mapping[str, PromiseCounts]]) -> dict[str, PromiseCounts]:
    names = cases[0] if cases else ()
    return {name: sum((case[name] for case in cases), PromiseCounts()) for name in names}


def _shares(counts: PromiseCounts) -> dict[str, float]:
    return {part: counts.share(part) for part in ("drawn", "narrowed", "settled", "informative")}


def _load_estimates(path: Path) -> PromiseEstimates:
    return load_model(PromiseEstimates, path, f"Plan again: {PLANNING}", f"Delete it and plan again: {PLANNING}")
