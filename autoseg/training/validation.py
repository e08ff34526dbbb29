"""Predict a fold's validation cases densely and score them where their labels decide."""

from __future__ import annotations

import logging

from autoseg.core.errors import AutosegError
from autoseg.core.findings import counted, listed
from autoseg.core.progress import Progress, silent
from autoseg.evaluation import Summary, evaluate_files
from autoseg.inference import Predictor
from autoseg.inference.out_of_fold import ALL, read_fold_cases
from autoseg.training.cascade import validation_file
from autoseg.training.request import FoldRequest

log = logging.getLogger(__name__)


def validate_fold(request: FoldRequest, *, workers: int = 1, progress: Progress = silent) -> Summary:
    """Predict the validation cases of a finished fold into ``validation/`` and write ``summary.json`` beside them.

    With ``mirror`` off in the configuration neither training nor prediction mirrors. Classes of which no validation
    case has a voxel are named in a warning. Cases that the weights were trained on (fold "all", or a pretraining) are
    named in the summary. Raises ``AutosegError`` naming the cases that could not be predicted.
    """
    folder = request.folder / "validation"
    predictor = Predictor.load(request.folder.parent, folds=[request.fold], device=request.device)
    cases = {name: request.dataset.case(name) for name in request.val_cases}
    report = predictor.predict_files(
        {name: case.images for name, case in cases.items()},
        folder,
        overwrite=True,
        workers=workers,
        progress=progress,
    )
    if report.failed:
        failures = "\n".join(f"{name}: {error}" for name, error in report.failed.items())
        raise AutosegError(f"validation of {request.folder}: {counted(len(report.failed), 'case')} failed.\n{failures}")
    pairs = {
        name: (case.label, validation_file(request.folder, case, request.dataset.labels))
        for name, case in cases.items()
        if case.label is not None
    }
    masks = {name: case.valid_mask for name, case in cases.items() if case.valid_mask is not None}
    seen = read_fold_cases(request.folder).seen
    summary = evaluate_files(pairs, request.dataset.labels, masks=masks, workers=workers).model_copy(
        update={"seen_in_training": tuple(name for name in sorted(pairs) if name in seen)}
    )
    summary.write(folder / "summary.json")
    if summary.seen_in_training and request.fold != ALL:
        log.warning(
            "fold %s: scores of %d of %d validation cases do not count: the weights were trained on them: %s",
            request.fold, len(summary.seen_in_training), summary.n_cases, listed(summary.seen_in_training),
        )  # fmt: skip
    for reason in (*summary.faults, *summary.not_scored.values()):
        log.warning("fold %s: not scored: %s", request.fold, reason)
    return summary
