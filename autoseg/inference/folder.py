"""Prediction of many files: headers are checked first; reading and writing run in parallel with the network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

from autoseg.cases.case import Case, CaseRecord
from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError, DatasetError, Fault
from autoseg.core.findings import counted
from autoseg.core.json_models import save_model
from autoseg.core.parallel import Cluster, Workers, available_cores, map_unordered
from autoseg.core.prediction_record import read_prediction_record, record_prediction
from autoseg.core.progress import Progress, silent
from autoseg.dataset.folder_files import refuse_dataset_folder
from autoseg.dataset.labels import Labels
from autoseg.dataset.objects import largest_written
from autoseg.dataset.schema import AFFINITIES, PER_CLASS
from autoseg.inference.input_cases import Inputs, input_cases
from autoseg.inference.inputs import check_inputs
from autoseg.inference.model import Model
from autoseg.inference.outputs import CaseOutput, FurtherOutput, Removal
from autoseg.inference.predictor_group import PredictorGroup, separation_of
from autoseg.inference.prepared import PreparedCase
from autoseg.inference.run_cases import run_cases
from autoseg.io.images import (
    ending_of,
    ending_of_maps,
    holds_labels,
    write_labels,
    write_values,
)
from autoseg.nn.device import device_name
from autoseg.preprocessing.read_case import read_unlabelled
from autoseg.tasks.separation import SeparationSettings
from autoseg.tasks.task import outputs_of, refuse_regression

log = logging.getLogger(__name__)

ON_CLUSTER = "workers of a cluster"
"""Device of a prediction by many processes."""


@dataclass(frozen=True, slots=True)
class PredictionReport:
    """Result of each case of a prediction."""

    done: tuple[str, ...] = ()
    """Cases written by this run."""
    skipped: tuple[str, ...] = ()
    """Cases whose output existed and was left as it was."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Case -> reason why it could not be predicted."""
    warnings: tuple[str, ...] = ()
    """Warnings about inputs that are probably not as intended, each naming the case."""


Read = Callable[[PredictorGroup, str, Sequence[Path]], Case | PreparedCase]
"""Function that reads the files of a case that a group is to predict, given its name."""


def read_files(predictor: PredictorGroup, name: str, files: Sequence[Path]) -> Case | PreparedCase:
    """Return a case as its files hold it if preparing it needs a network, otherwise prepared."""
    content = read_unlabelled(name, files, [(model.plan, model.configuration) for model in predictor.models])
    return content if predictor.needs_network_to_prepare else predictor.prepare(content)


@dataclass(frozen=True, slots=True, repr=False)
class _Job:
    """One case to predict."""

    name: str
    files: tuple[Path, ...]
    output: Path
    read: Read = read_files

    def __repr__(self) -> str:
        return f"case {self.name!r}"

    def is_done(self, further: Sequence[FurtherOutput]) -> bool:
        """Whether the label map exists, and the further outputs."""
        return self.output.is_file() and all(output.is_written(self.output) for output in further)


