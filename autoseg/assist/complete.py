"""Complete the training cases of a data set, each with a model that did not train on it, as a new data set."""

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
from autoseg.inference.model import find_checkpoints
from autoseg.inference.out_of_fold import CaseModels
from autoseg.inference.predictor import Predictor
from autoseg.inference.run_cases import run_cases
from autoseg.io.images import write_labels
from autoseg.preprocessing.merge_inferred import pair
from autoseg.preprocessing.runner import infer_case, read_case

log = logging.getLogger(__name__)

_LARGE_BYTES = 2**30
"""Logits above this size are turned into labels before the next case's are made, so that only one set exists."""


@dataclass(frozen=True, slots=True)
class CompletionReport:
    """What became of each case."""

    done: tuple[str, ...] = ()
    """Completed now."""
    kept: tuple[str, ...] = ()
    """Left as they were: an earlier run completed them."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Case -> why it could not be completed, or reviewed; in the new data set only if an earlier run completed it."""
    folds: Mapping[str, str] = field(default_factory=dict)
    """Case -> fold that predicted it."""
    seen: tuple[str, ...] = ()
    """Cases whose fold was trained on them, here or in a pretraining."""
    disagreements: tuple[Disagreement, ...] | None = None
    """Of all cases, the surest first; None without a review."""


@dataclass(frozen=True, slots=True)
class CompletionOptions:
    """How to predict, and what to write."""

    device: str = "auto"
    mirror: bool = True
    """Average over mirrored copies of the image."""
    review: bool = False
    """Also write the predictions, and list where they disagree with what was drawn."""
    overwrite: bool = False
    """Complete again what an earlier run has completed."""
    seen: frozenset[str] = frozenset()
    """Cases whose fold was trained on them (:func:`autoseg.inference.out_of_fold.seen_cases`); they are marked."""
    workers: int = 1
    """0 predicts and writes strictly one after the other; else the last case is written while the network works."""


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

    Each file is written wholly or not at all, dataset.json last, so an interrupted run leaves no data set that could
    be mistaken for a complete one; the next run goes on. A case that fails does not stop the others; it is
    left out, unless an earlier run completed it and only its review failed.

    Parameters
    ----------
    dataset
        With its promises spelt out (:func:`autoseg.inspection.statements.with_known_promises`).
    folds
        Case -> fold that predicts it, as :func:`autoseg.inference.out_of_fold.out_of_fold_models` gives.
    output
        New folder, or that of an earlier run.
    progress
        Called with (cases settled, cases in all, name of the last).

    Raises
    ------
    ConfigError
        If the output folder holds another data set.
    ModelError
        If a fold cannot be loaded, or was trained for other labels.
    """
    check_output(dataset, output)
    origins = _origins(dataset, model_folder, folds, options)
    kept = () if options.overwrite else _kept(dataset, output, origins, options)
    todo = {name: fold for name, fold in folds.items() if name not in kept}
    if todo:
        (output / DATASET_JSON).unlink(missing_ok=True)  # no data set until every case is settled
    write_source(dataset, output)
    earlier = {} if options.overwrite else _earlier(dataset, output, todo)
    steps = _Steps(dataset, output, origins, earlier, options)
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
        progress=lambda done, _, name: progress(len(kept) + done, len(folds), name),
    )
    finished = [name for name in dataset.case_names if name in folds and (name not in failed or name in earlier)]
    if finished:
        write_dataset_json(dataset, output, finished)
    return CompletionReport(
        done=tuple(name for name in todo if name not in failed),
        kept=kept,
        failed=failed,
        folds=dict(folds),
        seen=tuple(name for name in dataset.case_names if name in folds and name in options.seen),
        disagreements=_all_disagreements(dataset, output, finished) if options.review else None,
    )


class _Predicted(NamedTuple):
    """What labels are made from."""

    case: Case
    logits: Float32Array
    """(H, *S) float32 on ``record.shape``, the plan's axes."""
    record: CaseRecord


