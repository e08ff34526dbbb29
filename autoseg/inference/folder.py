"""Predict many files: checked first, one after the other, with reading and writing beside the network."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cases.case import Case, CaseRecord
from autoseg.core.arrays import LabelMap
from autoseg.core.atomic import lacks_room, no_room, write_json, write_text
from autoseg.core.errors import AutosegError, ConfigError, DatasetError, Fault
from autoseg.core.findings import listed
from autoseg.dataset.case_files import find_image_cases
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.folder_files import has_ending, passed_over, strays, visible
from autoseg.inference.inputs import check_inputs
from autoseg.inference.probability_buffer import ProbabilitySpool
from autoseg.io.images import (
    SUPPORTED_ENDINGS,
    ending_of,
    read_image,
    write_labels,
    write_probabilities,
    written_ending,
)
from autoseg.preprocessing import Preprocessed
from autoseg.tasks.task import task_of

if TYPE_CHECKING:
    from autoseg.inference.predictor import Predictor

log = logging.getLogger(__name__)

Files = Sequence[str | Path]
Inputs = str | Path | Sequence[Files] | Mapping[str, Files]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class PredictionReport:
    """What became of each case."""

    done: tuple[str, ...] = ()
    """Written now."""
    skipped: tuple[str, ...] = ()
    """Left as they were: the output existed."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Case -> why it could not be predicted."""
    warnings: tuple[str, ...] = ()
    """What is probably not meant about the inputs, naming the case."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One case to predict."""

    name: str
    files: tuple[Path, ...]
    output: Path
    probabilities: Path | None
    """Where probabilities go, without ending; None if they are not wanted."""

    @property
    def is_done(self) -> bool:
        """Whether all that is wanted exists."""
        wanted = self.probabilities is None or self.probabilities.with_name(self.probabilities.name + ".npz").is_file()
        return wanted and self.output.is_file()


