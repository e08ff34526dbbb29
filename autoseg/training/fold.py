"""Train one fold: the one place where data, network, loss, loop and checkpoints are wired together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoseg.cases.layers import input_channels
from autoseg.core.atomic import write_json
from autoseg.core.components import resolve
from autoseg.core.errors import ModelError
from autoseg.nn.architectures.network import Network
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import Checkpoint, save_checkpoint
from autoseg.nn.compiling import compile_network, wants_compiling
from autoseg.nn.device import select_device, tune_for_equal_shapes
from autoseg.nn.losses import LabelSetLoss, VoxelLoss
from autoseg.nn.precision import choose_dtype
from autoseg.tasks.task import task_of
from autoseg.training.batches import batch_size, recipe, training_batches, validation_batches
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.evidence.sources import evidence_sources
from autoseg.training.history import draw_history, write_history
from autoseg.training.objective import Objective
from autoseg.training.optim import build_optimization, optimizer_name
from autoseg.training.pretrained import Before, load_pretrained
from autoseg.training.request import FoldRequest
from autoseg.training.resuming import CHANGEABLE, changes_so_far, forbidden_changes
from autoseg.training.run_checkpoints import BEST, FINAL, LATEST, load_latest, save_latest
from autoseg.training.trainer import Hooks, Parts, Progress, train

log = logging.getLogger(__name__)

LOSSES: dict[str, Callable[[Tensor | None, bool], VoxelLoss]] = {"label_sets": LabelSetLoss}
"""(regions (O, K) bool or None for a softmax over outputs, whether Dice pools the batch) -> loss."""
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class FoldResult:
    """How a call of :func:`train_fold` ended."""

    progress: Progress
    is_finished: bool
    """False when it was interrupted: the latest checkpoint holds all that is needed to go on."""
    seconds: float


def train_fold(
    request: FoldRequest,
    *,
    resume: bool = False,
    on_steps: Callable[[Progress, float, float], None] = lambda progress, loss, rate: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FoldResult:
    """Train (or go on training) one fold and write its checkpoints, history and picture.

    ``checkpoint_latest.pt`` is written after every epoch and wherever the run ends, ``checkpoint_best.pt`` when the
    smoothed online Dice is the highest so far, ``checkpoint_final.pt`` at the end. On the CPU a run that was stopped
    or killed and resumed has bit by bit the weights of one that was not. With ``max_runtime_s`` the run ends, as
    finished, after the step in which that time is up.

    Raises
    ------
    ModelError
        ``resume`` without a checkpoint, or with one of another plan or other settings.
    ConfigError
        A component or device that is not there, or weights that do not fit the network.
    """
    started = time.monotonic()
    tune_for_equal_shapes(select_device(request.device))
    latest = load_latest(request.folder) if resume else None
    precision = _precision(request, latest)
    parts = build_parts(request, precision)
    progress = Progress()
    changes = changes_so_far(latest, request.config)
    if latest is not None:
        progress = _restore(parts, request, latest)
        write_history(request.folder / "history.jsonl", progress.records)  # a kill may have come between the two
    before = _start(parts, request, latest)
    parts = replace(parts, seen_validation_cases=len(before.seen_validation_cases))
    _write_settings(request, precision, parts, before, changes)
    if wants_compiling(request.config.compile, parts.device, request.config.iterations):
        compile_network(parts.network, _input_shape(request), parts.device, parts.autocast_dtype)

    def save(name: str, progress: Progress) -> None:
        checkpoint = _checkpoint(request, parts, progress, precision, before, changes)
        if name == LATEST:
            save_latest(request.folder, checkpoint)
        else:
            save_checkpoint(request.folder / name, checkpoint)

    def on_epoch(progress: Progress, is_best: bool) -> None:
        if is_best:  # before the latest: a kill between the two repeats the epoch, and neither is lost
            save(BEST, progress)
        save(LATEST, progress)
        write_history(request.folder / "history.jsonl", progress.records)
        draw_history(request.folder / "progress.png", progress.records)

    def out_of_time() -> bool:
        return request.max_runtime_s is not None and time.monotonic() - started >= request.max_runtime_s

    hooks = Hooks(on_steps, on_epoch, lambda: should_stop() or out_of_time())
    progress = train(parts, request.config, progress, hooks)
    is_finished = progress.iteration >= request.config.iterations or (out_of_time() and not should_stop())
    if not progress.records or progress.records[-1].iteration < progress.iteration:  # not saved by an epoch
        save(LATEST, progress)
    if is_finished:
        save(FINAL, progress)
    return FoldResult(progress, is_finished, time.monotonic() - started)


def build_parts(request: FoldRequest, precision: str) -> Parts:
    """Put together everything that :func:`autoseg.training.trainer.train` needs, weights drawn from the seed."""
    config, labels, configuration = request.config, request.dataset.labels, request.configuration
    device = select_device(request.device)
    objective = Objective(task_of(labels), device)
    network = _network(request, device)
    build_loss = resolve("loss", config.loss, LOSSES)
    strides = network.output_strides if config.deep_supervision else None
    return Parts(
        network=network,
        loss=EvidenceLoss(build_loss(objective.regions, configuration.batch_dice), strides, labels.unknown),
        optimization=build_optimization(network, config.optimizer, config.iterations),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "float16"),
        device=device,
        autocast_dtype=PRECISIONS[precision],
        training_batches=lambda start: training_batches(request, device, start),
        validation_batches=lambda: validation_batches(request),
        objective=objective,
        evidence=evidence_sources(request, device),
        is_dense=labels.is_dense,
    )


def _network(request: FoldRequest, device: torch.device) -> Network:
    """Build the network, with weights drawn from the seed."""
    labels = request.dataset.labels
    torch.manual_seed(request.config.seed)
    return build_network(
        request.configuration.topology,
        n_channels=len(input_channels(request.plan, request.configuration, labels)),
        n_outputs=len(task_of(labels).outputs),
        deep_supervision=request.config.deep_supervision,
    ).to(device)


def _input_shape(request: FoldRequest) -> tuple[int, ...]:
    """Return (B, C, *P) of a batch."""
    channels = input_channels(request.plan, request.configuration, request.dataset.labels)
    return (batch_size(request), len(channels), *request.configuration.patch_size)


def _precision(request: FoldRequest, latest: Checkpoint | None) -> str:
    """Name the arithmetic: as set, as the run was begun, or what is fastest, and right, on the device."""
    if request.config.precision != "auto":
        return request.config.precision
    if latest is not None:
        return str(latest.state["precision"])
    device = select_device(request.device)
    dtype = choose_dtype(lambda: _network(request, device), _input_shape(request), device)
    return next(name for name, value in PRECISIONS.items() if value is dtype)


def _start(parts: Parts, request: FoldRequest, latest: Checkpoint | None) -> Before:
    """Load the weights that a new run starts from, if any; return what weights had seen before the run."""
    contents = {name: entry.images for name, entry in request.cache.entries.items()}
    path, trained_on = request.pretrained, None
    if latest is not None:
        path = request.pretrained if latest.state.get("pretrained") is None else Path(latest.state["pretrained"])
        trained_on = latest.trained_on
    elif path is not None:
        trained_on = load_pretrained(parts.network, path, request.plan, request.configuration, request.dataset.labels)
    before = Before.of(path, trained_on, request.dataset.name, contents, request.train_cases, request.val_cases)
    before.warn(request.fold)
    return before


def _write_settings(
    request: FoldRequest, precision: str, parts: Parts, before: Before, changes: list[dict[str, Any]]
) -> None:
    config = request.config
    optimizer = config.optimizer.model_copy(update={"name": optimizer_name(config.optimizer, config.iterations)})
    settings = (
        config.model_copy(update={"optimizer": optimizer}).model_dump(mode="json")
        | {
            "batch_size": batch_size(request),
            "precision": precision,
            "device": str(parts.device),
            "n_parameters": sum(parameter.numel() for parameter in parts.network.parameters()),
            "fold": request.fold,
            "train_cases": request.train_cases,
            "val_cases": request.val_cases,
            "pretrained": None if before.path is None else str(before.path),
            "seen_cases": sorted(before.seen),
        }
        | ({"changes": changes} if changes else {})
    )
    write_json(request.folder / "training.json", settings)


def _checkpoint(
    request: FoldRequest,
    parts: Parts,
    progress: Progress,
    precision: str,
    before: Before,
    changes: list[dict[str, Any]],
) -> Checkpoint:
    return Checkpoint(
        weights=parts.network.state_dict(),
        plan=request.plan,
        configuration=request.configuration.name,
        dataset={**request.dataset.json, "name": request.dataset.name},
        mirror_axes=recipe(request).mirror_axes,
        fold=request.fold,
        trained_on=before.trained_on,
        training=request.config.model_dump(mode="json"),
        state={
            "optimizer": parts.optimization.optimizer.state_dict(),
            "scaler": parts.scaler.state_dict(),
            "progress": progress.to_dict(),
            "precision": precision,
            "evidence": {source.name: source.state() for source in parts.evidence},
            "data": _data_of(request),
            "pretrained": None if before.path is None else str(before.path),
        }
        | ({"changes": changes} if changes else {}),
    )


def _data_of(request: FoldRequest) -> dict[str, Any]:
    """Return what may not change before a run is resumed: what its outputs mean, and what it was not trained on."""
    labels = request.dataset.labels
    return {
        "classes": list(labels.class_names),
        "heads": [[head.name, list(head.classes)] for head in labels.heads],
        "task": labels.task,
        "training cases": sorted(request.train_cases),
        "validation cases": sorted(request.val_cases),
    }


def _restore(parts: Parts, request: FoldRequest, latest: Checkpoint) -> Progress:
    """Put a checkpoint's weights and optimiser into ``parts``; refuse one of another plan, data or configuration."""
    path = request.folder / LATEST
    changed = forbidden_changes(latest, request.config, request.plan, request.configuration.name)
    now = _data_of(request)
    changed += [f"{key} of the data set changed" for key in now if now[key] != latest.state.get("data", now).get(key)]
    evidence = latest.state.get("evidence", {})
    changed += [f"it holds no state of {source.name!r}" for source in parts.evidence if source.name not in evidence]
    begun_from = latest.state.get("pretrained", request.pretrained)  # earlier versions did not say
    if request.pretrained is not None and request.pretrained.absolute() != Path(begun_from or "").absolute():
        changed.append(f"--pretrained is {request.pretrained}, was {begun_from or 'none'}")
    if changed:
        raise ModelError(
            f"{path}: found a run with other settings ({'; '.join(changed)}), expected the same to go on. "
            f"Leave the flags out (only {' and '.join(CHANGEABLE)} may change), put back what changed, start anew with "
            "--overwrite, or use --pretrained to build on its weights."
        )
    parts.network.load_state_dict(latest.weights)
    parts.optimization.optimizer.load_state_dict(latest.state["optimizer"])
    if latest.state["scaler"]:  # empty where the arithmetic was another one
        parts.scaler.load_state_dict(latest.state["scaler"])
    for source in parts.evidence:
        source.restore(evidence[source.name], parts.network)
    return Progress.from_dict(latest.state["progress"])