def predict_files(
    predictor: PredictorGroup,
    inputs: Inputs,
    output_folder: Path,
    *,
    overwrite: bool = False,
    further: Sequence[FurtherOutput] = (),
    removals: Sequence[Removal] = (),
    read: Read = read_files,
    workers: Workers = 1,
    progress: Progress = silent,
) -> PredictionReport:
    """Predict every case and write ``<case><ending>``, each atomically, in the geometry and header of its image.

    All headers are checked before anything is computed. A case that cannot be predicted does not stop the others.
    The output folder also gets the model's dataset.json and plans.json, which the evaluation reads, and
    prediction.json: command, versions and images of each case.

    Parameters
    ----------
    predictor
        The model, or the models.
    inputs
        A folder with ``<case>_<CCCC><ending>``; or case -> files in channel order; or a list with the files of each
        case, named after its first file. The ending of an output is that of
        :func:`autoseg.io.images.written_ending`: the ending of the input if that format can be written.
    output_folder
        Made if it does not exist.
    overwrite
        Also predict cases whose output exists.
    further
        What to write beside the label maps.
    removals
        Of what earlier predictions wrote beside a label map that is replaced. Without ``overwrite``, when a further
        output is added, it stays beside a label map of the same values.
    read
        How each case is read; a cluster needs a function that can be pickled.
    workers
        Number of threads that check headers. With 0, cases are also read, predicted and written strictly one after the
        other. Otherwise the next case is read, finished slabs are decided and the previous case is written while the
        network computes; at most one case ahead. With a cluster each worker loads the models once (the group must have
        ``load_again``), and predicts one case at a time.
    progress
        Called with (cases done, cases in all, name of the last).

    Raises
    ------
    DatasetError
        If there is no case, or no case fits the model; names every fault.
    ConfigError
        If the output folder is the input folder, or holds a data set's own files.
    """
    dataset = predictor.dataset
    cases, failed = input_cases(inputs, dataset)
    if not cases:
        raise DatasetError([Fault("inputs", "no cases", "at least one", "Name the files of a case.")])
    _check_output_folder(output_folder, cases)
    for output in further:
        refuse_regression(dataset.labels, f"saving {output.name}")
    jobs = [replace(_job(name, files, output_folder, dataset.labels), read=read) for name, files in cases.items()]
    done_before = frozenset(() if overwrite else (job.name for job in jobs if job.is_done(further)))
    todo = [job for job in jobs if job.name not in done_before]
    check = check_inputs(
        {job.name: job.files for job in todo},
        [(model.plan, model.configuration) for model in predictor.models],
        n_outputs=len(outputs_of(dataset.labels)),
        workers=workers if isinstance(workers, int) else available_cores(),
    )
    if todo and len(check.faults) == len(todo):
        raise DatasetError([fault for faults in check.faults.values() for fault in faults])
    failed |= {name: "\n".join(map(str, faults)) for name, faults in check.faults.items()}
    others = _of_another_run(output_folder, predictor, [job for job in jobs if job.name in done_before])
    warnings = (*check.warnings, *others)
    for text in (*failed.values(), *warnings):
        log.warning("%s", text)
    write_model_files(predictor, output_folder, ending_of(jobs[0].output))
    good = [job for job in todo if job.name not in check.faults]
    device = device_name(predictor.device) if isinstance(workers, int) else ON_CLUSTER
    record_prediction(output_folder, described(predictor), device, {job.name: job.files for job in good})
    stale = _Stale(removals, overwrite)
    if isinstance(workers, int):
        errors = _predict_here(predictor, good, further, stale, overlap=workers > 0, progress=progress)
    else:
        errors = _predict_there(predictor, good, further, stale, workers, progress)
    done = tuple(job.name for job in good if job.name not in errors)
    skipped = tuple(job.name for job in jobs if job.name in done_before)
    return PredictionReport(done, skipped, failed | errors, warnings)


def _predict_here(
    predictor: PredictorGroup,
    jobs: Sequence[_Job],
    further: Sequence[FurtherOutput],
    stale: _Stale,
    *,
    overlap: bool,
    progress: Progress = silent,
) -> dict[str, str]:
    """Predict cases in this process and return case -> reason of its failure.

    ``overlap``: whether reading, deciding and writing run beside the network.
    """
    if not jobs:
        return {}
    with ThreadPoolExecutor(1) as decider:
        steps = _Steps(predictor, {job.name: job for job in jobs}, further, stale, decider if overlap else None)
        return run_cases(
            [*steps.jobs], repeat(predictor), steps.read, steps.predict, steps.write, folder=jobs[0].output.parent,
            read_ahead=overlap, write_behind=lambda prediction: overlap, progress=progress,
        )  # fmt: skip


def _predict_there(
    predictor: PredictorGroup,
    jobs: Sequence[_Job],
    further: Sequence[FurtherOutput],
    stale: _Stale,
    cluster: Cluster,
    progress: Progress,
) -> dict[str, str]:
    """Predict cases by the workers of a cluster and return case -> reason of its failure."""
    if predictor.load_again is None:
        raise ConfigError("predict: found models of this process alone, expected folders, which workers can load.")
    errors: dict[str, str] = {}
    remote = _Remote(predictor.load_again, predictor.separation, further, stale)
    for n_finished, (index, result) in enumerate(map_unordered(remote, jobs, workers=cluster), 1):
        if result is not None:
            errors[jobs[index].name] = str(result)
            log.error("case %s failed: %s", jobs[index].name, result)
        progress(n_finished, len(jobs), jobs[index].name)
    return errors


@dataclass(frozen=True, slots=True)
class _Remote:
    """Prediction of a case by a worker, which keeps the models for its next case."""

    load: Callable[[], PredictorGroup]
    separation: SeparationSettings | None
    """As that of the group."""
    further: Sequence[FurtherOutput]
    stale: _Stale

    def __call__(self, job: _Job) -> str | None:
        """Predict a case, write its outputs, and return the reason of its failure, None if it did not fail."""
        group = replace(self.load(), separation=self.separation)
        return _predict_here(group, [job], self.further, self.stale, overlap=True).get(job.name)


@dataclass(frozen=True, slots=True)
class _Prediction:
    """Label map (or numbers) and further outputs of a case, before they are written."""

    labels: LabelMap | None
    """(z, y, x) file values; None for a regression."""
    record: CaseRecord
    further: tuple[CaseOutput, ...] = ()
    numbers: Float32Array | None = None
    """(R, z, y, x) numbers of a regression."""


