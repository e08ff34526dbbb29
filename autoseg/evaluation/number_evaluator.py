"""Evaluation of predicted numbers against references, on the voxels where a number is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.cases.label_codes import read_valid_mask
from autoseg.cases.target_numbers import read_numbers
from autoseg.core.errors import AutosegError, EvaluationError
from autoseg.core.parallel import Workers, map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Labels
from autoseg.evaluation.evaluator import chosen, evaluate_folder, unmatched_lines
from autoseg.evaluation.grids import Grid, placed_on
from autoseg.evaluation.matching import find_dataset_json, find_reference_masks, label_files, load_dataset
from autoseg.evaluation.number_metrics import ErrorSums
from autoseg.evaluation.number_summary import NumberCase, NumberSummary, summarise_numbers
from autoseg.evaluation.summary import Summary


@dataclass(frozen=True, slots=True)
class _Job:
    """One case to score, as it is sent to a worker process."""

    case: str
    reference: Path
    prediction: Path
    labels: Labels
    mask: Path | None = None
    """Valid mask of the reference; None if it has none."""
    images: tuple[Path, ...] = ()
    """Image of the case, of which missing tiles are unknown; () if the reference alone decides."""

    def __repr__(self) -> str:
        return self.case


@dataclass(frozen=True, slots=True)
class _Scored:
    case: NumberCase
    sums: dict[str, ErrorSums]
    warning: str | None


def evaluate_numbers_folder(
    reference: str | Path,
    predictions: str | Path,
    dataset_json: str | Path | Mapping[str, Any] | Dataset | None = None,
    *,
    cases: Collection[str] | None = None,
    workers: Workers = 1,
    strict: bool = False,
    progress: Progress = silent,
) -> NumberSummary:
    """Score predicted numbers of a regression. A voxel counts for a target if the reference knows its number.

    Files are matched, and voxels placed, as for :func:`autoseg.evaluation.evaluate_folder`, which has the same
    parameters and raises the same errors. A prediction without a number (NaN) in a known voxel is a fault. A case
    without a known voxel has null for every metric, with the reason.
    """
    reference, predictions = Path(reference), Path(predictions)
    given = find_dataset_json(reference, predictions) if dataset_json is None else dataset_json
    dataset = load_dataset(given)
    references = chosen(label_files(reference, dataset.file_ending), cases, reference)
    files = label_files(predictions, dataset.file_ending)
    masks = find_reference_masks(given, dataset, references)
    jobs = [
        _Job(name, path, files[name], dataset.labels, masks.get(name))
        for name, path in references.items()
        if name in files
    ]
    summary = _score_all(
        jobs,
        dataset.labels,
        workers,
        progress,
        missing=[name for name in references if name not in files],
        extra=[name for name in files if name not in references] if cases is None else [],
    )
    wrong = [*unmatched_lines(summary.missing, summary.extra), *summary.faults, *summary.warnings]
    if not summary.n_cases or (strict and wrong):
        raise EvaluationError("\n".join(wrong))
    return summary


def score_folder(
    reference: str | Path,
    predictions: str | Path,
    dataset_json: str | Path | Mapping[str, Any] | Dataset | None = None,
    *,
    against: str | Path | None = None,
    workers: Workers = 1,
    strict: bool = False,
    tolerance_mm: float | None = None,
    progress: Progress = silent,
) -> Summary | NumberSummary:
    """Score a folder of predictions of whatever task; parameters and errors as for ``evaluate_folder``.

    Also raises ``EvaluationError`` for a regression with ``against``, since it compares Dice, or ``tolerance_mm``.
    """
    given = find_dataset_json(Path(reference), Path(predictions)) if dataset_json is None else dataset_json
    if not load_dataset(given).labels.targets:
        return evaluate_folder(
            reference, predictions, given, against=against, workers=workers, strict=strict, tolerance_mm=tolerance_mm,
            progress=progress,
        )  # fmt: skip
    if tolerance_mm is not None:
        raise EvaluationError(
            "--surface: found a data set of the task regression, expected classes, which have surfaces. Leave it out."
        )
    if against is not None:
        raise EvaluationError(
            "--against: found a data set of the task regression, expected classes: it compares Dice. Leave it out, and "
            "compare the two summaries."
        )
    return evaluate_numbers_folder(reference, predictions, given, workers=workers, strict=strict, progress=progress)


def evaluate_numbers(
    pairs: Mapping[str, tuple[Path, Path]],
    labels: Labels,
    *,
    masks: Mapping[str, Path] | None = None,
    images: Mapping[str, tuple[Path, ...]] | None = None,
    workers: Workers = 1,
    progress: Progress = silent,
) -> NumberSummary:
    """Score the files in ``pairs``: case -> (reference, prediction). Otherwise as :func:`evaluate_numbers_folder`.

    ``masks`` and ``images`` as for :func:`autoseg.evaluation.evaluate_files`. Raises ``EvaluationError`` if no case can
    be scored.
    """
    jobs = [
        _Job(name, reference, prediction, labels, (masks or {}).get(name), (images or {}).get(name, ()))
        for name, (reference, prediction) in pairs.items()
    ]
    summary = _score_all(jobs, labels, workers, progress)
    if not summary.n_cases:
        nothing = "evaluation: no case to score, expected at least one. Give its files."
        raise EvaluationError("\n".join(summary.faults) or nothing)
    return summary


def _score_all(
    jobs: Sequence[_Job],
    labels: Labels,
    workers: Workers,
    progress: Progress,
    *,
    missing: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> NumberSummary:
    results = map_ordered(_score, jobs, [job.case for job in jobs], workers=workers, progress=progress)
    scored = [result for result in results if isinstance(result, _Scored)]
    return summarise_numbers(
        [(result.case, result.sums) for result in scored],
        labels.targets,
        missing=missing,
        extra=extra,
        faults=[str(result) for result in results if isinstance(result, AutosegError)],
        warnings=[result.warning for result in scored if result.warning is not None],
    )


def _score(job: _Job) -> _Scored:
    """Read the files of a case, and score its prediction."""
    reference, geometry = read_numbers(job.reference, job.labels)
    files = CaseFiles(job.case, job.images, label=job.reference, valid_mask=job.mask)
    valid = read_valid_mask(files, job.labels, reference.shape[1:])
    if valid is not None:
        reference = np.where(valid, reference, np.float32(np.nan))
    grid = Grid(job.reference, reference.shape[1:], geometry)
    content = read_numbers(job.prediction, replace(job.labels, no_number=None))  # any number may be predicted
    prediction, doubt = placed_on(grid, *content, case=job.case, path=job.prediction)
    n_lacking = int(np.count_nonzero(np.isnan(prediction) & ~np.isnan(reference)))
    if n_lacking:
        raise EvaluationError(
            f"prediction of case {job.case!r} ({job.prediction}): found no number in {n_lacking} voxels that are known "
            f"in {job.reference}, expected one in each. Predict the case again."
        )
    pairs = zip(job.labels.targets, reference, prediction, strict=True)
    sums = {name: ErrorSums.of(true, predicted) for name, true, predicted in pairs}
    case = NumberCase(
        case=job.case,
        reference_file=str(job.reference),
        prediction_file=str(job.prediction),
        metrics={name: item.metrics for name, item in sums.items()},
        not_scored={name: reason for name, item in sums.items() if (reason := item.reason) is not None},
    )
    return _Scored(case, sums, doubt)
