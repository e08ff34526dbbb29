"""Score a folder of predictions against a folder of references, dense or sparse: each file is read once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.label_codes import apply_mask, read_valid_mask
from autoseg.core.errors import AutosegError, EvaluationError
from autoseg.core.findings import listed
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import has_axes
from autoseg.core.parallel import map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.file_values import NAN_VALUE
from autoseg.dataset.labels import CaseStatement, Labels
from autoseg.evaluation.cases import CaseMetrics, case_metrics, is_left_out
from autoseg.evaluation.comparison import compare
from autoseg.evaluation.grids import grid_difference, on_grid_of
from autoseg.evaluation.matching import find_dataset_json, find_reference_masks, label_files, load_dataset
from autoseg.evaluation.metrics import count
from autoseg.evaluation.summary import Summary, summarise
from autoseg.io.images import read_labels

LISTED = 50
"""Most case names in one message; the summary holds all."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One case to score; travels to a worker process."""

    case: str
    reference: Path
    predictions: tuple[Path | None, ...]
    """From each of the folders that are scored; None where it has none of the case."""
    labels: Labels
    mask: Path | None = None
    """Valid mask of the reference."""

    def __repr__(self) -> str:
        return self.case


@dataclass(frozen=True, slots=True)
class _Scored:
    metrics: CaseMetrics
    warnings: tuple[str, ...]


_Outcome = _Scored | AutosegError | None
"""What became of one prediction."""


def evaluate_folder(
    reference: str | Path,
    predictions: str | Path,
    dataset_json: str | Path | Mapping[str, Any] | Dataset | None = None,
    *,
    cases: Collection[str] | None = None,
    against: str | Path | None = None,
    workers: int = 1,
    strict: bool = False,
    progress: Progress = silent,
) -> Summary:
    """Score predictions against references, over the voxels that each reference decides.

    Files are matched by case name (the file name without its ending), voxels by their place in the world: a prediction
    that stores the grid of its reference in another order is turned, one on another grid is a fault. Where a file does
    not say how its axes lie (PNG, TIFF), arrays are compared as they are. A reference may hold the ignore value and
    label-set values, and ``dataset.json: cases`` is respected, as are the valid masks of the data set's own label
    files (not of other references of the same cases): a voxel counts for a head only if its label set decides that
    head, so nothing depends on what is predicted where nothing is known. What is inferred from promises
    (``annotation_protocol``) is no reference. What cannot be computed is None; the rules are in
    :mod:`autoseg.evaluation.summary`.

    Parameters
    ----------
    reference, predictions
        Folders of label maps, 2-D or 3-D. If no prediction has the ``file_ending`` of dataset.json, the only other
        supported ending in the folder is taken; the same for the references.
    dataset_json
        Path of the file (or of a folder that holds it), its content, or a data set. None looks in ``predictions``,
        ``reference`` and its parent.
    cases
        Names of the references to score, as of one fold; None means all. Others are neither scored nor missing.
    against
        Folder of other predictions of the same cases; ``summary.comparison`` is then the difference to them.
    workers
        Processes; 1 runs in this one.
    strict
        Raise if anything is missing, extra, misshapen, unreadable or differs in geometry, instead of scoring the rest.
    progress
        Called with (cases done, cases in all, name) after each case.

    Returns
    -------
    summary
        With everything that was wrong by name: ``missing``, ``extra``, ``faults`` (not scored) and ``warnings``.

    Raises
    ------
    EvaluationError
        A folder is missing or empty; no case can be scored; or ``strict`` and something is wrong (all of it is named).
    DatasetError
        dataset.json is wrong.
    """
    reference, predictions = Path(reference), Path(predictions)
    given = find_dataset_json(reference, predictions) if dataset_json is None else dataset_json
    dataset = load_dataset(given)
    references = _chosen(label_files(reference, dataset.file_ending), cases, reference)
    masks = find_reference_masks(given, dataset, references)

    folders = [
        label_files(Path(folder), dataset.file_ending) for folder in (predictions, against) if folder is not None
    ]
    jobs = [
        _Job(name, path, tuple(files.get(name) for files in folders), dataset.labels, masks.get(name))
        for name, path in references.items()
        if any(name in files for files in folders)
    ]
    outcomes = _run(jobs, workers, progress)
    summary, *others = (
        _checked(
            _summary(
                [of_case[index] for of_case in outcomes],
                dataset.labels,
                missing=[name for name in references if name not in files],
                extra=[name for name in files if name not in references] if cases is None else [],
            ),
            strict=strict,
        )
        for index, files in enumerate(folders)
    )
    notes = (_left_out_note(summary, dataset.labels), _masks_note(dataset.labels, references, masks))
    summary = summary.model_copy(update={"warnings": (*summary.warnings, *(note for note in notes if note))})
    for other in others:
        comparison = compare(summary.metric_per_case, other.metric_per_case, list(summary.names), str(against))
        summary = summary.model_copy(update={"comparison": comparison})
    return summary