def predict_files(
    predictor: Predictor,
    inputs: Inputs,
    output_folder: Path,
    *,
    overwrite: bool = False,
    save_probabilities: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> PredictionReport:
    """Predict every case and write ``<case><ending>``, each atomically, in the geometry and header of its image.

    All headers are checked before anything is computed. A case that cannot be predicted does not stop the others.
    The output folder also gets the model's dataset.json and plans.json, which the evaluation reads.

    Parameters
    ----------
    predictor
        The model.
    inputs
        A folder with ``<case>_<CCCC><ending>``; or case -> files in channel order; or a list of such files, named
        after the first. Outputs have the ending of the inputs, or that of :func:`autoseg.io.images.written_ending`.
    output_folder
        Made if it does not exist.
    overwrite
        Predict cases whose output exists, too.
    save_probabilities
        Also write ``<case>.npz`` with ``probabilities`` (H, z, y, x) float32. Their size uncompressed is needed on the
        disk of the output folder meanwhile, for up to two cases.
    workers
        Threads that check headers. 0 also reads, predicts and writes strictly one after the other; else the next case
        is read, finished slabs are decided, and the last case is written while the network works: at most one case
        ahead.
    progress
        Called with (cases done, cases in all, name of the last).

    Raises
    ------
    DatasetError
        If there is no case, or none of those to predict fits the model; names every fault.
    ConfigError
        If the output folder is the input folder, or holds a data set's own files.
    """
    dataset = predictor.model.dataset
    cases, failed = _gather(inputs, dataset)
    if not cases:
        raise DatasetError([Fault("inputs", "no cases", "at least one", "Name the files of a case.")])
    _check_output_folder(output_folder, cases)
    largest = max(dataset.labels.file_values())
    jobs = [_job(name, files, output_folder, save_probabilities, largest) for name, files in cases.items()]
    skipped = tuple(job.name for job in jobs if job.is_done and not overwrite)
    todo = [job for job in jobs if job.name not in skipped]
    check = check_inputs(
        {job.name: job.files for job in todo},
        predictor.model.plan,
        predictor.model.configuration,
        n_outputs=len(task_of(dataset.labels).outputs),
        workers=workers,
    )
    if todo and len(check.faults) == len(todo):
        raise DatasetError([fault for faults in check.faults.values() for fault in faults])
    failed |= {name: "\n".join(map(str, faults)) for name, faults in check.faults.items()}
    for text in (*failed.values(), *check.warnings):
        log.warning("%s", text)
    _write_model_files(predictor, output_folder, jobs)
    good = [job for job in todo if job.name not in check.faults]
    errors = _Run(predictor, overlap=workers > 0, progress=progress or _silent).predict(good)
    done = tuple(job.name for job in good if job.name not in errors)
    return PredictionReport(done, skipped, failed | errors, check.warnings)


@dataclass(frozen=True, slots=True)
class _Prediction:
    """What is to be written of a case."""

    labels: LabelMap
    record: CaseRecord
    probabilities: ProbabilitySpool | None


class _Run:
    """One pass over cases: this thread drives the network, others read ahead, decide its slabs, and write behind."""

    def __init__(self, predictor: Predictor, *, overlap: bool, progress: Progress) -> None:
        self._predictor = predictor
        self._overlap = overlap
        self._progress = progress
        self._errors: dict[str, str] = {}
        self._finished = 0
        self._total = 0

    def predict(self, jobs: Sequence[_Job]) -> dict[str, str]:
        """Predict all jobs; return case -> error for those that failed."""
        self._total = len(jobs)
        reader, decider, writer = (ThreadPoolExecutor(1) for _ in range(3))
        writing: tuple[_Job, Future[None]] | None = None
        try:
            reading = reader.submit(self._read, jobs[0]) if jobs else None
            for index, job in enumerate(jobs):
                prepared = self._outcome(job, reading)
                following = jobs[index + 1] if index + 1 < len(jobs) else None
                if following is not None and self._overlap:
                    reading = reader.submit(self._read, following)
                prediction = self._predicted(job, prepared, decider if self._overlap else None)
                del prepared
                self._finish(writing)
                writing = (job, writer.submit(self._write, job, prediction)) if prediction is not None else None
                del prediction
                if following is not None and not self._overlap:
                    self._finish(writing)
                    writing = None
                    reading = reader.submit(self._read, following)
            self._finish(writing)
        finally:
            for pool in (reader, decider, writer):
                pool.shutdown(wait=True, cancel_futures=True)
        return self._errors

    def _read(self, job: _Job) -> Preprocessed:
        image, geometry = read_image(job.files)
        return self._predictor.prepare(Case(job.name, image, geometry))

    def _predicted(self, job: _Job, prepared: Preprocessed | None, decider: Executor | None) -> _Prediction | None:
        """Return a case's label map, decided while the network goes on; None if it failed."""
        if prepared is None:
            return None
        record, labels = prepared.record, self._predictor.model.dataset.labels
        spool: ProbabilitySpool | None = None
        try:
            if job.probabilities is not None:
                spool = ProbabilitySpool(job.probabilities.parent, record, labels)
            slabs = self._predictor.slabs(prepared.image)
            keep = None if spool is None else spool.keep
            return _Prediction(self._predictor.decide(slabs, record, keep=keep, pool=decider), record, spool)
        except Exception as error:
            if spool is not None:
                spool.close()
            self._fail(job, error)
            return None

    def _write(self, job: _Job, prediction: _Prediction) -> None:
        if job.probabilities is not None and prediction.probabilities is not None:
            with prediction.probabilities as spool:
                write_probabilities(job.probabilities, spool.heads(), self._predictor.model.dataset.labels.n_heads)
        write_labels(job.output, prediction.labels, prediction.record.geometry)

    def _outcome(self, job: _Job, reading: Future[Preprocessed] | None) -> Preprocessed | None:
        try:
            return reading.result() if reading is not None else None
        except Exception as error:
            self._fail(job, error)
            return None

    def _finish(self, writing: tuple[_Job, Future[None]] | None) -> None:
        """Wait until a case is written, and count it."""
        if writing is None:
            return
        job, future = writing
        try:
            future.result()
        except Exception as error:
            self._fail(job, error)
        else:
            self._count(job)

    def _fail(self, job: _Job, error: Exception) -> None:
        """Note a case that failed: whatever its reason, the other cases go on."""
        if lacks_room(error, job.output.parent):
            error = no_room(job.output, error)
        known = isinstance(error, AutosegError)
        self._errors[job.name] = str(error) if known else f"{type(error).__name__}: {error}"
        log.error("case %s failed: %s", job.name, error, exc_info=None if known else error)
        self._count(job)

    def _count(self, job: _Job) -> None:
        self._finished += 1
        self._progress(self._finished, self._total, job.name)


def _gather(inputs: Inputs, dataset: Dataset) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """Return case -> files, and what of the input cannot be used (name -> why)."""
    if isinstance(inputs, (str, Path)):
        return _gather_folder(Path(inputs), dataset)
    if isinstance(inputs, Mapping):
        return {name: tuple(Path(file) for file in files) for name, files in inputs.items()}, {}
    cases: dict[str, tuple[Path, ...]] = {}
    for files in inputs:
        paths = tuple(Path(file) for file in files)
        if not paths:
            raise ConfigError("inputs: found a case without files, expected one or more per case. Remove it.")
        name = paths[0].name.removesuffix(ending_of(paths[0]))
        name = name.removesuffix("_0000")
        if name in cases:
            raise ConfigError(
                f"inputs: found two cases named {name!r}, expected one. Give a mapping from case to files."
            )
        cases[name] = paths
    return cases, {}


def _gather_folder(folder: Path, dataset: Dataset) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """Return case -> files, and why of every other image of the folder (by its name)."""
    if folder.is_file():
        one = shlex.quote(str(folder.parent / "one"))
        fix = f"Give the folder, -i {shlex.quote(str(folder.parent))}; for this image alone: mkdir {one} && "
        fix += f"cp {shlex.quote(str(folder))} {one}, then -i {one}."
        raise DatasetError([Fault(str(folder), "a file", f"a folder of images <case>_0000{dataset.file_ending}", fix)])
    ending = _ending_in(folder, dataset.file_ending)
    cases, faults = find_image_cases(folder, ending, len(dataset.channels))
    if not cases:
        raise DatasetError(faults)
    for line in passed_over(folder, ending):
        log.warning("%s", line)
    left_out: dict[str, str] = {}
    for fault in (*faults, *strays(folder, ending)):
        for case in fault.cases:
            left_out[Path(fault.where).name if case in cases or case in left_out else case] = str(fault)
    return dict(cases), left_out


def _ending_in(folder: Path, preferred: str) -> str:
    """Return the ending of the images in ``folder``: the model's own if there are any, else the only supported one."""
    if not folder.is_dir():
        return preferred
    names = [path.name for path in visible(folder)]
    if any(has_ending(name, preferred) for name in names):
        return preferred
    numbered = {
        ending: sorted(name for name in names if has_ending(name, f"_0000{ending}")) for ending in SUPPORTED_ENDINGS
    }
    numbered = {ending: of_kind for ending, of_kind in numbered.items() if of_kind}
    if len(numbered) > 1:
        there = "; ".join(listed(of_kind, len(of_kind)) for _, of_kind in sorted(numbered.items()))
        raise DatasetError(
            [Fault(str(folder), f"images ending in {sorted(numbered)}", f"one ending, or the model's {preferred}",
                   f"Put the formats into folders of their own ({there}).")]
        )  # fmt: skip
    return next(iter(numbered), preferred)


def _job(name: str, files: tuple[Path, ...], folder: Path, save_probabilities: bool, largest: int) -> _Job:
    """Return what to do for a case; ``largest`` is the largest value of a label map."""
    output = folder / f"{name}{written_ending(ending_of(files[0]), largest)}"
    return _Job(name, files, output, folder / name if save_probabilities else None)


def _check_output_folder(folder: Path, cases: Mapping[str, Sequence[Path]]) -> None:
    """Refuse to write among the inputs or into a data set's own folder."""
    target = folder.resolve()
    if any(file.resolve().parent == target for files in cases.values() for file in files):
        raise ConfigError(f"output folder {folder}: found the input images in it, expected another folder. Change -o.")
    if (target.parent / DATASET_JSON).is_file() and re.match(r"(labels|images)Tr(_|$)", target.name):
        raise ConfigError(
            f"output folder {folder}: found that it belongs to the data set in {target.parent}, expected a folder for "
            "predictions. Change -o."
        )
    if (folder / "imagesTr").is_dir():
        raise ConfigError(
            f"output folder {folder}: found a data set in it, expected a folder for predictions. Change -o."
        )


def _write_model_files(predictor: Predictor, folder: Path, jobs: Sequence[_Job]) -> None:
    """Write dataset.json (with the ending of the predictions) and plans.json beside the predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = ending_of(jobs[0].output)
    write_json(folder / "dataset.json", {**predictor.model.dataset.json, "file_ending": ending})
    write_text(folder / "plans.json", predictor.model.plan.model_dump_json(indent=2) + "\n")


def _silent(done: int, total: int, what: str) -> None:
    """Report nothing."""
