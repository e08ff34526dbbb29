"""Evaluation of a folder of predictions against a folder of dense or sparse references. Each file is read once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.core.errors import AutosegError, EvaluationError
from autoseg.core.findings import listed
from autoseg.core.parallel import Workers, map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import CaseStatement, Labels
from autoseg.evaluation.case_scoring import Job, Outcome, Scored, score
from autoseg.evaluation.cases import is_left_out
from autoseg.evaluation.comparison import compare
from autoseg.evaluation.matching import find_dataset_json, find_reference_masks, label_files, load_dataset
from autoseg.evaluation.summary import Summary, summarise

LISTED = 50
"""Largest number of case names in one message. The summary holds all names."""


def evaluate_folder(
    reference: str | Path,
    predictions: str | Path,
    dataset_json: str | Path | Mapping[str, Any] | Dataset | None = None,
    *,
    cases: Collection[str] | None = None,
    against: str | Path | None = None,
    workers: Workers = 1,
    strict: bool = False,
    tolerance_mm: float | None = None,
    progress: Progress = silent,
) -> Summary:
    """Score predictions against references, over the voxels that each reference decides.

    Files are matched by case name (the file name without its ending), and voxels by their position in the world: a
    prediction that stores the grid of its reference in another voxel order is turned; a prediction on another grid is a
    fault. If a file does not state the direction of its axes (PNG, TIFF), arrays are compared as they are stored.

    References may be sparse: the ignore value, label-set values, ``dataset.json: cases`` and valid masks are respected.
    Valid masks apply only to the label files of the data set, not to other references of the same cases. A voxel
    counts for a head only if its label set decides the head, so that predictions at other voxels have no effect.
    Inference from promises (``annotation_protocol``) is not a reference. Metrics that cannot be computed are None, by
    the rules in :mod:`autoseg.evaluation.summary`.

    Parameters
    ----------
    reference, predictions
        Folders of label maps, 2-D or 3-D: image files, and arrays (``case.zarr``, ``case.n5``, ``case.h5``,
        ``case.npy``, tiles in ``case.json``), which are read box by box. If no file of a folder has the
        ``file_ending`` of dataset.json, the only other supported ending in the folder is taken.
    dataset_json
        Path of the file (or of a folder that holds it), its content, or a data set. None: it is searched in
        ``predictions``, ``reference`` and the parent of ``reference``.
    cases
        Names of the references to score, for example those of one fold. None: all. Other references are neither scored
        nor reported as missing.
    against
        Folder of other predictions of the same cases. ``summary.comparison`` is then the difference to them.
    workers
        Number of processes. 1: everything runs in this process.
    strict
        Whether to raise, instead of scoring the other cases, if any prediction is missing, extra, unreadable, or
        differs in shape or geometry.
    tolerance_mm
        Also compute surface scores (HD95, ASSD, NSD), with this distance for the NSD, mm. None computes none.
    progress
        Called with (number of scored cases, number of all cases, name) after each case.

    Returns
    -------
    summary
        Metrics, and the names of all problems: ``missing``, ``extra``, ``faults`` (not scored) and ``warnings``.

    Raises
    ------
    EvaluationError
        If a folder is missing or empty, if no case can be scored, or if ``strict`` and there is any problem. The
        message names all of them.
    DatasetError
        If dataset.json is wrong.
    """
    reference, predictions = Path(reference), Path(predictions)
    given = find_dataset_json(reference, predictions) if dataset_json is None else dataset_json
    dataset = load_dataset(given)
    if dataset.labels.targets:
        raise EvaluationError(
            f"evaluation of classes: found the task regression (targets {listed(dataset.labels.targets)}), expected "
            "labels. Use autoseg.evaluation.evaluate_numbers_folder, as autoseg_evaluate_folder does."
        )
    references = chosen(label_files(reference, dataset.file_ending, with_arrays=True), cases, reference)
    masks = find_reference_masks(given, dataset, references)

    folders = [
        label_files(Path(folder), dataset.file_ending, with_arrays=True)
        for folder in (predictions, against)
        if folder is not None
    ]
    jobs = [
        Job(name, path, tuple(files.get(name) for files in folders), dataset.labels, masks.get(name), tolerance_mm)
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
    warnings = (*summary.warnings, *(note for note in notes if note))
    summary = summary.model_copy(update={"warnings": warnings, "tolerance_mm": tolerance_mm})
    for other in others:
        comparison = compare(summary.metric_per_case, other.metric_per_case, list(summary.names), str(against))
        summary = summary.model_copy(update={"comparison": comparison})
    return summary


def _checked(summary: Summary, *, strict: bool) -> Summary:
    """Return the summary. Raise ``EvaluationError`` if no case was scored, or for any problem if ``strict``."""
    wrong = [*unmatched_lines(summary.missing, summary.extra), *summary.faults, *summary.warnings]
    if not summary.n_cases or (strict and wrong):
        raise EvaluationError("\n".join(wrong))
    return summary


def _masks_note(labels: Labels, references: Mapping[str, Path], masks: Mapping[str, Path]) -> str | None:
    """Return a warning if valid masks are declared but not applied to some references; otherwise None."""
    plain = [name for name in references if name not in masks]
    if not labels.has_masks or not plain:
        return None
    return (
        f"valid_mask_folder: not applied to {len(plain)} references, which are not label files of the data set: all "
        f"their voxels count ({listed(plain, LISTED)})"
    )


def _left_out_note(summary: Summary, labels: Labels) -> str | None:
    """Return a warning if references contain classes that ``annotated`` omits, as dense references would; else None."""
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
        f"references of {_named(cases)}: contain voxels of classes that dataset.json: cases omits from 'annotated'. "
        "The value 0 was read as 'none of the annotated classes'. If these references are complete, score them with a "
        "dataset.json without cases (-d)."
    )


def evaluate_files(
    pairs: Mapping[str, tuple[Path, Path]],
    labels: Labels,
    *,
    masks: Mapping[str, Path] | None = None,
    images: Mapping[str, tuple[Path, ...]] | None = None,
    workers: Workers = 1,
    progress: Progress = silent,
) -> Summary:
    """Score the files in ``pairs``: case -> (reference, prediction). Otherwise as :func:`evaluate_folder`.

    ``masks``: case -> valid mask, for cases that have one. ``images``: case -> its image, whose missing tiles do not
    count, not even for a class that is absent; without it they count as the reference says. Cases that cannot be scored
    are in ``faults``. Raises ``EvaluationError`` if no case can be scored.
    """
    jobs = [
        Job(name, reference, (prediction,), labels, (masks or {}).get(name), images=(images or {}).get(name, ()))
        for name, (reference, prediction) in pairs.items()
    ]
    summary = _summary([outcome for (outcome,) in _run(jobs, workers, progress)], labels)
    if not summary.n_cases:
        nothing = "evaluation: no case to score, expected at least one. Give its files."
        raise EvaluationError("\n".join(summary.faults) or nothing)
    return summary


def _summary(
    outcomes: Sequence[Outcome], labels: Labels, *, missing: Sequence[str] = (), extra: Sequence[str] = ()
) -> Summary:
    scored = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
    return summarise(
        [case.metrics for case in scored],
        _names(labels),
        missing=missing,
        extra=extra,
        faults=[str(outcome) for outcome in outcomes if isinstance(outcome, AutosegError)],
        warnings=[warning for case in scored for warning in case.warnings],
    )


def _names(labels: Labels) -> dict[str, str]:
    """Return key -> name for the foreground heads."""
    return {head.key: head.name for head in map(labels.heads.__getitem__, labels.foreground_heads)}


def chosen(references: Mapping[str, Path], cases: Collection[str] | None, folder: Path) -> dict[str, Path]:
    """Return the references of ``cases``, or all if None. Raise ``EvaluationError`` if one of them is missing."""
    if cases is None:
        return dict(references)
    unknown = sorted(set(cases) - set(references))
    if unknown:
        raise EvaluationError(f"{folder}: no reference of {unknown}, expected one per case. Add the files.")
    return {name: path for name, path in references.items() if name in set(cases)}


def _run(jobs: Sequence[Job], workers: Workers, progress: Progress) -> list[tuple[Outcome, ...]]:
    """Score all jobs; return for each what became of its predictions."""
    results = map_ordered(score, jobs, [job.case for job in jobs], workers=workers, progress=progress)
    return [
        tuple(result if path is not None else None for path in job.predictions)
        if isinstance(result, AutosegError)  # of the reference, or of the worker
        else result
        for job, result in zip(jobs, results, strict=True)
    ]


def unmatched_lines(missing: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Return one line that names the missing predictions, and one that names the extra ones, if there are any."""
    lines = []
    if missing:
        lines.append(f"missing predictions: no prediction of {_named(missing)}. Predict these cases.")
    if extra:
        lines.append(f"extra predictions: no reference of {_named(extra)}. Add it, or remove the prediction.")
    return lines


def _named(cases: Sequence[str]) -> str:
    shown = ", ".join(map(repr, cases[:LISTED]))
    return shown if len(cases) <= LISTED else f"{shown} and {len(cases) - LISTED} more"
