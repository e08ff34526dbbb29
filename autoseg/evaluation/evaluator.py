"""Score a folder of predictions against a folder of references, dense or sparse: each file is read once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.core.dataset import Dataset
from autoseg.core.errors import AutosegError, EvaluationError
from autoseg.core.geometry import Geometry
from autoseg.core.labels import Labels
from autoseg.core.parallel import map_unordered
from autoseg.evaluation.matching import find_dataset_json, label_files, load_dataset
from autoseg.evaluation.metrics import count
from autoseg.evaluation.summary import CaseMetrics, Summary, case_metrics, summarise
from autoseg.io.images import read_labels

LISTED = 50
"""Most case names in one message; the summary holds all."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One case to score; travels to a worker process."""

    case: str
    reference: Path
    prediction: Path
    labels: Labels

    def __repr__(self) -> str:
        return self.case


@dataclass(frozen=True, slots=True)
class _Scored:
    metrics: CaseMetrics
    warning: str | None


def evaluate_folder(
    reference: str | Path,
    predictions: str | Path,
    dataset_json: str | Path | Mapping[str, Any] | Dataset | None = None,
    *,
    cases: Collection[str] | None = None,
    workers: int = 1,
    strict: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Summary:
    """Score predictions against references, over the voxels that each reference decides.

    Files are matched by case name (the file name without its ending). A reference may hold the ignore value and
    label-set values, and ``dataset.json: cases`` is respected: a voxel counts for a head only if its label set decides
    that head, so nothing depends on what is predicted where nothing is known. What cannot be computed is None; the
    rules are in :mod:`autoseg.evaluation.summary`.

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
    dataset = load_dataset(find_dataset_json(reference, predictions) if dataset_json is None else dataset_json)
    references = _chosen(label_files(reference, dataset.file_ending), cases, reference)
    predicted = label_files(predictions, dataset.file_ending)
    missing = [name for name in references if name not in predicted]
    extra = [name for name in predicted if name not in references] if cases is None else []
    pairs = {name: (path, predicted[name]) for name, path in references.items() if name in predicted}
    scored, faults = _run(_jobs(pairs, dataset.labels), workers, progress)
    warnings = [case.warning for case in scored if case.warning is not None]
    if not scored or (strict and (missing or extra or faults or warnings)):
        raise EvaluationError("\n".join([*unmatched_lines(missing, extra), *faults, *warnings]))
    return _summary(scored, dataset.labels, missing=missing, extra=extra, faults=faults)


def evaluate_files(
    pairs: Mapping[str, tuple[Path, Path]],
    labels: Labels,
    *,
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> Summary:
    """Score files wherever they lie: case -> (reference, prediction). Otherwise as :func:`evaluate_folder`.

    Raises ``EvaluationError`` if no case can be scored; the others are in ``faults``.
    """
    scored, faults = _run(_jobs(pairs, labels), workers, progress)
    if not scored:
        raise EvaluationError("\n".join(faults) or "evaluation: found no case, expected at least one. Name its files.")
    return _summary(scored, labels, missing=[], extra=[], faults=faults)


def _jobs(pairs: Mapping[str, tuple[Path, Path]], labels: Labels) -> list[_Job]:
    return [_Job(name, reference, prediction, labels) for name, (reference, prediction) in pairs.items()]


def _summary(
    scored: Sequence[_Scored], labels: Labels, *, missing: Sequence[str], extra: Sequence[str], faults: Sequence[str]
) -> Summary:
    return summarise(
        [case.metrics for case in scored],
        {head.key: head.name for head in map(labels.heads.__getitem__, labels.foreground_heads)},
        missing=missing,
        extra=extra,
        faults=faults,
        warnings=[case.warning for case in scored if case.warning is not None],
    )


def _chosen(references: Mapping[str, Path], cases: Collection[str] | None, folder: Path) -> dict[str, Path]:
    if cases is None:
        return dict(references)
    unknown = sorted(set(cases) - set(references))
    if unknown:
        raise EvaluationError(f"{folder}: found no reference of {unknown}, expected one per case. Add the files.")
    return {name: path for name, path in references.items() if name in set(cases)}


def _run(
    jobs: Sequence[_Job], workers: int, progress: Callable[[int, int, str], None] | None
) -> tuple[list[_Scored], list[str]]:
    """Score all jobs; return the scored cases and the messages of the others, both sorted by case."""
    results: dict[int, _Scored | AutosegError] = {}
    for index, result in map_unordered(_score, jobs, workers=workers):
        results[index] = result
        if progress is not None:
            progress(len(results), len(jobs), jobs[index].case)
    ordered = [results[index] for index in range(len(jobs))]
    scored = [result for result in ordered if isinstance(result, _Scored)]
    return scored, [str(result) for result in ordered if isinstance(result, AutosegError)]


def _score(job: _Job) -> _Scored:
    """Read the two files of a case once and count."""
    reference, geometry = read_labels(job.reference)
    prediction, predicted_geometry = read_labels(job.prediction)
    if reference.shape != prediction.shape:
        raise EvaluationError(
            f"prediction of case {job.case!r} ({job.prediction}): found shape {prediction.shape}, expected "
            f"{reference.shape} (z, y, x) as in {job.reference}. Predict on the grid of the reference."
        )
    counts = count(reference, prediction, job.labels, job.case)
    metrics = case_metrics(
        job.case,
        str(job.reference),
        str(job.prediction),
        job.labels,
        counts,
        n_voxels=reference.size,
        voxel_volume=geometry.voxel_volume,
    )
    return _Scored(metrics, _geometry_warning(job, geometry, predicted_geometry))


def _geometry_warning(job: _Job, reference: Geometry, prediction: Geometry) -> str | None:
    differing = prediction.differs_from(reference)
    if not differing:
        return None
    found = ", ".join(f"{name} {_shown(getattr(prediction, name))}" for name in differing)
    expected = ", ".join(f"{name} {_shown(getattr(reference, name))}" for name in differing)
    return (
        f"prediction of case {job.case!r} ({job.prediction}): found {found}, expected {expected} as in "
        f"{job.reference}. Write predictions with the geometry of their image; they were compared voxel by voxel."
    )


def _shown(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number + 0.0:.6g}' for number in numbers)})"  # + 0.0 turns -0 into 0


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
