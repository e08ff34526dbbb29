"""Files of a merged data set: images linked or copied, label files with the new values, dataset.json last."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoseg.annotation.label_counts import count_values
from autoseg.cases.label_codes import read_drawn, read_valid_mask
from autoseg.core.atomic import write_json
from autoseg.core.errors import AutosegError, DatasetError, Fault
from autoseg.core.findings import listed
from autoseg.core.parallel import map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.dataset.file_values import DECLARE_VALUES, value_name
from autoseg.dataset.labels import Labels
from autoseg.interop.merging import Merger
from autoseg.io.images import write_labels, written_ending
from autoseg.io.raw_layout import put_images


@dataclass(frozen=True, slots=True)
class _Job:
    """Input of a worker for the label file of one case."""

    files: CaseFiles
    labels: Labels
    values: Mapping[int, int]
    ignore: int | None
    target: Path

    def __repr__(self) -> str:
        return f"case {self.files.name!r}"


def write_merged(
    merger: Merger,
    folder: Path,
    *,
    copy: bool = False,
    workers: int = 1,
    progress: Progress = silent,
) -> Dataset:
    """Write the data set that ``merger`` describes into ``folder``, and return it, loaded.

    dataset.json is written last: a folder without it is incomplete. If label files have faults, nothing is left behind.

    Parameters
    ----------
    copy
        Copy the images instead of linking to them.
    workers
        Number of processes that write label files.
    progress
        Called with (label files written, label files in all, name of the case).

    Raises
    ------
    DatasetError
        If ``folder`` is not empty, or label files have faults; all of these are named.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        content = f"a {DATASET_JSON}" if (folder / DATASET_JSON).exists() else "files"
        raise DatasetError([Fault(str(folder), content, "a new folder", "Choose another folder, or remove this one.")])
    jobs = _jobs(merger, folder)
    (folder / "labelsTr").mkdir(parents=True, exist_ok=True)
    results = map_ordered(_write_labels, jobs, [job.files.name for job in jobs], workers=workers, progress=progress)
    errors = [result for result in results if isinstance(result, AutosegError)]
    if errors:
        shutil.rmtree(folder)  # was not there, or empty
        raise _combined(errors)
    for source in merger.sources:
        renamed = [replace(case, name=source.case_names[case.name]) for case in source.dataset.cases]
        put_images(renamed, written_ending(source.dataset.file_ending), folder / "imagesTr", copy=copy)
    write_json(folder / DATASET_JSON, dict(merger.content))
    return Dataset.load(folder)


def _jobs(merger: Merger, folder: Path) -> list[_Job]:
    ending = written_ending(merger.sources[0].dataset.file_ending)
    return [
        _Job(
            files=case,
            labels=source.dataset.labels,
            values=source.values,
            ignore=merger.ignore,
            target=folder / "labelsTr" / f"{source.case_names[case.name]}{ending}",
        )
        for source in merger.sources
        for case in source.dataset.cases
    ]


def _combined(errors: list[AutosegError]) -> AutosegError:
    """Return all faults as one error, or the first error of another kind."""
    faults = [fault for error in errors if isinstance(error, DatasetError) for fault in error.faults]
    return next((error for error in errors if not isinstance(error, DatasetError)), None) or DatasetError(faults)


def _write_labels(job: _Job) -> None:
    """Read a label file, replace its values by the new ones, and write it."""
    drawn, geometry = read_drawn(job.files)
    valid = read_valid_mask(job.files, job.labels, drawn.shape)
    counts = count_values(drawn if valid is None else drawn[valid])
    undeclared = {value: number for value, number in counts.items() if value not in job.values}
    if undeclared:
        numbers = listed(f"{value_name(value)} ({number} voxels)" for value, number in undeclared.items())
        present, expected = f"undeclared values {numbers}", f"only [{', '.join(map(value_name, sorted(job.values)))}]"
        raise DatasetError([Fault(f"{job.files.label} of {job}", present, expected, DECLARE_VALUES)])
    highest = max([*job.values.values(), job.ignore or 0])
    merged = np.zeros(drawn.shape, dtype=np.uint8 if highest < 256 else np.uint16)
    for value in counts:
        merged[drawn == value] = job.values[value]
    if valid is not None and job.ignore is not None:
        merged[~valid] = job.ignore
    write_labels(job.target, merged, geometry)
