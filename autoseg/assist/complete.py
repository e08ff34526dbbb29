"""Complete the training cases of a data set, each with a model that did not train on it, as a new data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

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
from autoseg.assist.review import Disagreement, group_disputed, set_names, surest_first
from autoseg.cases.case import Case, CaseRecord, Target
from autoseg.core.arrays import Float32Array
from autoseg.core.atomic import lacks_room, no_room
from autoseg.core.errors import AutosegError, ModelError
from autoseg.core.findings import listed
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.inference.model import find_checkpoints
from autoseg.inference.out_of_fold import out_of_fold_predictors
from autoseg.inference.predictor import Predictor
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
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
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
    run = _Run(
        dataset, output, origins, earlier, options, lambda done, name: progress(len(kept) + done, len(folds), name)
    )
    failed = run.complete(model_folder, todo)
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


class _Run:
    """One pass over cases: this thread drives the network, another turns logits into files."""

    def __init__(
        self,
        dataset: Dataset,
        output: Path,
        origins: Mapping[str, CaseOrigin],
        earlier: Mapping[str, CaseCompletion],
        options: CompletionOptions,
        settled: Callable[[int, str], None],
    ) -> None:
        self._dataset = dataset
        self._output = output
        self._origins = origins
        self._earlier = earlier
        """Records of cases that have their labels, and lack only the review."""
        self._options = options
        self._settled = settled
        self._n_settled = 0
        self._errors: dict[str, str] = {}

    def complete(self, model_folder: Path, folds: Mapping[str, str]) -> dict[str, str]:
        """Complete the cases; return case -> error for those that failed."""
        options = self._options
        predictors = out_of_fold_predictors(model_folder, folds, options.device, mirror=options.mirror)
        writer = ThreadPoolExecutor(1)
        pending: tuple[str, Future[None]] | None = None
        try:
            for name, predictor in predictors:
                _check_labels(predictor, self._dataset)
                predicted = self._predict(name, predictor)
                self._finish(pending)
                pending = None
                if predicted is None:
                    continue
                case, logits, record = predicted
                pending = (name, writer.submit(self._write, case, logits, record))
                if options.workers < 1 or logits.nbytes > _LARGE_BYTES:
                    self._finish(pending)
                    pending = None
                del predicted, case, logits
            self._finish(pending)
        finally:
            writer.shutdown(wait=True, cancel_futures=True)
        return self._errors

    def _predict(self, name: str, predictor: Predictor) -> tuple[Case, Float32Array, CaseRecord] | None:
        try:
            case = read_case(self._dataset.case(name), self._dataset.labels)
            prepared = predictor.prepare(case)
            return case, predictor.logits(prepared.image), prepared.record
        except Exception as error:
            self._fail(name, error)
            return None

    def _write(self, case: Case, logits: Float32Array, record: CaseRecord) -> None:
        files, labels, review = self._dataset.case(case.name), self._dataset.labels, self._options.review
        earlier, seen = self._earlier.get(case.name), case.name in self._options.seen
        if earlier is None:
            remove_case(self._output, files)  # or an old label map would go with the new record if this is interrupted
        if case.target is None:
            raise AutosegError(f"case {case.name}: found no annotation, expected a label file. Add one.")
        within = what_is_left(case, self._dataset)
        touches_all = self._dataset.protocol.instances_touched
        completed = complete_case(
            logits, record, labels, case.target, within=within, touches_all=touches_all, review=review
        )
        disagreements = None
        if completed.predicted is not None and completed.disputed is not None:
            write_labels(label_path(self._output, files, REVIEW), completed.predicted, case.geometry)
            names = set_names(case.target.label_sets, labels.class_names)
            disagreements = group_disputed(
                case.name, completed.disputed, names, labels.class_names, case.geometry.spacing, seen_in_training=seen
            )
        origin = self._origins[case.name] if earlier is None else earlier.origin
        made = CaseCompletion(case=case.name, origin=origin, seen_in_training=seen, disagreements=disagreements)
        write_record(self._output, made)
        if earlier is None:  # else the labels may have been corrected since
            link_images(self._output, files)
            write_labels(label_path(self._output, files), completed.labels, case.geometry)  # last: now it is complete

    def _finish(self, pending: tuple[str, Future[None]] | None) -> None:
        """Wait until a case is written, and count it."""
        if pending is None:
            return
        name, future = pending
        try:
            future.result()
        except Exception as error:
            self._fail(name, error)
        else:
            self._count(name)

    def _fail(self, name: str, error: Exception) -> None:
        """Note a case that failed, and remove what is there of it, unless an earlier run gave it its labels.

        Whatever the reason, the other cases go on.
        """
        if lacks_room(error, self._output):
            error = no_room(self._output, error)
        known = isinstance(error, AutosegError)
        self._errors[name] = str(error) if known else f"{type(error).__name__}: {error}"
        log.error("case %s failed: %s", name, error, exc_info=None if known else error)
        if name not in self._earlier:
            remove_case(self._output, self._dataset.case(name))
        self._count(name)

    def _count(self, name: str) -> None:
        self._n_settled += 1
        self._settled(self._n_settled, name)


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
    for name in ("class_values", "class_names", "heads", "paint_values", "task"):
        if getattr(trained, name) != getattr(wanted, name):
            raise ModelError(
                f"model of data set {predictor.model.dataset.name}: found {name} {getattr(trained, name)}, expected "
                f"{getattr(wanted, name)} as in dataset.json. Train again with the present labels."
            )
