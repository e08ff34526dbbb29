"""Completion of the training cases of a data set, each by a model that did not train on it, as a new data set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from autoseg.assist.complete_case import complete_case
from autoseg.assist.complete_files import (
    REVIEW,
    CaseCompletion,
    CaseOrigin,
    case_origin,
    check_output,
    label_path,
    link_images,
    read_record,
    remove_case,
    write_dataset_json,
    write_record,
    write_source,
)
from autoseg.cases.case import Case, CaseRecord, Target
from autoseg.core.arrays import Float32Array
from autoseg.core.errors import AutosegError, ModelError
from autoseg.core.findings import listed
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.labels import class_differences
from autoseg.evaluation.disagreement import Disagreement, group_disputed, set_names, surest_first
from autoseg.evaluation.quality import Quality
from autoseg.inference.calibration import read_calibration
from autoseg.inference.model import find_checkpoints
from autoseg.inference.out_of_fold import CaseModels
from autoseg.inference.predictor import Predictor
from autoseg.inference.quality_output import case_dice
from autoseg.inference.run_cases import run_cases
from autoseg.io.images import write_labels
from autoseg.preprocessing.merge_inferred import pair
from autoseg.preprocessing.read_case import infer_case, read_case, read_unlabelled

log = logging.getLogger(__name__)

_LARGE_BYTES = 2**30
"""Size of logits in bytes above which they become labels before the next case is predicted, to hold them only once."""


@dataclass(frozen=True, slots=True)
class CompletionReport:
    """Result of each case of a completion."""

    done: tuple[str, ...] = ()
    """Cases completed by this run."""
    kept: tuple[str, ...] = ()
    """Cases completed by an earlier run and left as they were."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Case -> reason why it could not be completed or reviewed. Only cases that an earlier run completed are in the new
    data set all the same."""
    folds: Mapping[str, str] = field(default_factory=dict)
    """Case -> fold that predicted it."""
    seen_cases: tuple[str, ...] = ()
    """Cases whose fold was trained on them, here or in a pretraining."""
    disagreements: tuple[Disagreement, ...] | None = None
    """Disagreements of all cases, likely faults of the annotation first; None without a review."""


@dataclass(frozen=True, slots=True)
class CompletionOptions:
    """Settings of the prediction, and of what is written."""

    device: str = "auto"
    mirror: bool = True
    """Average over mirrored copies of the image."""
    review: bool = False
    """Also write the predictions, and list where they disagree with the annotation."""
    overwrite: bool = False
    """Complete again the cases that an earlier run has completed."""
    seen_cases: frozenset[str] = frozenset()
    """Cases whose fold was trained on them (:func:`autoseg.inference.out_of_fold.seen_cases`); results name them so."""
    workers: int = 1
    """0 predicts and writes strictly one after the other; otherwise a case is written while the next is predicted."""


_DEFAULTS = CompletionOptions()


def complete_dataset(
    dataset: Dataset,
    model_folder: Path,
    folds: Mapping[str, str],
    output: Path,
    options: CompletionOptions = _DEFAULTS,
    *,
    progress: Progress = silent,
) -> CompletionReport:
    """Write a data set with the images of ``dataset`` (linked) and dense labels.

    Files are written atomically, dataset.json last, so an interrupted run leaves nothing that could be mistaken for a
    complete data set; the next run continues. A case that fails does not stop the others. It is left out, unless an
    earlier run completed it and only its review failed.

    Parameters
    ----------
    dataset
        Data set whose promises are resolved (:func:`autoseg.inspection.statements.with_known_promises`).
    folds
        Case -> fold that predicts it, as :func:`autoseg.inference.out_of_fold.out_of_fold_models` returns it.
    output
        New folder, or that of an earlier run.
    progress
        Called with (cases done or failed, cases in all, name of the last).

    Raises
    ------
    ConfigError
        If the output folder holds another data set.
    ModelError
        If a fold cannot be loaded, or was trained for other labels.
    """
    check_output(dataset, output)
    origins = _origins(dataset, model_folder, folds, options)
    completed = () if options.overwrite else _completed_before(dataset, output, origins, options)
    todo = {name: fold for name, fold in folds.items() if name not in completed}
    if todo:
        (output / DATASET_JSON).unlink(missing_ok=True)  # no data set until every case is done or failed
    write_source(dataset, output)
    earlier = {} if options.overwrite else _earlier(dataset, output, todo)
    steps = _Steps(dataset, output, origins, earlier, options, read_calibration(model_folder).quality)
    models = CaseModels(
        model_folder, {name: (fold,) for name, fold in todo.items()}, options.device, mirror=options.mirror
    )
    failed = run_cases(
        models.order,
        map(steps.checked, models.predictors()),
        steps.read,
        steps.predict,
        steps.write,
        folder=output,
        read_ahead=False,
        write_behind=lambda predicted: options.workers > 0 and predicted.logits.nbytes <= _LARGE_BYTES,
        on_failure=steps.clean_up,
        progress=lambda done, _, name: progress(len(completed) + done, len(folds), name),
    )
    finished = [name for name in dataset.case_names if name in folds and (name not in failed or name in earlier)]
    if finished:
        write_dataset_json(dataset, output, finished)
    return CompletionReport(
        done=tuple(name for name in todo if name not in failed),
        kept=completed,
        failed=failed,
        folds=dict(folds),
        seen_cases=tuple(name for name in dataset.case_names if name in folds and name in options.seen_cases),
        disagreements=_all_disagreements(dataset, output, finished) if options.review else None,
    )


class _Predicted(NamedTuple):
    """A case with its logits, before labels are made."""

    case: Case
    logits: Float32Array
    """(O, *S) float32 on ``record.shape``, the plan's axes."""
    record: CaseRecord


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps that :func:`~autoseg.inference.run_cases.run_cases` does with each case."""

    dataset: Dataset
    output: Path
    origins: Mapping[str, CaseOrigin]
    earlier: Mapping[str, CaseCompletion]
    """Records of cases that have labels and lack only the review."""
    options: CompletionOptions
    quality: Quality | None
    """What is known of the folds' predictions; None without a calibration."""

    def checked(self, predictor: Predictor) -> Predictor:
        _check_labels(predictor, self.dataset)
        return predictor

    def read(self, name: str) -> Case:
        return read_case(self.dataset.case(name), self.dataset.labels)

    def predict(self, name: str, predictor: Predictor, case: Case) -> _Predicted:
        files, model = self.dataset.case(name), predictor.model
        if files.volume is None:
            prepared = predictor.prepare(case)
        else:
            prepared = predictor.prepare(read_unlabelled(name, files.images, [(model.plan, model.configuration)]))
        return _Predicted(case, predictor.logits(prepared.image), prepared.record)

    def write(self, name: str, predicted: _Predicted) -> None:
        case, logits, record = predicted
        files, labels, review = self.dataset.case(name), self.dataset.labels, self.options.review
        earlier, was_trained_on = self.earlier.get(name), name in self.options.seen_cases
        if earlier is None:
            remove_case(self.output, files)  # otherwise an interruption may leave an old label map with the new record
        if case.target is None:
            raise AutosegError(f"case {name}: found no annotation, expected a label file. Add one.")
        within = possible_classes(case, self.dataset)
        touches_all = self.dataset.protocol.instances_touched
        completed = complete_case(
            logits, record, labels, case.target, within=within, touches_all=touches_all, review=review
        )
        disagreements = None
        if completed.predicted is not None and completed.disputed is not None:
            write_labels(label_path(self.output, files, REVIEW), completed.predicted, case.geometry)
            names = set_names(case.target.label_sets, labels.class_names)
            disagreements = group_disputed(
                name,
                completed.disputed,
                names,
                labels.class_names,
                case.geometry.spacing,
                seen_in_training=was_trained_on,
                dice_of=case_dice(logits, record, labels, self.quality),
            )
        origin = self.origins[name] if earlier is None else earlier.origin
        made = CaseCompletion(case=name, origin=origin, seen_in_training=was_trained_on, disagreements=disagreements)
        write_record(self.output, made)
        if earlier is None:  # labels of an earlier run stay: a person may have corrected them
            link_images(self.output, files)
            write_labels(label_path(self.output, files), completed.labels, case.geometry)  # last: makes it complete

    def clean_up(self, name: str) -> None:
        """Remove the files of a case that failed, unless an earlier run completed it."""
        if name not in self.earlier:
            remove_case(self.output, self.dataset.case(name))