def _checked(summary: Summary, *, strict: bool) -> Summary:
    """Raise ``EvaluationError`` if nothing was scored or, if ``strict``, anything is wrong."""
    wrong = [*unmatched_lines(summary.missing, summary.extra), *summary.faults, *summary.warnings]
    if not summary.n_cases or (strict and wrong):
        raise EvaluationError("\n".join(wrong))
    return summary


def _masks_note(labels: Labels, references: Mapping[str, Path], masks: Mapping[str, Path]) -> str | None:
    """Say that valid masks are declared but not applied."""
    plain = [name for name in references if name not in masks]
    if not labels.has_masks or not plain:
        return None
    return (
        f"valid_mask_folder: not applied to {len(plain)} references that are not label files of the data set: they are "
        f"taken to be right everywhere ({listed(plain, LISTED)})"
    )


def _left_out_note(summary: Summary, labels: Labels) -> str | None:
    """Say that references show classes that ``annotated`` leaves out: perhaps they are dense ones of the same cases."""
    heads = {head.key: head for head in labels.heads}
    cases = [
        case.case
        for case in summary.metric_per_case
        if any(
            metrics.n_ref and is_left_out(heads[key], labels.statements.get(case.case, CaseStatement()))
            for key, metrics in case.metrics.items()
        )
    ]
    if not cases:
        return None
    return (
        f"references of {_named(cases)}: found voxels of classes that dataset.json: cases leaves out of 'annotated'; "
        "0 was taken as 'none of the annotated classes'. If these references are complete, score them with a "
        "dataset.json without cases (-d)."
    )


