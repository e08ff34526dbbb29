"""Train one fold: the one place where data, network, loss, loop and checkpoints are wired together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autoseg.cases.layers import input_channels
from autoseg.core.errors import ConfigError
from autoseg.nn.architectures.network import Network
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import Checkpoint
from autoseg.nn.compiling import compile_network, wants_compiling
from autoseg.nn.deterministic import deterministic
from autoseg.nn.device import select_device, tune_for_equal_shapes
from autoseg.nn.precision import choose_dtype
from autoseg.nn.ranks import distributed_network
from autoseg.tasks.task import outputs_of
from autoseg.training.batches import batch_size, monitor_batches, training_batches, validation_batches
from autoseg.training.commands import MAILBOX, Mailbox
from autoseg.training.evidence.sources import evidence_sources
from autoseg.training.loop import train
from autoseg.training.objective import objective_of
from autoseg.training.optim import build_optimization
from autoseg.training.pretrained import Before, load_pretrained
from autoseg.training.progress import Progress
from autoseg.training.request import FoldRequest
from autoseg.training.run import Run
from autoseg.training.run_checkpoints import load_latest, remove_unfinished
from autoseg.training.run_lock import locked
from autoseg.training.run_loss import run_loss, run_weights
from autoseg.training.run_record import RunRecord
from autoseg.training.run_state import RunState, restore
from autoseg.training.trainer import Console, Hooks, Parts
from autoseg.training.weight_average import WeightAverage

log = logging.getLogger(__name__)

PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Result of a call of :func:`train_fold`."""

    progress: Progress
    is_finished: bool
    """False when it was interrupted: the latest checkpoint holds all that is needed to go on."""
    seconds: float
    """Of this call."""
    is_saved: bool = True
    """False if it was ended without saving: the latest checkpoint is then an earlier one."""


def train_fold(
    request: FoldRequest,
    *,
    resume: bool = False,
    on_steps: Callable[[Progress, float, float], None] = lambda progress, loss, rate: None,
    should_stop: Callable[[], bool] = lambda: False,
    console: Console | None = None,
) -> FoldResult:
    """Train (or go on training) one fold and write its checkpoints, history and pictures.

    ``checkpoint_latest.pt`` is written with every line of history.jsonl, every few minutes, and wherever the run ends;
    ``checkpoint_best.pt`` when the smoothed online Dice is the highest so far, ``checkpoint_final.pt`` at the end. On
    the CPU a run that was stopped or killed and resumed has bit by bit the weights of one that was not, unless time
    limits it. With ``max_runtime`` the run ends, as finished, after the step in which that time of training is up. Of
    several ranks the first writes, and ``on_steps`` is its own; all return together.

    Parameters
    ----------
    on_steps, should_stop, console
        See :class:`autoseg.training.trainer.Hooks`.

    Raises
    ------
    ModelError
        ``resume`` without a checkpoint, or with one of another plan or other settings.
    ConfigError
        A component or device that is not there, weights that do not fit the network, ``deterministic`` where an
        operation is not (names it), or another training in the folder.
    TrainingError
        Loss or weights are no longer finite.
    """
    if not request.ranks.is_first:
        return _train(request, resume, Hooks(lambda progress, loss, rate: None, should_stop))
    begun_ns = time.time_ns()
    with locked(request.folder):  # from now on others may send
        Mailbox(request.folder / MAILBOX).clear(begun_ns)
        remove_unfinished(request.folder)
        return _train(request, resume, Hooks(on_steps, should_stop, console))


def _train(request: FoldRequest, resume: bool, hooks: Hooks) -> FoldResult:
    started = time.monotonic()
    tune_for_equal_shapes(select_device(request.device))
    latest = load_latest(request.folder, repairs=request.ranks.is_first) if resume else None
    precision = _precision(request, latest)
    parts = build_parts(request, precision)
    progress = Progress()
    if latest is not None:
        progress = restore(parts, request, latest)
    before, report = _start(parts, request, latest)
    parts = replace(parts, seen_validation_cases=len(before.seen_validation_cases))
    record = RunRecord.of(request, parts.device, latest, report)
    run = Run(RunState(request, parts, progress, precision, before, record, [dict(item) for item in record.changes]))
    if wants_compiling(request.config.compile, parts.device, request.config.iterations):
        compile_network(parts.network, _input_shape(request), parts.device, parts.autocast_dtype)
    with deterministic(is_on=request.config.deterministic):
        train(run, hooks)
    is_finished = run.finish(is_stopped=request.ranks.any(hooks.should_stop() or bool(run.ending)))
    return FoldResult(run.state.progress, is_finished, time.monotonic() - started, is_saved=run.ending != "kill")