def possible_classes(case: Case, dataset: Dataset) -> Target | None:
    """Return the classes that each voxel (*S) may have, by annotation and promises; None if promises add nothing."""
    inference = infer_case(case, dataset.labels, dataset.protocol)
    if inference is None or case.target is None:
        return None
    paired = pair(case.target.codes, case.target.label_sets, inference.codes, inference.label_sets)
    return Target(paired.codes, paired.inferred_sets, case.target.undrawn)


def _origins(
    dataset: Dataset, model_folder: Path, folds: Mapping[str, str], options: CompletionOptions
) -> dict[str, CaseOrigin]:
    checkpoints = find_checkpoints(model_folder, sorted(set(folds.values()))) if folds else {}
    return {
        name: case_origin(dataset, dataset.case(name), fold, checkpoints[fold], mirror=options.mirror)
        for name, fold in folds.items()
    }


def _completed_before(
    dataset: Dataset, output: Path, origins: Mapping[str, CaseOrigin], options: CompletionOptions
) -> tuple[str, ...]:
    """Return the cases that an earlier run completed; warn about those whose sources have changed since.

    Those are kept all the same: a person may have corrected them.
    """
    completed: list[str] = []
    outdated: dict[str, tuple[str, ...]] = {}
    for name, origin in origins.items():
        record = read_record(output, dataset.case(name), with_review=options.review)
        if record is None:
            continue
        completed.append(name)
        if changes := record.origin.changes(origin):
            outdated[name] = changes
    if outdated:
        cases = listed(f"{name} ({', '.join(changes)})" for name, changes in outdated.items())
        log.warning(
            "%s: the sources of %d completed cases have changed since: %s. These cases are kept; --overwrite completes "
            "them again and discards corrections made in them.",
            output, len(outdated), cases,
        )  # fmt: skip
    return tuple(completed)


def _earlier(dataset: Dataset, output: Path, names: Iterable[str]) -> dict[str, CaseCompletion]:
    """Return the records of those of ``names`` that an earlier run completed."""
    records = {name: read_record(output, dataset.case(name), with_review=False) for name in names}
    return {name: record for name, record in records.items() if record is not None}


def _all_disagreements(dataset: Dataset, output: Path, names: list[str]) -> tuple[Disagreement, ...]:
    records = [read_record(output, dataset.case(name), with_review=True) for name in names]
    return surest_first(group for record in records if record is not None for group in record.disagreements or ())


def _check_labels(predictor: Predictor, dataset: Dataset) -> None:
    trained, present = predictor.model.dataset.labels, dataset.labels
    for name in class_differences(trained, present):
        raise ModelError(
            f"model of data set {predictor.model.dataset.name}: found {name} {getattr(trained, name)}, expected "
            f"{getattr(present, name)} as in dataset.json. Train again with the present labels."
        )
