"""Preprocess a data set into its NumPy cache: cases in parallel, finished cases kept, broken cases reported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from autoseg.core.case import Case, Target
from autoseg.core.dataset import CaseFiles, Dataset
from autoseg.core.errors import AutosegError, DatasetError, Fault
from autoseg.core.labels import Labels
from autoseg.core.parallel import is_running, map_unordered
from autoseg.core.plan import Configuration, Plan
from autoseg.io.cache import ARRAYS, CacheEntry, read_entry, write_case
from autoseg.io.images import read_image, read_labels
from autoseg.preprocessing.freshness import case_fingerprint, staleness
from autoseg.preprocessing.locations import find_locations
from autoseg.preprocessing.pipeline import preprocess

NEVER = "never preprocessed"


@dataclass(frozen=True)
class RunReport:
    """What became of each case."""

    done: tuple[str, ...]
    """Preprocessed in this run, sorted."""
    kept: tuple[str, ...]
    """Cached before and still fresh, sorted."""
    failed: dict[str, AutosegError] = field(default_factory=dict)
    """Case -> why it could not be preprocessed."""


@dataclass(frozen=True, slots=True)
class _Job:
    """All that a worker needs for one case; small, since it is sent to another process."""

    files: CaseFiles
    labels: Labels
    plan: Plan
    configuration: Configuration
    folder: Path
    fingerprint: str
    is_alone: bool

    def __repr__(self) -> str:
        return f"case {self.files.name!r}"


def preprocess_dataset(
    dataset: Dataset,
    plan: Plan,
    configuration_name: str,
    folder: Path,
    *,
    workers: int = 1,
    skip: Collection[str] = frozenset(),
    progress: Callable[[int, int, str], None] | None = None,
) -> RunReport:
    """Preprocess all cases of a data set into ``folder``, those that are fresh there excepted.

    Parameters
    ----------
    dataset, plan
        What to preprocess, and how.
    configuration_name
        Configuration of the plan.
    folder
        Cache of this configuration; made if missing. What a killed run left half-written is removed.
    workers
        Number of processes. Each uses one core; a single one uses all.
    skip
        Cases to leave out; what is cached of them is removed.
    progress
        Called after each case with the number of cases settled, their total and the name.

    Returns
    -------
    What became of each case. A case that cannot be read or preprocessed does not stop the others.

    Raises
    ------
    PlanError
        If the plan has no such configuration.
    """
    configuration = plan.configuration(configuration_name)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    cases = [files for files in dataset.cases if files.name not in skip]
    _remove_cases(folder, skip)
    stale = stale_cases(dataset, plan, configuration_name, folder, [files.name for files in cases])
    todo = [files for files in cases if files.name in stale]
    kept = tuple(sorted(files.name for files in cases if files.name not in stale))
    failed: dict[str, AutosegError] = {}
    done: list[str] = []
    jobs = [_job(files, dataset.labels, plan, configuration, folder, min(workers, len(todo)) <= 1) for files in todo]
    for index, result in map_unordered(_run, jobs, workers=workers):
        name = todo[index].name
        if isinstance(result, AutosegError):
            failed[name] = result
        else:
            done.append(name)
        if progress is not None:
            progress(len(kept) + len(done) + len(failed), len(cases), name)
    _remove_leftovers(folder)
    return RunReport(done=tuple(sorted(done)), kept=kept, failed=dict(sorted(failed.items())))


def stale_cases(
    dataset: Dataset, plan: Plan, configuration_name: str, folder: Path, names: Iterable[str]
) -> dict[str, str]:
    """Return those of the cases ``names`` whose cache is missing or stale, each with the reason; reads no voxels."""
    configuration = plan.configuration(configuration_name)
    files_of = {files.name: files for files in dataset.cases}
    stale: dict[str, str] = {}
    for name in names:
        entry = read_entry(folder, name)
        if entry is None:
            stale[name] = NEVER
        elif name not in files_of:
            stale[name] = "no longer a case of the data set"
        else:
            expected = case_fingerprint(files_of[name], dataset.labels, plan, configuration)
            reason = staleness(entry.fingerprint, expected)
            if reason is not None:
                stale[name] = reason
    return stale


def read_case(files: CaseFiles, labels: Labels) -> Case:
    """Read image and annotation of a case.

    Raises
    ------
    FileFormatError
        If a file cannot be read faithfully.
    DatasetError
        If image and label file differ in shape, the case has no label file, or a value is not declared.
    """
    image, geometry = read_image(files.images)
    if files.label is None:
        raise DatasetError(
            [Fault(f"case {files.name!r}", "no label file", "one per training case", "Add it, or remove the image.")]
        )
    drawn, _ = read_labels(files.label)
    if drawn.shape != image.shape[1:]:
        raise DatasetError(
            [
                Fault(
                    where=f"{files.label}: shape",
                    found=str(drawn.shape),
                    expected=f"{image.shape[1:]}, as in {files.images[0].name}",
                    fix="Resample the labels onto the image's voxels.",
                )
            ]
        )
    codes, label_sets = labels.encode(drawn, files.name)
    return Case(name=files.name, image=image, geometry=geometry, target=Target(codes, label_sets))


def _job(
    files: CaseFiles, labels: Labels, plan: Plan, configuration: Configuration, folder: Path, is_alone: bool
) -> _Job:
    fingerprint = case_fingerprint(files, labels, plan, configuration)  # before reading: a later change makes it stale
    return _Job(files, labels, plan, configuration, folder, fingerprint, is_alone)


def _run(job: _Job) -> str:
    """Preprocess one case and write it; return its name."""
    with contextlib.nullcontext() if job.is_alone else threadpool_limits(1):
        case = read_case(job.files, job.labels)
        unknown = None if job.labels.is_dense else job.labels.unknown
        prepared = preprocess(case, job.plan, job.configuration, unknown=unknown)
    label_sets = case.target.label_sets if case.target is not None else np.zeros((0, 0), dtype=bool)
    if prepared.codes is None:
        raise DatasetError([Fault(f"case {case.name!r}", "no annotation", "a label file", "Add it.")])
    locations = find_locations(prepared.codes, label_sets)
    entry = CacheEntry(
        record=prepared.record,
        label_sets=tuple(tuple(np.flatnonzero(row).tolist()) for row in label_sets),
        n_classes=job.labels.n_classes,
        locations=locations.slices,
        code_counts=locations.counts,
        fingerprint=job.fingerprint,
    )
    write_case(
        job.folder, case.name, image=prepared.image, codes=prepared.codes, locations=locations.indices, entry=entry
    )
    return case.name


def _remove_cases(folder: Path, names: Iterable[str]) -> None:
    """Remove cases from a cache, the JSON first, so that no half case is ever seen."""
    for name in names:
        (folder / f"{name}.json").unlink(missing_ok=True)
        for kind in ARRAYS:
            (folder / f"{name}.{kind}.npy").unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that do not live any more."""
    for path in folder.glob(".*.tmp.*"):
        process = path.name[1:].split(".", 1)[0]
        if process.isdigit() and not is_running(int(process)):
            path.unlink(missing_ok=True)