@dataclass(frozen=True, slots=True)
class _Steps:
    """What is done with each case."""

    dataset: Dataset
    output: Path
    origins: Mapping[str, CaseOrigin]
    earlier: Mapping[str, CaseCompletion]
    """Records of cases that have their labels, and lack only the review."""
    options: CompletionOptions

    def checked(self, predictor: Predictor) -> Predictor:
        _check_labels(predictor, self.dataset)
        return predictor

    def read(self, name: str) -> Case:
        return read_case(self.dataset.case(name), self.dataset.labels)

    def predict(self, name: str, predictor: Predictor, case: Case) -> _Predicted:
        prepared = predictor.prepare(case)
        return _Predicted(case, predictor.logits(prepared.image), prepared.record)

    def write(self, name: str, predicted: _Predicted) -> None:
        case, logits, record = predicted
        files, labels, review = self.dataset.case(name), self.dataset.labels, self.options.review
        earlier, seen = self.earlier.get(name), name in self.options.seen
        if earlier is None:
            remove_case(self.output, files)  # or an old label map would go with the new record if this is interrupted
        if case.target is None:
            raise AutosegError(f"case {name}: found no annotation, expected a label file. Add one.")
        within = what_is_left(case, self.dataset)
        touches_all = self.dataset.protocol.instances_touched
        completed = complete_case(
            logits, record, labels, case.target, within=within, touches_all=touches_all, review=review
        )
        disagreements = None
        if completed.predicted is not None and completed.disputed is not None:
            write_labels(label_path(self.output, files, REVIEW), completed.predicted, case.geometry)
            names = set_names(case.target.label_sets, labels.class_names)
            disagreements = group_disputed(
                name, completed.disputed, names, labels.class_names, case.geometry.spacing, seen_in_training=seen
            )
        origin = self.origins[name] if earlier is None else earlier.origin
        made = CaseCompletion(case=name, origin=origin, seen_in_training=seen, disagreements=disagreements)
        write_record(self.output, made)
        if earlier is None:  # else the labels may have been corrected since
            link_images(self.output, files)
            write_labels(label_path(self.output, files), completed.labels, case.geometry)  # last: now it is complete

    def clean_up(self, name: str) -> None:
        """Remove what is there of a case that failed, unless an earlier run gave it its labels."""
        if name not in self.earlier:
            remove_case(self.output, self.dataset.case(name))


def what_is_left(case: Case, dataset: Dataset) -> Target | None:
    """Return what each voxel may be by what was drawn and promised together; None where promises add nothing."""
    inference = infer_case(case, dataset.labels, dataset.protocol)
    if inference is None or case.target is None:
        return None
    paired = pair(case.target.codes, case.target.label_sets, inference.codes, inference.label_sets)
    return Target(paired.codes, paired.inferred_sets)


def _origins(
    dataset: Dataset, model_folder: Path, folds: Mapping[str, str], options: CompletionOptions
) -> dict[str, CaseOrigin]:
    checkpoints = find_checkpoints(model_folder, sorted(set(folds.values()))) if folds else {}
    return {
        name: case_origin(dataset, dataset.case(name), fold, checkpoints[fold], mirror=options.mirror)
        for name, fold in folds.items()
    }


def _kept(
    dataset: Dataset, output: Path, origins: Mapping[str, CaseOrigin], options: CompletionOptions
) -> tuple[str, ...]:
    """Return the cases that are complete; warn of those that would be others now.

    They are kept all the same: somebody may have corrected them by hand.
    """
    kept: list[str] = []
    outdated: dict[str, tuple[str, ...]] = {}
    for name, origin in origins.items():
        record = read_record(output, dataset.case(name), with_review=options.review)
        if record is None:
            continue
        kept.append(name)
        if changes := record.origin.changes(origin):
            outdated[name] = changes
    if outdated:
        cases = listed(f"{name} ({', '.join(changes)})" for name, changes in outdated.items())
        log.warning(
            "%s: %d completed cases were made from something that has changed since: %s. They are kept; --overwrite "
            "completes them anew, and discards what was corrected in them.",
            output, len(outdated), cases,
        )  # fmt: skip
    return tuple(kept)


def _earlier(dataset: Dataset, output: Path, names: Iterable[str]) -> dict[str, CaseCompletion]:
    """Return the records of those cases that an earlier run gave labels."""
    records = {name: read_record(output, dataset.case(name), with_review=False) for name in names}
    return {name: record for name, record in records.items() if record is not None}


def _all_disagreements(dataset: Dataset, output: Path, names: list[str]) -> tuple[Disagreement, ...]:
    records = [read_record(output, dataset.case(name), with_review=True) for name in names]
    return surest_first(group for record in records if record is not None for group in record.disagreements or ())


def _check_labels(predictor: Predictor, dataset: Dataset) -> None:
    trained, wanted = predictor.model.dataset.labels, dataset.labels
    for name in class_differences(trained, wanted):
        raise ModelError(
            f"model of data set {predictor.model.dataset.name}: found {name} {getattr(trained, name)}, expected "
            f"{getattr(wanted, name)} as in dataset.json. Train again with the present labels."
        )
