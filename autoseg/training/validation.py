"""Predict a fold's validation cases densely and score them where their labels decide."""

from __future__ import annotations

import logging
from collections.abc import Callable

from autoseg.core.errors import AutosegError
from autoseg.core.findings import counted
from autoseg.evaluation import Summary, evaluate_files
from autoseg.inference import Predictor
from autoseg.io.images import ending_of
from autoseg.training.fold import FoldRequest

log = logging.getLogger(__name__)


def validate_fold(
    request: FoldRequest, *, workers: int = 1, progress: Callable[[int, int, str], None] | None = None
) -> Summary:
    """Predict the validation cases of a finished fold into ``validation/`` and write ``summary.json`` beside them.

    With ``mirror`` off in the configuration neither training nor prediction mirrors. Classes of which no validation
    case has a voxel are named in a warning. Raises ``AutosegError`` naming the cases that could not be predicted.
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
        name: (case.label, folder / f"{name}{ending_of(case.images[0])}")
        for name, case in cases.items()
        if case.label is not None
    }
    masks = {name: case.valid_mask for name, case in cases.items() if case.valid_mask is not None}
    summary = evaluate_files(pairs, request.dataset.labels, masks=masks, workers=workers)
    summary.write(folder / "summary.json")
    for reason in (*summary.faults, *summary.not_scored.values()):
        log.warning("fold %s: not scored: %s", request.fold, reason)
    return summary
