"""Checkpoints: a complete model in one file, which is written atomically and read without running code."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from autoseg.core.atomic import atomic_path
from autoseg.core.errors import ModelError
from autoseg.core.plan import Plan
from autoseg.core.trained_on import TrainedCase

FORMAT = "autoseg checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A network during or after training, with everything that prediction and resuming need."""

    weights: Mapping[str, Tensor]
    """State dict of the network: name -> tensor of any shape."""
    plan: Plan
    configuration: str
    """Name of the plan's configuration to which the network belongs."""
    dataset: Mapping[str, Any]
    """Content of dataset.json, and ``name``."""
    mirror_axes: tuple[int, ...]
    """Patch axes along which training mirrored. Prediction averages over the same mirrored copies."""
    fold: str
    """``"0"`` ... or ``"all"``, or a further seed of it, ``"all_seed1"`` ..."""
    trained_on: tuple[TrainedCase, ...] | None = ()
    """Cases on which the weights were trained, including those of the weights that training started from. None if
    unknown."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Resolved training configuration, JSON values."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """Training state for resuming (optimiser, schedule, random generators, history): nested dicts, lists and tuples of
    tensors, numbers, booleans, strings and None. Empty in a shared model."""


def strip(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint without its training state, for sharing."""
    return replace(checkpoint, state={})


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: ``path`` is always a complete file, the old one or the new one.

    Raises
    ------
    TypeError
        If ``state`` holds an object that cannot be read without running code. The message gives its place.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "weights": {name: _compact(tensor) for name, tensor in checkpoint.weights.items()},
        "plan": checkpoint.plan.model_dump_json(),
        "configuration": checkpoint.configuration,
        "dataset": json.dumps(dict(checkpoint.dataset)),
        "mirror_axes": list(checkpoint.mirror_axes),
        "fold": checkpoint.fold,
        "trained_on": _as_json(checkpoint.trained_on),
        "training": json.dumps(dict(checkpoint.training)),
        "state": _plain(checkpoint.state, "state"),
    }
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        torch.save(content, file)  # given a path, torch would hide why it cannot write


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint, with its tensors on ``device``.

    All checksums are compared first. Only tensors and plain values are accepted, so that no code in the file runs.

    Raises
    ------
    ModelError
        If the file is missing, truncated, damaged, not a checkpoint, of another version, or holds other objects.
    """
    path = Path(path)
    _check_file(path)
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many types, also from modules that must not be imported here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path}: found content that is not only tensors and plain values ({reason}), expected an autoseg "
            "checkpoint. It was not executed. Use checkpoints that autoseg wrote, from a source that you trust."
        ) from error
    return _parse(path, content)


def _check_file(path: Path) -> None:
    """Raise ``ModelError`` unless ``path`` is a complete archive with correct checksums."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file, expected a checkpoint. Check the model folder, fold and name.")
    if not path.stat().st_size:
        raise _damaged(path, "an empty file")
    with path.open("rb") as opened:
        is_archive = opened.read(4) == b"PK\x03\x04"
    if not is_archive:
        raise _foreign(path, "a file of another format")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise _damaged(path, f"a truncated file ({error})") from error
    if broken is not None:
        raise _damaged(path, f"a wrong checksum in its part {broken!r}")


def _parse(path: Path, content: Any) -> Checkpoint:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _foreign(path, "weights of another program")
    if content.get("version") != VERSION:
        raise ModelError(
            f"{path}: found checkpoint version {content.get('version')!r}, expected {VERSION}. "
            "Use the version of autoseg that wrote it, or train again."
        )
    try:
        return Checkpoint(
            weights=content["weights"],
            plan=Plan.model_validate_json(content["plan"]),
            configuration=content["configuration"],
            dataset=json.loads(content["dataset"]),
            mirror_axes=tuple(content["mirror_axes"]),
            fold=content["fold"],
            trained_on=_trained_on(content),
            training=json.loads(content["training"]),
            state=content["state"],
        )
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise _damaged(path, f"a checkpoint with a part missing or malformed ({error})") from error


def _as_json(cases: tuple[TrainedCase, ...] | None) -> str:
    return json.dumps(None if cases is None else [case.model_dump() for case in cases])


def _trained_on(content: Mapping[str, Any]) -> tuple[TrainedCase, ...] | None:
    """Return the cases on which the weights were trained; in a file of an earlier version, those of its training state.

    None if they are unknown.
    """
    if "trained_on" in content:
        cases = json.loads(content["trained_on"])
        return None if cases is None else tuple(TrainedCase.model_validate(case) for case in cases)
    names = content["state"].get("data", {}).get("training cases")
    name = json.loads(content["dataset"]).get("name")
    return None if names is None or name is None else tuple(TrainedCase(dataset=name, case=case) for case in names)


def _damaged(path: Path, problem: str) -> ModelError:
    return ModelError(
        f"{path}: found {problem}, expected a complete checkpoint. Copy it again from its source, or use another "
        "checkpoint of the same fold."
    )


def _foreign(path: Path, problem: str) -> ModelError:
    return ModelError(
        f"{path}: found {problem}, expected an autoseg checkpoint. Give a checkpoint that autoseg_train wrote."
    )


def _compact(tensor: Tensor) -> Tensor:
    """Return the detached tensor, of any shape; a copy if it is a view of a larger storage."""
    tensor = tensor.detach()
    is_view = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
    return tensor.clone() if is_view else tensor


def _plain(value: Any, where: str) -> Any:
    """Return a copy of nested containers as dicts, lists and tuples.

    Raises ``TypeError`` with the place of any value that is neither a tensor nor plain.
    """
    if isinstance(value, Tensor):
        return _compact(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {_plain(key, where): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(
        f"checkpoint: {where}: found {type(value).__name__}, expected tensors, numbers, strings, None, and lists, "
        "tuples and dicts of them. Convert it first."
    )
