"""Completion of a data set of the workspace by the folds that left each case out, with table and picture of review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg.assist.complete import CompletionOptions, CompletionReport, complete_dataset
from autoseg.assist.complete_files import REVIEW, label_path, write_disagreements
from autoseg.core.progress import Stages, silent_stages
from autoseg.core.workspace import Workspace
from autoseg.dataset.commands import training_command
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation.disagreement import Disagreement
from autoseg.inference.out_of_fold import out_of_fold_models, seen_cases
from autoseg.inspection.statements import with_known_promises
from autoseg.io.images import read_image, read_labels
from autoseg.io.png import write_png
from autoseg.planning.splits import known_splits
from autoseg.report.review_picture import draw_disagreements

REVIEW_TABLE, REVIEW_PICTURE = "review.csv", "review.png"
GROUPS_DRAWN = 6
"""Number of disagreements in the picture."""


def complete_cases(
    workspace: Workspace,
    dataset: Dataset,
    output: Path,
    model_folder: Path,
    options: CompletionOptions,
    *,
    allow_seen: bool,
    stages: Stages = silent_stages,
) -> CompletionReport:
    """Complete every case with the fold that left it out; with ``options.review`` write its table and picture.

    Parameters
    ----------
    output
        New folder, or that of an earlier run.
    model_folder
        Model folder, as :func:`autoseg.assist.trained_model.trained_model` returns it.
    options
        Settings; ``options.seen_cases`` is replaced here.
    allow_seen
        Whether a case that no fold left out may be predicted by a model that was trained on it.

    Raises
    ------
    ModelError, ConfigError
        See :func:`autoseg.inference.out_of_fold.out_of_fold_models` and
        :func:`autoseg.assist.complete.complete_dataset`.
    """
    folds = fold_per_case(workspace, dataset, model_folder, allow_seen=allow_seen)
    dataset = with_known_promises(dataset, workspace.preprocessed(dataset.name))
    trained_on = seen_cases(model_folder, {case: (fold,) for case, fold in folds.items()})
    with stages("complete") as progress:
        report = complete_dataset(
            dataset, model_folder, folds, output, replace(options, seen_cases=trained_on), progress=progress
        )
    if report.disagreements is not None:
        _write_review(dataset, output, report.disagreements)
    return report


def fold_per_case(workspace: Workspace, dataset: Dataset, model_folder: Path, *, allow_seen: bool) -> dict[str, str]:
    """Return case -> fold that predicts it, for all cases of ``dataset``.

    See :func:`autoseg.inference.out_of_fold.out_of_fold_models`, also for the error if a fold is missing.
    """
    splits = known_splits(workspace.preprocessed(dataset.name), dataset)
    left_out_by = {case: str(fold) for fold, split in enumerate(splits) for case in split.val}
    groups = {case.name: case.group for case in dataset.cases}
    name, _, configuration = model_folder.name.rpartition("__")

    def command(fold: str) -> str:
        return training_command(workspace, dataset, fold, configuration=configuration, name=name)

    return out_of_fold_models(
        model_folder, dataset.case_names, allow_seen=allow_seen, left_out_by=left_out_by, groups=groups, command=command
    )


def _write_review(dataset: Dataset, output: Path, groups: Sequence[Disagreement]) -> None:
    def read(case: str) -> Any:
        files = dataset.case(case)
        image, geometry = read_image(files.images)
        annotated, _ = read_labels(files.label or Path(), allow_nan=True)
        predicted, _ = read_labels(label_path(output, files, REVIEW))
        return image, annotated, predicted, geometry

    write_disagreements(output / REVIEW_TABLE, groups)
    (output / REVIEW_PICTURE).unlink(missing_ok=True)
    if groups:
        write_png(output / REVIEW_PICTURE, draw_disagreements(groups[:GROUPS_DRAWN], read, dataset.labels))
