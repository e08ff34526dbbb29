"""Predict a fold's validation cases densely and score them where their labels decide."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.core.boxes import box_of
from autoseg.core.errors import AutosegError
from autoseg.core.findings import counted, listed
from autoseg.core.progress import Progress, silent
from autoseg.core.workspace import ALL, FoldName
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Labels
from autoseg.dataset.objects import largest_written
from autoseg.evaluation import AnySummary, Summary, evaluate_files, evaluate_numbers
from autoseg.inference import Predictor
from autoseg.inference.blockwise import read_box
from autoseg.inference.folder import predict_files, read_files
from autoseg.inference.out_of_fold import read_fold_cases
from autoseg.inference.outputs import FurtherOutput
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.quality_output import PredictedQuality
from autoseg.io.images import ending_of_maps
from autoseg.preprocessing.scored_boxes import choose_scored_boxes, scored_spans
from autoseg.tasks.separation import SeparationSettings
from autoseg.training.calibration import ValidationSamples, is_sampled, refit_calibration
from autoseg.training.request import FoldRequest
from autoseg.training.tune_separation import MOST_CASES, SeparationTrials, tune_separation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainedFold:
    """Result of :func:`autoseg.train`."""

    folder: Path
    """``ROOT/results/DATASET/<name>__<configuration>/fold_<k>``: checkpoints, history, pictures, validation."""
    summary: AnySummary
    """Scores of the validation cases; empty if the fold has none."""

    @property
    def model_folder(self) -> Path:
        """Folder of all folds, for :func:`autoseg.predict`."""
        return self.folder.parent


def validation_file(fold: Path, files: CaseFiles, labels: Labels) -> Path:
    """Return the file that a fold predicts of a case of its validation, whether it is there or not."""
    has_numbers = bool(labels.targets)
    ending = ending_of_maps(files.images[0], largest_written(labels), has_numbers=has_numbers)
    return fold / "validation" / f"{files.name}{ending}"


def validate_fold(request: FoldRequest, *, workers: int = 1, progress: Progress = silent) -> AnySummary:
    """Do :func:`predict_validation`, then :func:`score_validation`."""
    predict_validation(request, workers=workers, progress=progress)
    return score_validation(request, workers=workers)


def scored_dataset(request: FoldRequest) -> Dataset:
    """Return the data set with a box in the place of each validation case that is too large for memory.

    Predicting a volume of billions of voxels would take longer than the training. Errors as for
    :func:`autoseg.preprocessing.scored_boxes.choose_scored_boxes`.
    """
    cache = request.cache
    return choose_scored_boxes(
        request.dataset, request.val_cases, cache.folder.parent, lambda name: cache.source(name).open()
    )


def predict_validation(request: FoldRequest, *, workers: int = 1, progress: Progress = silent) -> None:
    """Predict the validation cases of a finished fold into ``validation/``; with several ranks each does its share.

    With ``mirror`` off in the configuration neither training nor prediction mirrors. Of cases that are too large for
    memory a box is predicted (:func:`scored_dataset`), which a warning names. Raises ``AutosegError`` naming the cases
    that could not be predicted. Returns when all ranks are done.
    """
    scored = scored_dataset(request)
    for name, spans in scored_spans(request.dataset, scored, request.val_cases).items():
        if request.ranks.is_first:
            log.warning(
                "fold %s: %s is too large for memory: only its box %s is predicted and scored (docs/volumes.md)",
                request.fold, name, box_of(spans),
            )  # fmt: skip
    share = [request.val_cases[index] for index in request.ranks.share(len(request.val_cases))]
    if share:
        _predict(request, scored, share, workers, progress)
    request.ranks.any(False)  # waits for the others


def score_validation(request: FoldRequest, *, workers: int = 1) -> AnySummary:
    """Score all predictions in ``validation/`` and write ``summary.json`` beside them; fit the calibration anew.

    Classes of which no validation case has a voxel are named in a warning. Cases that the weights were trained on (fold
    "all", or a pretraining) are named in the summary, and the boxes that were scored of cases too large for memory.
    """
    scored = scored_dataset(request)
    cases = {name: scored.case(name) for name in request.val_cases}
    pairs = {
        name: (case.label, validation_file(request.folder, case, request.dataset.labels))
        for name, case in cases.items()
        if case.label is not None
    }
    masks = {name: case.valid_mask for name, case in cases.items() if case.valid_mask is not None}
    images = {name: case.images for name, case in cases.items()}
    seen = read_fold_cases(request.folder).seen_cases
    labels = request.dataset.labels
    evaluate = evaluate_numbers if labels.targets else evaluate_files
    summary: AnySummary = evaluate(pairs, labels, masks=masks, images=images, workers=workers).model_copy(
        update={"seen_in_training": tuple(name for name in sorted(pairs) if name in seen)}
    )
    if isinstance(summary, Summary):
        boxes = scored_spans(request.dataset, scored, request.val_cases)
        summary = summary.model_copy(update={"boxes": boxes})
    summary.write(request.folder / "validation" / "summary.json")
    is_all = FoldName.parse(request.fold).fold == ALL
    if labels.instances is not None and not is_all:
        tune_separation(request.folder.parent)
    if summary.seen_in_training and not is_all:
        log.warning(
            "fold %s: scores of %d of %d validation cases do not count: the weights were trained on them: %s",
            request.fold, len(summary.seen_in_training), summary.n_cases, listed(summary.seen_in_training),
        )  # fmt: skip
    for reason in (*summary.faults, *summary.not_scored.values()):
        log.warning("fold %s: not scored: %s", request.fold, reason)
    if is_sampled(request):
        refit_calibration(request.folder.parent, labels, request.dataset.channels)
    return summary


def _predict(request: FoldRequest, scored: Dataset, names: Sequence[str], workers: int, progress: Progress) -> None:
    """Predict some validation cases of ``scored``; the boxes of large ones as parts of their volumes."""
    alone = FoldName.parse(request.fold).alone
    predictor = Predictor.load(request.folder.parent, folds=[alone], device=request.device)
    further: tuple[FurtherOutput, ...] = ()
    if is_sampled(request):
        further = (ValidationSamples(replace(request, dataset=scored)), PredictedQuality())
    if request.dataset.labels.instances is not None:
        further = (*further, SeparationTrials(scored, frozenset(request.val_cases[:MOST_CASES])))
    boxes = scored_spans(request.dataset, scored, names)
    report = predict_files(
        PredictorGroup((predictor,), SeparationSettings()),
        {name: scored.case(name).images for name in names},
        request.folder / "validation",
        overwrite=True,
        further=further,
        read=lambda group, name, files: (read_box if name in boxes else read_files)(group, name, files),
        workers=workers,
        progress=progress,
    )
    if report.failed:
        failures = "\n".join(f"{name}: {error}" for name, error in report.failed.items())
        raise AutosegError(f"validation of {request.folder}: {counted(len(report.failed), 'case')} failed.\n{failures}")