def evaluate_files(
    pairs: Mapping[str, tuple[Path, Path]],
    labels: Labels,
    *,
    masks: Mapping[str, Path] | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Summary:
    """Score files wherever they lie: case -> (reference, prediction). Otherwise as :func:`evaluate_folder`.

    ``masks`` gives the valid mask of cases that have one. Raises ``EvaluationError`` if no case can be scored; the
    others are in ``faults``.
    """
    jobs = [
        _Job(name, reference, (prediction,), labels, (masks or {}).get(name))
        for name, (reference, prediction) in pairs.items()
    ]
    summary = _summary([outcome for (outcome,) in _run(jobs, workers, progress)], labels)
    if not summary.n_cases:
        nothing = "evaluation: found no case, expected at least one. Name its files."
        raise EvaluationError("\n".join(summary.faults) or nothing)
    return summary


def _summary(
    outcomes: Sequence[_Outcome], labels: Labels, *, missing: Sequence[str] = (), extra: Sequence[str] = ()
) -> Summary:
    scored = [outcome for outcome in outcomes if isinstance(outcome, _Scored)]
    return summarise(
        [case.metrics for case in scored],
        _names(labels),
        missing=missing,
        extra=extra,
        faults=[str(outcome) for outcome in outcomes if isinstance(outcome, AutosegError)],
        warnings=[warning for case in scored for warning in case.warnings],
    )


def _names(labels: Labels) -> dict[str, str]:
    """Key -> name of the foreground heads."""
    return {head.key: head.name for head in map(labels.heads.__getitem__, labels.foreground_heads)}


def _chosen(references: Mapping[str, Path], cases: Collection[str] | None, folder: Path) -> dict[str, Path]:
    if cases is None:
        return dict(references)
    unknown = sorted(set(cases) - set(references))
    if unknown:
        raise EvaluationError(f"{folder}: found no reference of {unknown}, expected one per case. Add the files.")
    return {name: path for name, path in references.items() if name in set(cases)}


def _run(jobs: Sequence[_Job], workers: int, progress: Progress) -> list[tuple[_Outcome, ...]]:
    """Score all jobs; return for each what became of its predictions."""
    results = map_ordered(_score, jobs, [job.case for job in jobs], workers=workers, progress=progress)
    return [
        tuple(result if path is not None else None for path in job.predictions)
        if isinstance(result, AutosegError)  # of the reference, or of the worker
        else result
        for job, result in zip(jobs, results, strict=True)
    ]


def _score(job: _Job) -> tuple[_Outcome, ...]:
    """Read each file of a case once and count."""
    has_nan = NAN_VALUE in job.labels.file_values()
    reference, geometry = read_labels(job.reference, allow_nan=True) if has_nan else read_labels(job.reference)
    files = CaseFiles(job.case, (), label=job.reference, valid_mask=job.mask)
    reference, labels = apply_mask(reference, read_valid_mask(files, job.labels, reference.shape), job.labels)
    return tuple(
        None if path is None else _compared(job, path, reference, geometry, labels) for path in job.predictions
    )


def _compared(
    job: _Job, prediction_file: Path, reference: NDArray[np.integer[Any]], geometry: Geometry, labels: Labels
) -> _Scored | AutosegError:
    """Score one prediction; ``labels`` holds the ignore value of a mask, which ``job.labels`` may not have."""
    try:
        prediction, predicted_geometry = on_grid_of(geometry, *read_labels(prediction_file))
        if reference.shape != prediction.shape:
            raise EvaluationError(
                f"prediction of case {job.case!r} ({prediction_file}): found shape {prediction.shape}, expected "
                f"{reference.shape} (z, y, x) as in {job.reference}. Predict on the grid of the reference."
            )
        elsewhere = grid_difference(predicted_geometry, geometry)
        if elsewhere is not None and has_axes(geometry) and has_axes(predicted_geometry):
            raise EvaluationError(
                f"prediction of case {job.case!r} ({prediction_file}): {elsewhere} as in {job.reference}. It is not "
                "scored: resample it to the grid of the reference, or write it with the geometry of its image."
            )
        counts = count(reference, prediction, labels, job.case)
        if not any(counts[head].n_decided for head in labels.foreground_heads):
            raise EvaluationError(
                f"reference of case {job.case!r} ({job.reference}): found no voxel that says something of a class, "
                "expected at least one to score by. Annotate some of it, or remove the file from the references."
            )
    except AutosegError as error:
        return error
    metrics = case_metrics(
        job.case,
        str(job.reference),
        str(prediction_file),
        job.labels,
        counts,
        n_voxels=reference.size,
        voxel_volume=geometry.voxel_volume,
    )
    found = (_geometry_warning(job, prediction_file, elsewhere), _absence_warning(job, metrics))
    return _Scored(metrics, tuple(warning for warning in found if warning is not None))


def _absence_warning(job: _Job, metrics: CaseMetrics) -> str | None:
    drawn = [_names(job.labels)[key] for key in metrics.absent if metrics.metrics[key].n_ref]
    if not drawn:
        return None
    return (
        f"reference of case {job.case!r} ({job.reference}): found voxels of {', '.join(drawn)}, expected none, since "
        f"dataset.json: cases.{job.case}.absent names it. Correct one of the two."
    )


def _geometry_warning(job: _Job, prediction_file: Path, elsewhere: str | None) -> str | None:
    """Say that two files are not said to lie on one grid, where one of them does not say how its axes lie."""
    if elsewhere is None:
        return None
    return (
        f"prediction of case {job.case!r} ({prediction_file}): {elsewhere} as in {job.reference}. Write predictions "
        "with the geometry of their image; they were compared voxel by voxel."
    )


def unmatched_lines(missing: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Say in at most one line each which predictions are missing and which have no reference."""
    lines = []
    if missing:
        lines.append(f"missing predictions: found none of {_named(missing)}, expected one per reference. Predict them.")
    if extra:
        lines.append(
            f"extra predictions: found no reference of {_named(extra)}, expected one. Add it, or remove the prediction."
        )
    return lines


def _named(cases: Sequence[str]) -> str:
    shown = ", ".join(map(repr, cases[:LISTED]))
    return shown if len(cases) <= LISTED else f"{shown} and {len(cases) - LISTED} more"
