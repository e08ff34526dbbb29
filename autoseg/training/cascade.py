"""The input of the second stage of a cascade: predictions of the first one on cases that it did not train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.core.errors import ModelError
from autoseg.core.findings import counted, listed
from autoseg.core.plan import Configuration
from autoseg.core.workspace import ALL, FoldName, Workspace, fold_folder
from autoseg.dataset.commands import planning_command, training_command
from autoseg.dataset.dataset import Dataset
from autoseg.inference.out_of_fold import read_fold_cases
from autoseg.planning.files import FINGERPRINT_FILE, load_fingerprint
from autoseg.planning.preprocess_dataset import PreviousMaps
from autoseg.planning.splits import Split, load_or_make_splits
from autoseg.training.run_checkpoints import FINAL
from autoseg.training.validation import validation_file


def previous_maps(
    workspace: Workspace, dataset: Dataset, configuration: Configuration, splits: Sequence[Split], fold: str = ""
) -> dict[str, Path]:
    """Return case -> label map that the fold of the previous stage predicted which holds the case out.

    The previous stage is the run "default" of its configuration. For a configuration without one the result is empty.

    Parameters
    ----------
    configuration
        The second stage of a cascade, or any other.
    splits
        The folds of the data set.
    fold
        Fold that is to be trained, if any: whoever predicts with it needs the same fold of the previous stage.

    Raises
    ------
    ModelError
        If a fold is not trained, or was trained on what it should hold out; names the commands that train what is
        missing.
    """
    stage = configuration.previous_stage
    if stage is None:
        return {}
    folder = workspace.model(dataset.name, stage)
    maps: dict[str, Path] = {}
    lacking: dict[str, str] = {}
    for number, split in enumerate(splits):
        own = fold_folder(folder, str(number))
        trained_on = read_fold_cases(own).seen_cases if (own / FINAL).is_file() else frozenset[str]()
        for name in split.val:
            path = validation_file(own, dataset.case(name), dataset.labels)
            is_seen = name in trained_on and name not in split.train  # one case alone is on both sides of its fold
            if is_seen or not path.is_file():
                lacking[name] = str(number)
            else:
                maps[name] = path
    if lacking:
        commands = [_command(workspace, dataset, stage, folder, number) for number in sorted({*lacking.values()})]
        raise ModelError(
            f"{folder}: found no prediction of {counted(len(lacking), 'case')} by a fold that did not train on it: "
            f"{listed(sorted(lacking), 20)}; expected one of each, in fold_<k>/validation: {configuration.name} takes "
            f"the predictions of {stage} as input. Train {'; '.join(commands)}"
        )
    if FoldName.parse(fold).fold == ALL and not (fold_folder(folder, ALL) / FINAL).is_file():
        raise ModelError(
            f"{folder}: found no finished fold {ALL}, expected one: whoever predicts with fold {ALL} of "
            f"{configuration.name} needs it. Train {_command(workspace, dataset, stage, folder, ALL)}"
        )
    return maps


def previous_maps_in(workspace: Workspace, dataset: Dataset) -> PreviousMaps:
    """Return :func:`previous_maps` for the folds that were planned in the workspace."""

    def maps(configuration: Configuration) -> Mapping[str, Path]:
        if configuration.previous_stage is None:
            return {}
        folder = workspace.preprocessed(dataset.name)
        fingerprint = load_fingerprint(folder / FINGERPRINT_FILE, planning_command(workspace, dataset))
        splits = load_or_make_splits(dataset, folder, fingerprint.informative_cases, fingerprint)
        return previous_maps(workspace, dataset, configuration, splits)

    return maps


def _command(workspace: Workspace, dataset: Dataset, stage: str, folder: Path, fold: str) -> str:
    options = ["--overwrite"] if (fold_folder(folder, fold) / FINAL).is_file() else []
    return training_command(workspace, dataset, fold, *options, configuration=stage)
