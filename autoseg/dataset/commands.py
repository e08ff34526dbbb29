"""The commands that messages tell people to type: whole, so that a copied one just works and changes nothing else."""

from __future__ import annotations

import shlex
from pathlib import Path

from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import DATASET_JSON, Dataset

PLANNING = "autoseg_plan_and_preprocess DATASET"
"""What messages say where the command line that plans the data set is not known."""


def planning_command(workspace: Workspace, dataset: Dataset, *options: str) -> str:
    """Return the command that plans and preprocesses a data set; planner and plan stay as they are by themselves."""
    return shlex.join(
        ["autoseg_plan_and_preprocess", dataset_argument(workspace, dataset), *options, *_root(workspace)]
    )


def training_command(
    workspace: Workspace, dataset: Dataset, fold: str, *options: str, configuration: str | None, name: str = "default"
) -> str:
    """Return the command that trains a fold of the run ``name``; ``configuration`` None takes the plan's first."""
    chosen = [] if configuration is None else ["-c", configuration]
    named = [] if name == "default" else ["--name", name]
    argument = dataset_argument(workspace, dataset)
    return shlex.join(["autoseg_train", argument, fold, *chosen, *named, *options, *_root(workspace)])


def dataset_argument(workspace: Workspace, dataset: Dataset) -> str:
    """Return what finds a data set from a command line: its name if it lies below ROOT/raw, else its path."""
    raw = workspace.raw(dataset.name)
    is_raw = raw.is_dir() and raw.resolve() == dataset.folder.resolve()
    if is_raw and dataset.json_name == DATASET_JSON and not Path(dataset.name).exists():
        return dataset.name
    return str(dataset.folder if dataset.json_name == DATASET_JSON else dataset.folder / dataset.json_name)


def _root(workspace: Workspace) -> list[str]:
    return ["--root", str(workspace.root.absolute())]