@dataclass(frozen=True, slots=True)
class _Stale:
    """Further outputs of label maps that are replaced."""

    removals: Sequence[Removal]
    always: bool
    """Whether those of a label map of the same values are removed, too: it is of another prediction."""

    def remove(self, output: Path, labels: LabelMap | None) -> None:
        """Remove those of the label map ``output``, which the values (z, y, x) replace; None stands for numbers."""
        if self.always or labels is None or not holds_labels(output, labels):
            for remove in self.removals:
                remove(output)


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps that :func:`~autoseg.inference.run_cases.run_cases` does with each case."""

    predictor: PredictorGroup
    jobs: Mapping[str, _Job]
    further: Sequence[FurtherOutput]
    stale: _Stale
    decider: Executor | None
    """One thread that decides slabs while the network computes the next; with None the network's thread does both."""

    def read(self, case: str) -> Case | PreparedCase:
        """Return a case, prepared if that needs no network."""
        job = self.jobs[case]
        return job.read(self.predictor, case, job.files)

    def predict(self, case: str, predictor: PredictorGroup, content: Case | PreparedCase) -> _Prediction:
        """Return the label map of a case, decided while the network computes, and its further outputs."""
        prepared = predictor.prepare(content) if isinstance(content, Case) else content
        record = prepared.record
        if predictor.dataset.labels.targets:
            return _Prediction(None, record, numbers=predictor.numbers(prepared, pool=self.decider))
        with ExitStack() as on_failure:
            outputs = []
            for output in self.further:
                outputs.append(output.begin(self.jobs[case].output, prepared, predictor))
                on_failure.callback(outputs[-1].close)
            label_map = predictor.label_map(prepared, observers=outputs, pool=self.decider)
            on_failure.pop_all()
        return _Prediction(label_map, record, tuple(outputs))

    def write(self, case: str, prediction: _Prediction) -> None:
        """Remove what describes the earlier label map of a case; write the further outputs, then it (or numbers)."""
        job = self.jobs[case]
        with ExitStack() as stack:
            for output in prediction.further:
                stack.callback(output.close)
            self.stale.remove(job.output, prediction.labels)
            for output in prediction.further:
                output.write()
        if prediction.numbers is not None:
            write_values(job.output, prediction.numbers, prediction.record.geometry)
        if prediction.labels is not None:
            write_labels(job.output, prediction.labels, prediction.record.geometry)


def _job(name: str, files: tuple[Path, ...], folder: Path, labels: Labels) -> _Job:
    """Return the job of a case, whose format must hold the largest file value of ``labels``, or numbers."""
    ending = ending_of_maps(files[0], largest_written(labels), has_numbers=bool(labels.targets))
    output = folder / f"{name}{ending}"
    return _Job(name, files, output)


def _check_output_folder(folder: Path, cases: Mapping[str, Sequence[Path]]) -> None:
    """Refuse to write among the inputs or into a data set's own folder."""
    target = folder.resolve()
    if any(file.resolve().parent == target for files in cases.values() for file in files):
        raise ConfigError(f"output folder {folder}: found the input images in it, expected another folder. Change -o.")
    refuse_dataset_folder(folder)


def described(predictor: PredictorGroup) -> str:
    """Return data set, configuration and folds of the models, and how objects are parted, for prediction.json."""
    method = "" if predictor.dataset.labels.instances is None else f", objects by {separation_of(predictor).method}"
    return " and ".join(map(_described, predictor.models)) + method


def _of_another_run(folder: Path, predictor: PredictorGroup, skipped: Sequence[_Job]) -> tuple[str, ...]:
    """Return a warning if label maps that stay are those of another model, or of other images of the same name."""
    model = described(predictor)
    cases = read_prediction_record(folder).unlike(model, {job.name: job.files for job in skipped})
    if not cases:
        return ()
    return (
        f"{folder}: {counted(len(cases), 'label map')} that existed and stayed, such as that of {cases[0]}, "
        f"{'is' if len(cases) == 1 else 'are'} of other image files or another model than {model}; prediction.json has "
        "both. --overwrite predicts again; or give another folder.",
    )


def write_model_files(predictor: PredictorGroup, folder: Path, ending: str, *, of_classes: bool = False) -> None:
    """Write dataset.json, with the ``ending`` of the predictions, and plans.json beside the predictions.

    ``of_classes``: the label maps hold classes even if those of the training held numbers of objects.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = predictor.models[0]
    content = {**model.dataset.json, "file_ending": ending}
    if of_classes and model.dataset.labels.instances is not None:
        content = {key: value for key, value in content.items() if key not in ("task", PER_CLASS, AFFINITIES)}
    write_json(folder / "dataset.json", content)
    save_model(model.plan, folder / "plans.json")


def _described(model: Model) -> str:
    folds = f"{'fold' if len(model.folds) == 1 else 'folds'} {', '.join(model.folds)}"
    return f"{model.dataset.name}, {model.configuration.name}, {folds}"
