"""Which model a command takes that predicts the training cases themselves, and which fold of it for each case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.core.workspace import Workspace
from autoseg.dataset.commands import training_command

if TYPE_CHECKING:
    from autoseg.dataset.dataset import Dataset


def trained_model(workspace: Workspace, dataset: Dataset, configuration: str | None, name: str) -> Path:
    """Return the model folder of ``configuration``, or of the only one that was trained under ``name``.

    Raises ``ConfigError`` if none was named and there is none, or more than one.
    """
    if configuration is not None:
        return workspace.model(dataset.name, configuration, name)
    results = workspace.model(dataset.name, "", name).parent
    found = sorted(path.name.rpartition("__")[2] for path in results.glob(f"{name}__*") if path.is_dir())
    if not found:
        others = sorted({path.name.rpartition("__")[0] for path in results.glob("*__*") if path.is_dir()})
        there = f" (there are {listed(others, 10)}: choose with --name)" if others else ""
        raise ConfigError(
            f"{results}: found no training under the name {name!r}{there}, expected one. Train first: "
            f"{training_command(workspace, dataset, '0', configuration=None, name=name)}"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{results}: found {len(found)} configurations trained under the name {name!r}, expected one to be named. "
            f"Choose: -c {' or -c '.join(found)}"
        )
    return workspace.model(dataset.name, found[0], name)


def fold_per_case(workspace: Workspace, dataset: Dataset, model_folder: Path, *, seen: bool) -> dict[str, str]:
    """Return case -> fold that predicts it, for all cases of ``dataset``.

    See :func:`autoseg.inference.out_of_fold.out_of_fold_models`, also for the error where a fold is missing.
    """
    from autoseg.inference.out_of_fold import out_of_fold_models  # brings torch: only when the command runs
    from autoseg.planning.splits import NNUNET_SPLITS_FILE, SPLITS_FILE, read_splits

    preprocessed = workspace.preprocessed(dataset.name)
    paths = (preprocessed / NNUNET_SPLITS_FILE, dataset.folder / NNUNET_SPLITS_FILE, preprocessed / SPLITS_FILE)
    splits = next((read_splits(path) for path in paths if path.is_file()), [])
    left_out_by = {case: str(fold) for fold, split in enumerate(splits) for case in split.val}
    groups = {case.name: case.group for case in dataset.cases}
    name, _, configuration = model_folder.name.rpartition("__")

    def command(fold: str) -> str:
        return training_command(workspace, dataset, fold, configuration=configuration, name=name)

    return out_of_fold_models(
        model_folder, dataset.case_names, seen=seen, left_out_by=left_out_by, groups=groups, command=command
    )
