"""Prediction of many files: headers are checked first; reading and writing run in parallel with the network."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

from autoseg.cases.case import Case, CaseRecord
from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError, DatasetError, Fault
from autoseg.core.findings import listed
from autoseg.core.json_models import save_model
from autoseg.core.prediction_record import record_prediction
from autoseg.core.progress import Progress, silent
from autoseg.dataset.case_files import find_image_cases
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folder_files import has_ending, passed_over, refuse_dataset_folder, strays, visible
from autoseg.dataset.labels import Labels
from autoseg.dataset.objects import largest_written
from autoseg.inference.inputs import check_inputs
from autoseg.inference.model import Model
from autoseg.inference.outputs import CaseOutput, FurtherOutput, Removal
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.run_cases import run_cases
from autoseg.io.images import (
    SUPPORTED_ENDINGS,
    ending_of,
    ending_of_maps,
    holds_labels,
    without_ending,
    write_labels,
    write_values,
)
from autoseg.nn.device import device_name
from autoseg.preprocessing import Preprocessed
from autoseg.preprocessing.read_case import read_unlabelled
from autoseg.tasks.task import outputs_of, refuse_regression

log = logging.getLogger(__name__)

Files = Sequence[str | Path]
Inputs = str | Path | Sequence[Files] | Mapping[str, Files]


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


@dataclass(frozen=True, slots=True)
class _Job:
    """One case to predict."""

    name: str
    files: tuple[Path, ...]
    output: Path

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
    workers: int = 1,
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
    workers
        Number of threads that check headers. With 0, cases are also read, predicted and written strictly one after the
        other. Otherwise the next case is read, finished slabs are decided and the previous case is written while the
        network computes; at most one case ahead.
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
    cases, failed = _gather(inputs, dataset)
    if not cases:
        raise DatasetError([Fault("inputs", "no cases", "at least one", "Name the files of a case.")])
    _check_output_folder(output_folder, cases)
    for output in further:
        refuse_regression(dataset.labels, f"saving {output.name}")
    jobs = [_job(name, files, output_folder, dataset.labels) for name, files in cases.items()]
    skipped = tuple(job.name for job in jobs if job.is_done(further) and not overwrite)
    todo = [job for job in jobs if job.name not in skipped]
    check = check_inputs(
        {job.name: job.files for job in todo},
        [(model.plan, model.configuration) for model in predictor.models],
        n_outputs=len(outputs_of(dataset.labels)),
        workers=workers,
    )
    if todo and len(check.faults) == len(todo):
        raise DatasetError([fault for faults in check.faults.values() for fault in faults])
    failed |= {name: "\n".join(map(str, faults)) for name, faults in check.faults.items()}
    for text in (*failed.values(), *check.warnings):
        log.warning("%s", text)
    _write_model_files(predictor, output_folder, jobs)
    good = [job for job in todo if job.name not in check.faults]
    described = " and ".join(map(_described, predictor.models))
    record_prediction(output_folder, described, device_name(predictor.device), {job.name: job.files for job in good})
    stale = _Stale(removals, overwrite)
    with ThreadPoolExecutor(1) as decider:
        steps = _Steps(predictor, {job.name: job for job in good}, further, stale, decider if workers > 0 else None)
        errors = run_cases(
            [*steps.jobs], repeat(predictor), steps.read, steps.predict, steps.write, folder=output_folder,
            read_ahead=workers > 0, write_behind=lambda prediction: workers > 0, progress=progress,
        )  # fmt: skip
    done = tuple(job.name for job in good if job.name not in errors)
    return PredictionReport(done, skipped, failed | errors, check.warnings)


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

    def read(self, case: str) -> Case | tuple[Preprocessed, ...]:
        """Return a case as its files hold it if preparing it needs a network, otherwise prepared."""
        grids = [(model.plan, model.configuration) for model in self.predictor.models]
        content = read_unlabelled(case, self.jobs[case].files, grids)
        return content if self.predictor.needs_network_to_prepare else self.predictor.prepare(content)

    def predict(self, case: str, predictor: PredictorGroup, content: Case | tuple[Preprocessed, ...]) -> _Prediction:
        """Return the label map of a case, decided while the network computes, and its further outputs."""
        prepared = predictor.prepare(content) if isinstance(content, Case) else content
        record = prepared[0].record
        if predictor.dataset.labels.targets:
            return _Prediction(None, record, numbers=predictor.numbers(prepared, pool=self.decider))
        with ExitStack() as on_failure:
            outputs = []
            for output in self.further:
                outputs.append(output.begin(self.jobs[case].output, prepared[0], predictor))
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


def _gather(inputs: Inputs, dataset: Dataset) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """Return case -> files, and the inputs that cannot be used (name -> reason)."""
    if isinstance(inputs, (str, Path)):
        return _gather_folder(Path(inputs), dataset)
    if isinstance(inputs, Mapping):
        return {name: tuple(Path(file) for file in files) for name, files in inputs.items()}, {}
    cases: dict[str, tuple[Path, ...]] = {}
    for files in inputs:
        paths = tuple(Path(file) for file in files)
        if not paths:
            raise ConfigError("inputs: found a case without files, expected one or more per case. Remove it.")
        name = without_ending(paths[0]).removesuffix("_0000")
        if name in cases:
            raise ConfigError(
                f"inputs: found two cases named {name!r}, expected one. Give a mapping from case to files."
            )
        cases[name] = paths
    return cases, {}


def _gather_folder(folder: Path, dataset: Dataset) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """Return case -> files, and name -> reason for every image of the folder that belongs to no case."""
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
    unusable: dict[str, str] = {}
    for fault in (*faults, *strays(folder, ending)):
        for case in fault.cases:
            unusable[Path(fault.where).name if case in cases or case in unusable else case] = str(fault)
    return dict(cases), unusable


def _ending_in(folder: Path, preferred: str) -> str:
    """Return the ending of the images in ``folder``: ``preferred`` if a file has it, otherwise the only supported one.

    Without images it is ``preferred``. Raises ``DatasetError`` if there are several others.
    """
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


def _described(model: Model) -> str:
    folds = f"{'fold' if len(model.folds) == 1 else 'folds'} {', '.join(model.folds)}"
    return f"{model.dataset.name}, {model.configuration.name}, {folds}"


def _write_model_files(predictor: PredictorGroup, folder: Path, jobs: Sequence[_Job]) -> None:
    """Write dataset.json (with the ending of the predictions) and plans.json beside the predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = ending_of(jobs[0].output)
    model = predictor.models[0]
    write_json(folder / "dataset.json", {**model.dataset.json, "file_ending": ending})
    save_model(model.plan, folder / "plans.json")
