"""The training loop, readable top to bottom: step, validate, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.core.errors import TrainingError
from autoseg.core.ranks import ONE_PROCESS, Ranks
from autoseg.sampling.batch import Batch
from autoseg.training.config import TrainingConfig
from autoseg.training.evidence.drawn import drawn_evidence
from autoseg.training.evidence.source import Evidence, EvidenceSource, Step
from autoseg.training.history import EpochRecord
from autoseg.training.metrics import dice_per_head, mean_known, smooth
from autoseg.training.objective import Objective
from autoseg.training.optim import Optimization

FLUSH_EVERY = 10
"""Steps between two readings of the loss, each of which makes a GPU wait."""
FLUSH_SECONDS = 10.0
"""Time after which the loss is read, however few steps that were, so that slow machines report, too."""


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a run is made of; put together in ``training.fold``."""

    network: nn.Module
    loss: Callable[[list[Tensor], Evidence], Tensor]
    """(logits per resolution, evidence of the batch) -> scalar."""
    optimization: Optimization
    scaler: torch.amp.GradScaler
    """Disabled unless the arithmetic is float16."""
    device: torch.device
    autocast_dtype: torch.dtype | None
    """None computes in float32."""
    training_batches: Callable[[int], Iterator[Batch]]
    """First iteration -> that iteration's batch and all that follow; the same whenever it is asked."""
    validation_batches: Callable[[], Iterator[Batch]]
    objective: Objective
    """What the task asks of the network's outputs."""
    evidence: tuple[EvidenceSource, ...] = ()
    """What is inferred for unannotated voxels, by which sources, in their order; () trains on annotation alone."""
    is_dense: bool = False
    """Whether every voxel is annotated, so that the online Dice needs no qualification."""
    seen_validation_cases: int = 0
    """Validation cases that the weights were trained on, here or before they came."""
    ranks: Ranks = ONE_PROCESS
    """The processes that train together; batches, loss and evidence are those of this one's share."""
    wrapped: nn.Module | None = None
    """The network as the training step calls it, so that gradients are averaged over ranks; None: as it is."""
    dropout_seed: int | None = None
    """Number that dropout follows from, together with the step; None for networks without dropout."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; with weights and optimiser all that is needed to go on."""

    iteration: int = 0
    epoch_loss: float = 0.0
    """Sum over the steps of the epoch under way."""
    epoch_seconds: float = 0.0
    """Time spent in the epoch under way."""
    records: tuple[EpochRecord, ...] = ()
    best: float | None = None
    """Highest smoothed Dice so far."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "iteration": self.iteration,
            "epoch_loss": self.epoch_loss,
            "epoch_seconds": self.epoch_seconds,
            "best": self.best,
            "records": [record.model_dump() for record in self.records],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """Inverse of :meth:`to_dict`."""
        return cls(**(values | {"records": tuple(EpochRecord.model_validate(item) for item in values["records"])}))


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the caller wants to hear of a run, and how it stops one."""

    on_steps: Callable[[Progress, float, float], None]
    """After some steps: (progress, latest loss, learning rate)."""
    on_epoch: Callable[[Progress, bool], None]
    """After an epoch: (progress, whether it is the best so far). Saves."""
    should_stop: Callable[[], bool]
    """Asked after every step; with several ranks after every few."""


def train(parts: Parts, config: TrainingConfig, progress: Progress, hooks: Hooks) -> Progress:
    """Train from ``progress`` to ``config.iterations``, or until ``hooks.should_stop``; return how far it came.

    Raises ``TrainingError`` when loss or weights are no longer finite; the latest checkpoint is then still good.
    """
    batches = parts.training_batches(progress.iteration)
    pending: list[Tensor] = []
    flushed = time.monotonic()
    started = flushed - progress.epoch_seconds
    for iteration in range(progress.iteration, config.iterations):
        rate = parts.optimization.set_learning_rate(iteration)
        pending.append(training_step(parts, next(batches), iteration, config.optimizer.gradient_clip))
        is_epoch = (iteration + 1) % config.iterations_per_epoch == 0 or iteration + 1 == config.iterations
        stop = _stops(parts.ranks, hooks, is_epoch or (iteration + 1) % FLUSH_EVERY == 0)
        is_due = len(pending) >= FLUSH_EVERY or time.monotonic() - flushed >= FLUSH_SECONDS
        if not (is_epoch or stop or is_due):
            continue
        losses = _read_losses(pending, iteration)
        pending.clear()
        flushed = time.monotonic()
        if is_epoch or stop:
            _check_weights(parts.network, iteration)
        progress = replace(
            progress,
            iteration=iteration + 1,
            epoch_loss=sum(losses, start=progress.epoch_loss),  # in order, so that a resumed sum is the same sum
            epoch_seconds=time.monotonic() - started,
        )
        hooks.on_steps(progress, losses[-1], rate)
        if is_epoch:
            progress, is_best = _end_epoch(parts, config, progress, rate)
            hooks.on_epoch(progress, is_best)
            started = time.monotonic()
        if stop:
            break
    return progress


