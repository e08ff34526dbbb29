"""The model folder for completion and suggestions; imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

from pathlib import Path

from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.core.workspace import Workspace
from autoseg.dataset.commands import training_command
from autoseg.dataset.dataset import Dataset
from autoseg.tasks.task import refuse_instances, refuse_regression


def trained_model(workspace: Workspace, dataset: Dataset, configuration: str | None, name: str) -> Path:
    """Return the model folder of ``configuration``, or of the only one that was trained under ``name``.

    Raises ``ConfigError`` if ``configuration`` is None and there is no trained one, or more than one, and if the task
    of the data set is regression or instances.
    """
    refuse_regression(dataset.labels, "completing or suggesting annotation")
    refuse_instances(dataset.labels, "completing or suggesting annotation")
    if configuration is not None:
        return workspace.model(dataset.name, configuration, name)
    results = workspace.model(dataset.name, "", name).parent
    configurations = sorted(path.name.rpartition("__")[2] for path in results.glob(f"{name}__*") if path.is_dir())
    if not configurations:
        others = sorted({path.name.rpartition("__")[0] for path in results.glob("*__*") if path.is_dir()})
        there = f" (there are {listed(others, 10)}: choose with --name)" if others else ""
        raise ConfigError(
            f"{results}: found no training under the name {name!r}{there}, expected one. Train first: "
            f"{training_command(workspace, dataset, '0', configuration=None, name=name)}"
        )
    if len(configurations) > 1:
        raise ConfigError(
            f"{results}: found {len(configurations)} configurations trained under the name {name!r}, expected one. "
            f"Choose: -c {' or -c '.join(configurations)}"
        )
    return workspace.model(dataset.name, configurations[0], name)
