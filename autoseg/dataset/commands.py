"""Complete command lines for messages, which work as written and change nothing but what the message is about."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import DATASET_JSON, Dataset

PLANNING = "autoseg_plan_and_preprocess DATASET"
"""Command line in messages that do not know the data set."""


def planning_command(workspace: Workspace, dataset: Dataset, *options: str) -> str:
    """Return the command that plans and preprocesses a data set; it keeps planner and plan."""
    return shlex.join(
        ["autoseg_plan_and_preprocess", dataset_argument(workspace, dataset), *options, *_root(workspace)]
    )


def training_command(
    workspace: Workspace,
    dataset: Dataset,
    fold: str | Sequence[str],
    *options: str,
    configuration: str | None,
    name: str = "default",
) -> str:
    """Return the command that trains folds, one or more, of the run ``name``; configuration None: the plan's first."""
    folds = [fold] if isinstance(fold, str) else fold
    chosen = [] if configuration is None else ["-c", configuration]
    named = [] if name == "default" else ["--name", name]
    argument = dataset_argument(workspace, dataset)
    return shlex.join(["autoseg_train", argument, *folds, *chosen, *named, *options, *_root(workspace)])


def dataset_argument(workspace: Workspace, dataset: Dataset) -> str:
    """Return the argument that names a data set on a command line: its name if in ROOT/raw, otherwise its path."""
    raw = workspace.raw(dataset.name)
    is_raw = raw.is_dir() and raw.resolve() == dataset.folder.resolve()
    if is_raw and dataset.json_name == DATASET_JSON and not Path(dataset.name).exists():
        return dataset.name
    return str(dataset.folder if dataset.json_name == DATASET_JSON else dataset.folder / dataset.json_name)


def _root(workspace: Workspace) -> list[str]:
    return ["--root", str(workspace.root.absolute())]
