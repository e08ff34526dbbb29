"""The folds of a model folder: finding their checkpoints, and loading them as networks ready to predict."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from autoseg.cases.layers import input_channels
from autoseg.core.errors import ConfigError, ModelError
from autoseg.core.plan import Configuration, Plan
from autoseg.core.workspace import ALL, FoldName, chosen_members, fold_folders
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import class_differences
from autoseg.inference.calibration import Calibration, read_calibration
from autoseg.inference.separation_file import read_separation
from autoseg.nn.architectures.network import Network
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import Checkpoint, load_checkpoint
from autoseg.tasks.separation import SeparationSettings
from autoseg.tasks.task import outputs_of

log = logging.getLogger(__name__)

Which = Literal["final", "best"]
_FALLBACK: dict[str, str] = {"final": "best", "best": "final"}


@dataclass(frozen=True)
class Model:
    """The trained members of one configuration, with their plan and data set."""

    plan: Plan
    configuration: Configuration
    dataset: Dataset
    """Labels, channels and file ending; no cases."""
    networks: tuple[nn.Module, ...]
    """One network per member (a fold, or a seed of it), in evaluation mode, deep supervision off."""
    mirror_axes: tuple[int, ...]
    """Patch axes along which every fold was trained with mirroring."""
    folds: tuple[str, ...]
    """Names of the members, such as ``0`` or ``all_seed2``, in the order of ``networks``."""
    folder: Path
    """Model folder."""
    calibration: Calibration = field(default_factory=Calibration)
    """What the validation of the folds tells about their probabilities; empty without one."""
    separation: SeparationSettings = field(default_factory=SeparationSettings)
    """How objects are parted."""


def load_model(
    folder: str | Path, folds: Sequence[str | int] | None, device: torch.device, checkpoint: str = "final"
) -> Model:
    """Load the folds of a model folder; see :meth:`autoseg.inference.Predictor.load`."""
    paths = find_checkpoints(Path(folder), folds, checkpoint)
    loaded = {fold: load_checkpoint(path) for fold, path in paths.items()}
    datasets = {fold: _dataset(Path(folder), item) for fold, item in loaded.items()}
    _check_agreement(Path(folder), loaded, datasets)
    first = next(iter(loaded))
    plan, dataset = loaded[first].plan, datasets[first]
    configuration = plan.configuration(loaded[first].configuration)
    n_channels = len(input_channels(plan, configuration, dataset.labels))
    n_outputs = len(outputs_of(dataset.labels))
    networks = tuple(
        _network(paths[fold], item, configuration, n_channels, n_outputs).to(device) for fold, item in loaded.items()
    )
    common = set.intersection(*(set(item.mirror_axes) for item in loaded.values()))
    return Model(
        plan, configuration, dataset, networks, tuple(sorted(common)), tuple(loaded), Path(folder),
        read_calibration(Path(folder)), read_separation(Path(folder)),
    )  # fmt: skip


def previous_folder(model_folder: str | Path, configuration: Configuration) -> Path | None:
    """Return the model folder of the previous stage of a cascade: the run "default" of the same data set.

    None if the configuration has no previous stage. Raises ``ModelError`` if there is no such folder.
    """
    if configuration.previous_stage is None:
        return None
    folder = Path(model_folder).absolute().parent / f"default__{configuration.previous_stage}"
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: found no such folder, expected the model of {configuration.previous_stage}, whose predictions "
            f"{configuration.name} takes as input. Copy it beside {model_folder}, or train it first."
        )
    return folder


def check_same_classes(folder: Path, first: Model, second: Model) -> None:
    """Raise ``ModelError`` unless both stages of a cascade have the same classes; ``folder`` holds the first stage."""
    if class_differences(first.dataset.labels, second.dataset.labels):
        names = [list(model.dataset.labels.class_names) for model in (first, second)]
        raise ModelError(
            f"{folder}: found a model of the classes {names[0]}, expected those of {second.configuration.name}, "
            f"{names[1]}. Train both stages again."
        )


def find_checkpoints(folder: Path, folds: Sequence[str | int] | None, checkpoint: str = "final") -> dict[str, Path]:
    """Return fold -> checkpoint file.

    Parameters
    ----------
    folder
        Folder with ``fold_<k>`` folders.
    folds
        Names of folds, each with all its seeds, or of one member (``all_seed2``; ``all_seed0`` is the first alone).
        None takes every fold that has a final or best checkpoint, with all its seeds; ``all`` only if no other has.
    checkpoint
        ``"final"`` or ``"best"``; if it is missing, the other one is taken, with a warning.

    Raises
    ------
    ConfigError
        If ``checkpoint`` is neither.
    ModelError
        If the folder, a fold or its checkpoint is missing; names what the folder holds.
    """
    if checkpoint not in _FALLBACK:
        raise ConfigError(f"checkpoint: found {checkpoint!r}, expected 'final' or 'best'. Write one of them.")
    if not folder.is_dir():
        siblings = sorted(path.name for path in folder.parent.glob("*__*") if path.is_dir())
        raise ModelError(
            f"{folder}: found no such folder, expected a model folder with fold_<k> folders (there: "
            f"{', '.join(siblings) or 'none'}). Check -m, or -d, -c and --name, or train first."
        )
    there = fold_folders(folder)
    checkpoints = {name: path for name, path in ((n, _checkpoint(p, checkpoint)) for n, p in there.items()) if path}
    if folds is None:
        names = _without_choice(folder, there, checkpoints)
    else:
        chosen = {name: chosen_members(name, checkpoints) for name in dict.fromkeys(str(fold) for fold in folds)}
        missing = [name for name, members in chosen.items() if not members]
        if missing or not chosen:
            raise ModelError(
                f"{folder}: found no finished fold {', '.join(missing) or '(none was named)'}, expected one of the "
                f"finished folds: {', '.join(checkpoints) or 'none'}. Train it, or choose with -f."
            )
        names = list(dict.fromkeys(name for members in chosen.values() for name in members))
    for path in (checkpoints[name] for name in names):
        if path.name != f"checkpoint_{checkpoint}.pt":
            log.warning("%s: no checkpoint_%s.pt, using %s instead", path.parent, checkpoint, path.name)
    return {name: checkpoints[name] for name in names}


def _without_choice(folder: Path, there: dict[str, Path], checkpoints: dict[str, Path]) -> list[str]:
    """Return the folds to take if none was named: all with a checkpoint, the fold ``all`` only if there is no other."""
    if not checkpoints:
        content = ", ".join(f"{path.name} ({_content(path)})" for path in there.values()) or "no fold_<k> folder"
        raise ModelError(
            f"{folder}: found {content}, expected a fold with checkpoint_final.pt or checkpoint_best.pt. Train a fold."
        )
    _report_unfinished(there, checkpoints)
    return [name for name in checkpoints if FoldName.parse(name).fold != ALL] or list(checkpoints)


def _checkpoint(fold: Path, checkpoint: str) -> Path | None:
    """Return the checkpoint of a fold of this kind, otherwise of the other; None if it has neither."""
    kinds = (checkpoint, _FALLBACK[checkpoint])
    return next((path for path in (fold / f"checkpoint_{kind}.pt" for kind in kinds) if path.is_file()), None)


def _content(fold: Path) -> str:
    return ", ".join(sorted(path.name for path in fold.iterdir())[:8]) or "empty"


def _report_unfinished(fold_folders: dict[str, Path], checkpoints: dict[str, Path]) -> None:
    unfinished = [name for name in fold_folders if name not in checkpoints]
    if unfinished:
        log.warning("folds without a final or best checkpoint are left out: %s", ", ".join(unfinished))


def _dataset(folder: Path, checkpoint: Checkpoint) -> Dataset:
    return Dataset.from_json(checkpoint.dataset, name=checkpoint.plan.dataset_name, folder=folder)


def _check_agreement(folder: Path, loaded: dict[str, Checkpoint], datasets: dict[str, Dataset]) -> None:
    """Raise ``ModelError`` unless all folds were trained with the same plan, configuration, labels and channels."""
    first, *others = loaded
    for fold in others:
        pairs = {
            "plan": (loaded[first].plan, loaded[fold].plan),
            "configuration": (loaded[first].configuration, loaded[fold].configuration),
            "labels": (class_differences(datasets[first].labels, datasets[fold].labels), ()),
            "channels": (datasets[first].channels, datasets[fold].channels),
        }
        different = [name for name, (mine, theirs) in pairs.items() if mine != theirs]
        if different:
            raise ModelError(
                f"{folder}: found folds {first} and {fold} with different {' and '.join(different)}, expected folds "
                "of one training. Choose folds that belong together with -f, or train the others again."
            )


def _network(
    path: Path, checkpoint: Checkpoint, configuration: Configuration, n_channels: int, n_outputs: int
) -> Network:
    network = build_network(configuration.topology, n_channels, n_outputs)
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise ModelError(
            f"{path}: found weights that do not fit the network of its plan ({str(error).splitlines()[-1].strip()}), "
            "expected those of this plan. Copy the model folder again, or train again."
        ) from error
    network.deep_supervision = False
    return network.eval().requires_grad_(False)