def _stops(ranks: Ranks, hooks: Hooks, is_turn: bool) -> bool:
    """Whether all ranks stop now. Several ask each other only when it ``is_turn``: that makes their GPUs wait."""
    if ranks.size == 1:
        return hooks.should_stop()
    return is_turn and ranks.any(hooks.should_stop())


def training_step(parts: Parts, batch: Batch, iteration: int, gradient_clip: float) -> Tensor:
    """Do one optimiser step; return the detached loss, a scalar on the device."""
    batch = batch.to(parts.device)
    parts.network.train()
    if parts.dropout_seed is not None:
        torch.manual_seed(parts.dropout_seed + iteration)  # so that a resumed run draws the same
    parts.optimization.optimizer.zero_grad(set_to_none=True)
    step = Step(iteration, lambda network, images: _logits(parts, network, images)[0])
    evidence = drawn_evidence(batch)
    for source in parts.evidence:
        evidence = source.adjust(evidence, batch, step)
    logits = _logits(parts, parts.wrapped or parts.network, batch.network_input)
    loss = parts.loss(logits, parts.objective.target(evidence))
    scaler = parts.scaler
    torch.autograd.backward(scaler.scale(loss))
    scaler.unscale_(parts.optimization.optimizer)
    nn.utils.clip_grad_norm_(parts.network.parameters(), gradient_clip)
    scaler.step(parts.optimization.optimizer)
    scaler.update()
    for source in parts.evidence:
        source.observe(batch, logits[0].detach())
        source.follow(parts.network)
    return loss.detach()


@torch.inference_mode()
def validate(parts: Parts) -> tuple[float | None, list[float | None]]:
    """Return the mean loss over the validation batches and Dice per head, None where nothing was decided."""
    parts.network.eval()  # no dropout, running statistics of batch norm; deep supervision stays on for the loss
    losses: list[float | None] = []
    counts: Tensor | None = None
    for batch in parts.validation_batches():
        moved = batch.to(parts.device)
        logits = _logits(parts, parts.network, moved.network_input)
        loss = parts.loss(logits, parts.objective.target(drawn_evidence(moved)))
        seen = parts.objective.count(logits[0], moved.codes, moved.table.drawn)
        counts = seen if counts is None else counts + seen
        losses.append(loss.item())
    if counts is None:
        return None, [None] * parts.objective.task.labels.n_heads
    return mean_known(losses), dice_per_head(parts.ranks.sum(counts).cpu())


def _logits(parts: Parts, network: nn.Module, images: Tensor) -> list[Tensor]:
    """Logits per resolution, the full one first."""
    enabled = parts.autocast_dtype is not None
    with torch.autocast(parts.device.type, dtype=parts.autocast_dtype, enabled=enabled):
        output = network(images)
    return output if isinstance(output, list) else [output]


def _end_epoch(parts: Parts, config: TrainingConfig, progress: Progress, rate: float) -> tuple[Progress, bool]:
    started = time.monotonic()
    validation_loss, dice = validate(parts)
    labels = parts.objective.task.labels
    mean = mean_known([dice[head] for head in labels.foreground_heads])
    past = progress.records[-1] if progress.records else None
    smoothed = smooth(past.dice_smooth if past else None, mean)
    steps = progress.iteration - (past.iteration if past else 0)
    record = EpochRecord(
        epoch=len(progress.records) + 1,
        iteration=progress.iteration,
        train_loss=progress.epoch_loss / steps,
        validation_loss=validation_loss,
        dice=mean,
        dice_per_head={labels.heads[head].name: dice[head] for head in labels.foreground_heads},
        scored_on="dense" if parts.is_dense else "annotated voxels",
        seen_validation_cases=parts.seen_validation_cases,
        dice_smooth=smoothed,
        learning_rate=rate,
        seconds=progress.epoch_seconds + time.monotonic() - started,
    )
    is_best = smoothed is not None and (progress.best is None or smoothed > progress.best)
    best = smoothed if is_best else progress.best
    records = (*progress.records, record)
    return Progress(iteration=progress.iteration, records=records, best=best), is_best


def _read_losses(pending: list[Tensor], iteration: int) -> list[float]:
    """Return the losses of the last steps; raise when one is not finite."""
    losses: list[float] = torch.stack(pending).tolist()
    if not all(map(math.isfinite, losses)):
        wrong = next(loss for loss in losses if not math.isfinite(loss))
        raise TrainingError(f"training: the loss is {wrong} near iteration {iteration + 1}, expected a finite number")
    return losses


def _check_weights(network: nn.Module, iteration: int) -> None:
    """Raise before weights are saved that are no longer finite, as after one step of the last loss that was."""
    finite = [torch.isfinite(weights).all() for weights in network.parameters()]
    if not bool(torch.stack(finite).all()):
        raise TrainingError(f"training: found weights that are not finite after iteration {iteration + 1}")
