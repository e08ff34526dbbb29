"""Preprocessing of a data set into its cache: cases in parallel, fresh cases kept, failed cases reported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from threadpoolctl import threadpool_limits

from autoseg.annotation.touches import promise_statement, touched_classes
from autoseg.cases.cache import CaseCache, is_of_another_version, remove_cases, write_case
from autoseg.cases.case import Case
from autoseg.cases.entry import CacheEntry
from autoseg.cases.layers import LEVELS, Layer, further_inputs
from autoseg.core.arrays import BoolArray
from autoseg.core.errors import AutosegError, DatasetError, Fault, StorageError
from autoseg.core.parallel import Workers, is_running, map_unordered
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress, silent
from autoseg.core.trained_on import image_contents
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Labels, annotated_codes, weight_levels
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.preprocessing.block_progress import forget, watched
from autoseg.preprocessing.freshness import REASONS, case_fingerprint, moved_image, other_order, staleness
from autoseg.preprocessing.locations import find_locations
from autoseg.preprocessing.merge_inferred import pair
from autoseg.preprocessing.merge_weights import weigh
from autoseg.preprocessing.pipeline import preprocess
from autoseg.preprocessing.read_case import infer_case, read_case, read_previous
from autoseg.preprocessing.volume_case import VolumeJob, write_volume_case
from autoseg.preprocessing.volume_size import REMEDY, is_large, refused

NEVER = "never preprocessed"
NO_FILES: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True)
class RunReport:
    """Outcome for each case."""

    done: tuple[str, ...]
    """Cases preprocessed in this run, sorted."""
    kept: tuple[str, ...]
    """Cases that were cached before and are still fresh, sorted."""
    failed: dict[str, AutosegError] = field(default_factory=dict)
    """Case -> why it could not be preprocessed."""


@dataclass(frozen=True, slots=True)
class _Job:
    """Input of a worker for one case; small, because it is sent to another process."""

    files: CaseFiles
    labels: Labels
    plan: Plan
    configuration: Configuration
    folder: Path
    protocol: AnnotationProtocol
    fingerprint: str
    previous: Path | None
    is_alone: bool

    def __repr__(self) -> str:
        return f"case {self.files.name!r}"


def preprocess_dataset(
    dataset: Dataset,
    plan: Plan,
    configuration_name: str,
    folder: Path,
    *,
    workers: Workers | Callable[[Collection[str]], Workers] = 1,
    skip: Collection[str] = frozenset(),
    previous: Mapping[str, Path] = NO_FILES,
    progress: Progress = silent,
) -> RunReport:
    """Preprocess all cases of a data set into ``folder``, except those that are fresh there.

    Parameters
    ----------
    dataset, plan
        Cases, and how to preprocess them. The promises are those of ``dataset.protocol`` with all quantities filled in
        (:func:`autoseg.inspection.statements.with_estimates`); a reach of "auto" promises nothing.
    configuration_name
        Configuration of the plan.
    folder
        Cache of this configuration; made if missing. Half-written files of a killed run are removed.
    workers
        Number of processes or a cluster, or a function that returns it for the names of the cases to be done. Each
        process uses one core; a single one of this machine uses all.
    skip
        Cases to leave out; their cached files are removed.
    previous
        Case -> label map that the previous stage predicted of it without having trained on it. Needed of every case for
        the second stage of a cascade, and of none otherwise.
    progress
        Called after each case with (cases finished, cases in all, name), and meanwhile, in another thread, with the
        blocks of cases too large for memory in place of the name.

    Returns
    -------
    Outcome for each case. A case that cannot be read or preprocessed does not stop the others.

    Raises
    ------
    PlanError
        If the plan has no such configuration.
    StorageError
        If there is no space left for the cache; finished cases are kept.
    """
    configuration = plan.configuration(configuration_name)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    cases = [files for files in dataset.cases if files.name not in skip]
    remove_cases(folder, skip)
    names = [files.name for files in cases]
    cache = CaseCache.read(folder, names)
    stale = stale_cases(dataset, plan, configuration_name, cache, names, previous=previous)
    todo = [files for files in cases if files.name in stale]
    kept = tuple(sorted(files.name for files in cases if files.name not in stale))
    failed: dict[str, AutosegError] = {}
    done: list[str] = []
    given = workers if todo else 1
    chosen = given([files.name for files in todo]) if callable(given) else given
    is_alone = isinstance(chosen, int) and min(chosen, len(todo)) <= 1
    jobs = [
        _job(files, dataset, plan, configuration, folder, previous=previous.get(files.name), is_alone=is_alone)
        for files in todo
    ]

    def report(what: str) -> None:
        progress(len(kept) + len(done) + len(failed), len(cases), what)

    with watched(folder, [files.name for files in todo if _is_told(files)], report):
        for index, result in map_unordered(_run, jobs, workers=chosen):
            name = todo[index].name
            if isinstance(result, StorageError):
                raise result  # there is no space for the other cases either
            if isinstance(result, AutosegError):
                failed[name] = result
            else:
                done.append(name)
            report(name)
    _remove_leftovers(folder)
    return RunReport(tuple(sorted(done)), kept, dict(sorted(failed.items())))


def stale_cases(
    dataset: Dataset,
    plan: Plan,
    configuration_name: str,
    cache: CaseCache,
    names: Iterable[str],
    *,
    previous: Mapping[str, Path] = NO_FILES,
) -> dict[str, str]:
    """Return case -> reason for those of ``names`` whose cache is missing or stale; no voxels are read.

    ``previous`` as for :func:`preprocess_dataset`.
    """
    configuration = plan.configuration(configuration_name)
    files_of = {files.name: files for files in dataset.cases}
    stale: dict[str, str] = {}
    for name in names:
        entry = cache.entries.get(name)
        if entry is None:
            stale[name] = REASONS["version"] if is_of_another_version(cache.folder, name) else NEVER
        elif name not in files_of:
            stale[name] = "no longer a case of the data set"
        else:
            expected = _fingerprint(files_of[name], dataset, plan, configuration, previous.get(name))
            reason = staleness(entry.fingerprint, expected) or other_order(entry.record, plan)
            reason = reason or moved_image(entry.volume, files_of[name])
            if reason is not None:
                stale[name] = reason
    return stale


def _fingerprint(
    files: CaseFiles, dataset: Dataset, plan: Plan, configuration: Configuration, previous: Path | None
) -> str:
    return case_fingerprint(files, dataset.labels, plan, configuration, protocol=dataset.protocol, previous=previous)


def _job(
    files: CaseFiles,
    dataset: Dataset,
    plan: Plan,
    configuration: Configuration,
    folder: Path,
    *,
    previous: Path | None,
    is_alone: bool,
) -> _Job:
    fingerprint = _fingerprint(files, dataset, plan, configuration, previous)  # before reading: a change is noticed
    return _Job(files, dataset.labels, plan, configuration, folder, dataset.protocol, fingerprint, previous, is_alone)


def _further_layers(job: _Job, case: Case) -> tuple[Layer, ...]:
    """Read the further inputs of the configuration on the grid of the image of a case."""
    inputs = further_inputs(job.configuration, job.labels.n_classes)
    if not inputs:
        return ()
    if job.previous is None:
        stage = job.configuration.previous_stage
        fault = Fault(f"case {job.files.name!r}", f"no prediction of {stage}", "one that did not train on it",
                      f"Train every fold of {stage} first.")  # fmt: skip
        raise DatasetError([fault])
    return tuple(read_previous(job.previous, info, job.labels, case) for info in inputs)


def _run(job: _Job) -> None:
    """Preprocess one case and write it."""
    if is_large(job.files):
        _run_volume(job)
        return
    with contextlib.nullcontext() if job.is_alone else threadpool_limits(1):
        case = read_case(job.files, job.labels, (job.plan, job.configuration))
        case = replace(case, layers=(*case.layers, *_further_layers(job, case)))
        if case.target is None:
            raise DatasetError([Fault(f"case {case.name!r}", "no annotation", "a label file", "Add it.")])
        unknown = None if job.labels.is_dense else case.target.undrawn
        inference = infer_case(case, job.labels, job.protocol)
        inferred = None if inference is None else inference.codes
        prepared = preprocess(case, job.plan, job.configuration, unknown=unknown, inferred=inferred)
    codes, label_sets, inferred_sets, weights = prepared.codes, prepared.label_sets, None, None
    if codes is None or label_sets is None:
        raise ValueError(f"case {case.name!r}: preprocessing returned no annotation")
    if inference is not None and prepared.inferred is not None:
        statement = promise_statement(job.labels, case.name)
        is_drawn = np.logical_or.reduce(touched_classes(label_sets, statement), axis=1)  # no promise narrows it
        inferred = np.where(is_drawn[codes], prepared.inferred.dtype.type(0), prepared.inferred)
        paired = pair(codes, label_sets, inferred, inference.label_sets)
        codes, label_sets, inferred_sets = paired.codes, paired.label_sets, paired.inferred_sets
    layers = {layer.info.name: layer.array for layer in prepared.layers}
    levels = layers.pop(LEVELS, None)
    if levels is not None:
        is_annotated = annotated_codes(label_sets, case.target.undrawn)
        weighted = weigh(codes, is_annotated, levels, weight_levels(job.labels))
        codes, weights, label_sets = weighted.codes, weighted.weights, label_sets[weighted.code_before]
        inferred_sets = None if inferred_sets is None else inferred_sets[weighted.code_before]
    locations = find_locations(codes, label_sets)
    entry = CacheEntry(
        record=prepared.record,
        label_sets=_members(label_sets),
        inferred_sets=None if inferred_sets is None else _members(inferred_sets),
        weights=weights,
        undrawn=case.target.undrawn,
        n_classes=job.labels.n_classes,
        locations=locations.slices,
        code_counts=locations.counts,
        images=image_contents(case.own_image),
        layers=tuple(layer.info for layer in prepared.layers if layer.info.name in layers),
        fingerprint=job.fingerprint,
    )
    write_case(
        job.folder,
        case.name,
        image=prepared.image,
        codes=codes,
        locations=locations.indices,
        entry=entry,
        layers=layers,
    )


def _is_told(files: CaseFiles) -> bool:
    """Whether a case is preprocessed block by block."""
    with contextlib.suppress(AutosegError):  # that it cannot be read is its failure
        return is_large(files)
    return False


def _run_volume(job: _Job) -> None:
    """Preprocess a case that is too large for memory, block by block; ``DatasetError`` for what it cannot have."""
    faults = refused(job.files, job.labels, job.protocol)
    if job.configuration.previous_stage is not None:
        faults.append(Fault(f"case {job.files.name!r}", "the second stage of a cascade", "a case in memory", REMEDY))
    if faults:
        raise DatasetError(faults)
    with contextlib.nullcontext() if job.is_alone else threadpool_limits(1):
        try:
            write_volume_case(
                VolumeJob(job.files, job.labels, job.plan, job.configuration, job.folder, job.fingerprint)
            )
        finally:
            forget(job.folder, job.files.name)


def _members(table: BoolArray) -> tuple[tuple[int, ...], ...]:
    """Return the class indices of each row of a table (N, K) bool."""
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in table)


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that have ended."""
    for path in folder.glob(".*.tmp.*"):
        process = path.name[1:].split(".", 1)[0]
        if process.isdigit() and not is_running(int(process)):
            path.unlink(missing_ok=True)
