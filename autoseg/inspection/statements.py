"""Check of ``annotation_protocol``: voxels that its promises determine, contradictions, and estimated quantities."""

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
from autoseg.core.parallel import Workers, map_ordered
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
    """Result of the check of the protocol over all cases that can be read."""

    faults: tuple[Fault, ...] = ()
    """Promises that cannot be applied: the axis across which the slices lie is not known."""
    warnings: tuple[str, ...] = ()
    """Warnings, one line each: the data can be used, but the result is probably not wanted."""
    settled: Mapping[str, PromiseCounts] = field(default_factory=dict)
    """Promise, as its key in dataset.json, and all together -> the voxels that it determines."""
    reference: Mapping[str, PromiseCounts] = field(default_factory=dict)
    """The same in densely annotated cases after they were scribbled by simulation; empty without such cases."""
    kept_open: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Promise -> case -> voxels annotated as one of several classes that keep all these classes.

    The promise would exclude some of them if only voxels of a single class counted as a touch."""
    n_cases: int = 0
    n_dense: int = 0
    """Number of cases in which every voxel is annotated."""
    reach_mm: Mapping[str, float] = field(default_factory=dict)
    """Class name -> reach in mm, given or estimated."""
    estimates: Mapping[str, ReachEstimate] = field(default_factory=dict)
    """Class name -> estimate of its reach."""
    slice_axes: Mapping[str, int] = field(default_factory=dict)
    """z, y or x -> number of cases with slices across that axis; empty if no promise concerns slices."""

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
class _CasePromises:
    """Result of the check of the protocol in one case."""

    case: str
    warnings: tuple[str, ...]
    kept_open: tuple[KeptOpen, ...]
    settled: Mapping[str, PromiseCounts]
    reference: Mapping[str, PromiseCounts]
    slice_axis: int | None


def settles_anything(dataset: Dataset) -> bool:
    """Whether the protocol of the data set can narrow label sets."""
    labels = dataset.labels
    return bool(labels.n_classes) and not labels.is_dense and bool(dataset.protocol.single_promises())


def leaves_to_estimate(protocol: AnnotationProtocol) -> bool:
    """Whether a quantity of the protocol must be estimated from the annotation: a reach, or the axis of the slices."""
    return is_estimated(protocol) or (protocol.depends_on_slices and protocol.slice_axis is None)


def estimate_promises(dataset: Dataset, *, workers: Workers = 1, progress: Progress = silent) -> PromiseEstimates:
    """Estimate over all cases the quantities that the protocol leaves open, without cases that cannot be read.

    If there is nothing to estimate, no file is read.
    """
    if not leaves_to_estimate(dataset.protocol):
        return NOTHING_ESTIMATED
    measure = partial(_measure, labels=dataset.labels)
    evidence = _over_cases(measure, dataset.cases, workers, progress)
    wanted = estimated_classes(dataset.protocol, dataset.labels.n_classes)
    reaches = estimate_reach([reach for _, reach, _ in evidence])
    axis = dataset.protocol.slice_axis
    unclear: tuple[str, ...] = ()
    if axis is None and dataset.protocol.depends_on_slices:
        axis = common_axis([slices for _, _, slices in evidence])
        unclear = tuple(name for name, _, slices in evidence if not is_clear(slices, axis))
    return PromiseEstimates(
        classes={index: estimate for index, estimate in reaches.items() if index in wanted},
        slice_axis=axis,
        unclear=unclear,
        source_hash=source_hash(dataset),
    )


def with_estimates(dataset: Dataset, estimates: PromiseEstimates) -> Dataset:
    """Return the data set with all quantities of its protocol filled in: distances in mm, and the axis of the slices.

    A reach without an estimate is left out and promises nothing.
    """
    protocol = dataset.protocol
    if not leaves_to_estimate(protocol):
        return dataset
    reach = None if protocol.reach_mm is None else resolve_reach(protocol, dataset.labels.n_classes, estimates.classes)
    axis = estimates.slice_axis if protocol.slice_axis is None else protocol.slice_axis
    return replace(dataset, protocol=replace(protocol, reach_mm=reach, slice_axis=axis))


def not_estimated(dataset: Dataset, estimates: PromiseEstimates) -> tuple[str, ...]:
    """Return a warning that names the classes whose reach cannot be estimated; empty if all can be."""
    missing = sorted(estimated_classes(dataset.protocol, dataset.labels.n_classes) - estimates.classes.keys())
    if not missing:
        return ()
    names = [dataset.labels.class_names[index] for index in missing]
    example = ", ".join(f'"{name}": 40' for name in names)
    return (
        f"reach_mm of {listed(map(repr, names))} cannot be estimated: this needs at least {LEAST_CASES} cases in which "
        "the class is densely annotated, because strokes do not show how large it is. reach_mm is not used for it. "
        f'Write a distance in mm that is certain, for example "reach_mm": {{{example}}}, or annotate {LEAST_CASES} '
        "cases densely",
    )


def unclear_slices(dataset: Dataset, estimates: PromiseEstimates) -> tuple[Fault, ...]:
    """Return a fault if classes are promised to be complete in slices, but the axis of the slices is not known."""
    if dataset.protocol.classes_complete_in != "slice" or not estimates.unclear:
        return ()
    problem = (
        'classes_complete_in "slice" without slice_axis, and neither annotation nor spacing show across which axis '
        f"the slices lie, in {listed(map(repr, estimates.unclear))}"
    )
    fix = (
        'Write "slice_axis": "z", "y" or "x" into annotation_protocol: the axis across which the slices were annotated '
        "(z is the last axis of a NIfTI file, x the first). If it differs between cases, store them in the same order."
    )
    where = f"dataset.json of {dataset.name}: annotation_protocol"
    return (Fault(where, problem, "one axis across which the slices lie", fix),)


def current_estimates(
    dataset: Dataset, folder: Path, *, workers: Workers = 1, progress: Progress = silent
) -> PromiseEstimates:
    """Return the estimates stored in ``folder`` if all files are unchanged; otherwise estimate again and store them.

    If there is nothing to estimate, no file is read or written.
    """
    if not leaves_to_estimate(dataset.protocol):
        return NOTHING_ESTIMATED
    path = folder / PROMISES_FILE
    try:
        stored = _load_estimates(path)
    except PlanError:
        stored = None
    if stored is not None and stored.source_hash == source_hash(dataset):
        return stored
    estimates = estimate_promises(dataset, workers=workers, progress=progress)
    save_model(estimates, path)
    return estimates


def with_known_promises(dataset: Dataset, folder: Path) -> Dataset:
    """Return the data set with its protocol filled in from the estimates in ``folder``; nothing is estimated.

    Without stored estimates, open quantities promise nothing. Caches that were made with an estimate are then stale.
    """
    if not leaves_to_estimate(dataset.protocol) or not (folder / PROMISES_FILE).is_file():
        return dataset
    return with_estimates(dataset, _load_estimates(folder / PROMISES_FILE))


def check_promises(
    dataset: Dataset, estimates: PromiseEstimates, *, workers: Workers = 1, progress: Progress = silent
) -> PromiseReport:
    """Read the annotation of every case and check the promises against it.

    Dense cases can confirm or refute a promise about sparse ones. They are scribbled by simulation, the promises are
    applied to the scribbles, and wrongly excluded voxels are counted. Cases that cannot be read are left out
    (:func:`autoseg.inspection.integrity.check_dataset` names them).
    """
    if not settles_anything(dataset):
        return PromiseReport()
    protocol = with_estimates(dataset, estimates).protocol
    check = partial(_check_case, labels=dataset.labels, protocol=protocol)
    results = _over_cases(check, dataset.cases, workers, progress)
    names = dataset.labels.class_names
    reach = resolve_reach(protocol, dataset.labels.n_classes)
    warnings = (warning for item in results for warning in item.warnings)
    axes = Counter("zyx"[item.slice_axis] for item in results if item.slice_axis is not None)
    return PromiseReport(
        faults=unclear_slices(dataset, estimates),
        warnings=(*not_estimated(dataset, estimates), *warnings),
        settled=_summed([item.settled for item in results]),
        reference=_summed([item.reference for item in results if item.reference]),
        kept_open=_by_promise(results),
        n_cases=len(results),
        n_dense=sum(bool(item.reference) for item in results),
        reach_mm={names[index]: distance for index, distance in reach.items()},
        estimates={names[index]: estimate for index, estimate in estimates.classes.items()},
        slice_axes=axes if protocol.depends_on_slices else {},
    )


def _over_cases(
    function: Callable[[CaseFiles], Result], cases: Sequence[CaseFiles], workers: Workers, progress: Progress
) -> list[Result]:
    """Apply ``function`` to all cases; return results in case order, without cases that cannot be read."""
    results = map_ordered(function, cases, [case.name for case in cases], workers=workers, progress=progress)
    return [item for item in results if not isinstance(item, AutosegError)]


def _read(files: CaseFiles, labels: Labels) -> tuple[Target, tuple[float, float, float], CaseStatement]:
    """Return the target of a case, the spacing of its image (mm; z, y, x) and its statement in dataset.json."""
    shape, geometry = read_header(files.images[0])
    target = read_annotation(files, labels, shape[1:])
    return target, geometry.spacing, promise_statement(labels, files.name)


def _measure(files: CaseFiles, labels: Labels) -> tuple[str, ClassExtents, SliceCounts]:
    target, spacing, statement = _read(files, labels)
    reach = measure_reach(target.codes, target.label_sets, spacing, statement)
    return files.name, reach, measure_slices(target.codes, target.label_sets, spacing, statement)


def _check_case(files: CaseFiles, labels: Labels, protocol: AnnotationProtocol) -> _CasePromises:
    target, spacing, statement = _read(files, labels)
    axis = case_axis(target.codes.shape, spacing, protocol.slice_axis)
    reference: Mapping[str, PromiseCounts] = {}
    if target.codes.size and int(target.codes.max()) < labels.n_classes:
        drawn = annotate(target.codes, spacing, Style(scribbles=True, axis=axis), seed=0, case=files.name)
        codes = np.where(drawn, target.codes, labels.unknown).astype(target.codes.dtype)
        scribbled = Target(codes, target.label_sets, labels.unknown)
        reference = _count_by_promise(scribbled, spacing, protocol, CaseStatement(), dense=target)
    kept_open = find_kept_open(target.codes, target.label_sets, spacing, protocol, statement=statement)
    reach = resolve_reach(protocol, labels.n_classes)
    return _CasePromises(
        files.name,
        (
            *(_kept_open_warning(files, item, labels) for item in kept_open),
            *_stray_warnings(files, target, spacing, labels, reach),
            *_slice_warnings(files, measure_slices(target.codes, target.label_sets, spacing, statement), protocol),
        ),
        kept_open,
        _count_by_promise(target, spacing, protocol, statement),
        reference,
        axis,
    )


def _kept_open_warning(files: CaseFiles, item: KeptOpen, labels: Labels) -> str:
    names = [[labels.class_names[index] for index in classes] for classes in (item.classes, item.kept)]
    drawn, excluded = (" or ".join(map(repr, part)) for part in names)
    return (
        f"case {files.name!r}: {item.n_voxels} voxels are annotated as {drawn}, the first at {item.voxel} (z, y, x). "
        f"They keep all these classes. {item.promise} would exclude {excluded} if only voxels of a single class "
        "counted as touched. If this is what you want, annotate them without it"
    )


def _slice_warnings(files: CaseFiles, counts: SliceCounts, protocol: AnnotationProtocol) -> tuple[str, ...]:
    """Return a warning if a case was annotated across another axis than ``slice_axis``, to which promises refer."""
    stated, drawn = protocol.slice_axis, counts.drawn_axis
    if not protocol.depends_on_slices or stated is None or drawn is None or stated == drawn:
        return ()
    return (
        f"case {files.name!r}: annotated in slices across {'zyx'[drawn]}, but slice_axis is {'zyx'[stated]}, so "
        "promises about slices may exclude true classes. If its files store the voxels in another order than other "
        "cases, store image and labels like those. Otherwise correct slice_axis, or remove the promise",
    )


def _stray_warnings(
    files: CaseFiles, target: Target, spacing: Sequence[float], labels: Labels, reach: Mapping[int, float]
) -> tuple[str, ...]:
    """Return a warning for each group of voxels farther than the reach from all other annotation of its class."""
    touched = touched_classes(target.label_sets, promise_statement(labels, files.name))
    return tuple(
        f"case {files.name!r}: {stray.n_voxels} voxels of {labels.class_names[stray.class_index]!r} at {stray.voxel} "
        f"(z, y, x) lie farther than its reach of {reach[stray.class_index]:g} mm from all its other annotation. If "
        "they are a mistake, remove them: now the class is possible around them"
        for stray in find_strays(target.codes, touched, spacing, reach)
    )


def _count_by_promise(
    target: Target,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    statement: CaseStatement,
    dense: Target | None = None,
) -> dict[str, PromiseCounts]:
    """Count the voxels that each promise determines in a case, then those of all promises together."""
    truth = None if dense is None else dense.codes
    singles = protocol.single_promises()
    counts = {}
    for name, promised in {**singles, **({TOGETHER: protocol} if len(singles) > 1 else {})}.items():
        inference = infer(target.codes, target.label_sets, spacing, promised, statement=statement)
        counts[name] = check_against_reference(target.codes, target.label_sets, inference, truth)
    return counts


def _by_promise(results: Sequence[_CasePromises]) -> dict[str, dict[str, int]]:
    """Return promise -> case -> voxels that keep all annotated classes."""
    voxels: dict[str, dict[str, int]] = {}
    for result in results:
        for item in result.kept_open:
            voxels.setdefault(item.promise, {})[result.case] = item.n_voxels
    return voxels


def _summed(cases: Sequence[Mapping[str, PromiseCounts]]) -> dict[str, PromiseCounts]:
    names = cases[0] if cases else ()
    return {name: sum((case[name] for case in cases), PromiseCounts()) for name in names}


def _shares(counts: PromiseCounts) -> dict[str, float]:
    return {part: counts.share(part) for part in ("drawn", "narrowed", "settled", "informative")}


def _load_estimates(path: Path) -> PromiseEstimates:
    return load_model(PromiseEstimates, path, f"Plan again: {PLANNING}", f"Delete it and plan again: {PLANNING}")