def build_parts(request: FoldRequest, precision: str) -> Parts:
    """Put together everything that :func:`autoseg.training.trainer.train` needs, weights drawn from the seed."""
    config, labels, configuration = request.config, request.dataset.labels, request.configuration
    device = select_device(request.device)
    objective = objective_of(labels, device)
    network = _network(request, device)
    weights = run_weights(request, objective)
    if weights is not None:
        pairs = zip(objective.task.outputs, weights, strict=True)
        log.info("weights in the cross entropy: %s", ", ".join(f"{name} {weight:.3g}" for name, weight in pairs))
    strides = network.output_strides if config.deep_supervision else None
    loss = run_loss(request, objective, weights, strides, device)
    optimization = build_optimization(network, config.optimizer, config.iterations)
    if optimization.settings.needs_closure and precision == "float16":
        raise ConfigError(
            f"optimizer {config.optimizer.name!r} and precision {precision!r}: this optimiser computes a step several "
            "times, which float16 cannot. Set precision=float32 or precision=bfloat16."
        )
    return Parts(
        network=network,
        loss=loss,
        optimization=optimization,
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "float16"),
        device=device,
        autocast_dtype=PRECISIONS[precision],
        training_batches=lambda start: training_batches(request, device, start),
        validation_batches=lambda: validation_batches(request),
        monitor_batches=lambda: monitor_batches(request),
        objective=objective,
        evidence=evidence_sources(request, device),
        is_dense=labels.is_dense,
        ranks=request.ranks,
        wrapped=distributed_network(network, device, request.ranks),
        dropout_seed=config.seed + request.ranks.rank if any(configuration.topology.dropout) else None,
        average=WeightAverage(network, decay) if (decay := config.optimizer.weight_average) else None,
    )


def _network(request: FoldRequest, device: torch.device) -> Network:
    """Build the network, with weights drawn from the seed."""
    labels = request.dataset.labels
    torch.manual_seed(request.config.seed)
    return build_network(
        request.configuration.topology,
        n_channels=len(input_channels(request.plan, request.configuration, labels)),
        n_outputs=len(outputs_of(labels)),
        deep_supervision=request.config.deep_supervision,
    ).to(device)


def _input_shape(request: FoldRequest) -> tuple[int, ...]:
    """Return (B, C, *P) of this rank's share of a batch."""
    channels = input_channels(request.plan, request.configuration, request.dataset.labels)
    return (len(request.ranks.share(batch_size(request))), len(channels), *request.configuration.patch_size)


def _precision(request: FoldRequest, latest: Checkpoint | None) -> str:
    """Name the arithmetic: as set, as the run was begun, or what is fastest, and right, on the devices of all ranks."""
    if request.config.precision != "auto":
        return request.config.precision
    if latest is not None:
        return str(latest.state["precision"])
    device = select_device(request.device)
    dtype = choose_dtype(lambda: _network(request, device), _input_shape(request), device)
    of_ranks = (name for name, value in PRECISIONS.items() if request.ranks.any(value is dtype))
    return next(of_ranks)  # float32 first: what all ranks can do


def _start(parts: Parts, request: FoldRequest, latest: Checkpoint | None) -> tuple[Before, Mapping[str, Any] | None]:
    """Load the weights that a new run starts from, if any; return what they had seen, and what was taken of them."""
    contents = {name: entry.images for name, entry in request.cache.entries.items()}
    path, trained_on, report = request.pretrained, None, None
    if latest is not None:
        path = request.pretrained if latest.state.get("pretrained") is None else Path(latest.state["pretrained"])
        trained_on = latest.trained_on
    elif path is not None:
        trained_on, report = load_pretrained(
            parts.network, path, request.plan, request.configuration, request.dataset.labels
        )
        if parts.average is not None:
            parts.average.restart(parts.network)
    before = Before.of(path, trained_on, request.dataset.name, contents, request.train_cases, request.val_cases)
    before.warn(request.fold)
    return before, report
