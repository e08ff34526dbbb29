"""Steps of a training: one optimisation step, a validation, and the check of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autoseg.core.errors import TrainingError
from autoseg.core.means import mean_known
from autoseg.core.ranks import ONE_PROCESS, Ranks
from autoseg.sampling.batch import Batch
from autoseg.training.evidence.drawn import drawn_evidence
from autoseg.training.evidence.source import Evidence, EvidenceSource, Step
from autoseg.training.objective import AnyObjective
from autoseg.training.optim import Optimization
from autoseg.training.progress import Progress
from autoseg.training.weight_average import WeightAverage

TURN = 10
"""Several ranks agree on whether they stop once in so many steps: that makes their GPUs wait."""


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
    objective: AnyObjective
    """Demands of the task on the network's outputs."""
    evidence: tuple[EvidenceSource, ...] = ()
    """Sources of evidence for unannotated voxels, in their order; () trains on annotation alone."""
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
    monitor_batches: Callable[[], Iterator[Batch]] = lambda: iter(())
    """As the validation batches, but of training cases."""
    average: WeightAverage | None = None
    """Mean of past weights, which is then what is validated and saved as best and final."""


class StepResult(NamedTuple):
    """Results of one step: scalars on the device, detached."""

    loss: Tensor
    gradient_norm: Tensor
    """Before it is clipped."""


@dataclass(frozen=True, slots=True)
class Console:
    """Place where a user may give commands while the run waits between two steps."""

    is_wanted: Callable[[], bool]
    """Whether the user asked for it; asked after every step."""
    talk: Callable[[Callable[[str], str], Callable[[], bool]], None]
    """Talks with the user, given (command line -> answer, whether the console is to be left), until it returns."""
    run_code: Callable[[str, Mapping[str, object]], str] | None = None
    """(one line of Python, names that it may use) -> what it printed; None where the user did not allow that."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions of the caller that hear of a run and steer it."""

    on_steps: Callable[[Progress, float, float], None]
    """After some steps: (progress, latest loss, learning rate)."""
    should_stop: Callable[[], bool]
    """Asked after every step; with several ranks after every few."""
    console: Console | None = None


def training_step(parts: Parts, batch: Batch, iteration: int, gradient_clip: float) -> StepResult:
    """Do one optimiser step; return its loss and the norm of its gradient.

    If the gradient is not finite, it adds nothing: the step is not done on the CPU, and by the scaler with float16;
    elsewhere it is done with a gradient of 0, so that momentum and weight decay still move the weights.
    """
    batch = batch.to(parts.device)
    parts.network.train()
    if parts.dropout_seed is not None:
        torch.manual_seed(parts.dropout_seed + iteration)  # so that a resumed run draws the same
    step = Step(iteration, lambda network, images: _logits(parts, network, images)[0])
    evidence = drawn_evidence(batch)
    for source in parts.evidence:
        evidence = source.adjust(evidence, batch, step)
    target = parts.objective.target(evidence)
    optimizer, scaler = parts.optimization.optimizer, parts.scaler

    def evaluate() -> tuple[Tensor, Tensor, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        logits = _logits(parts, parts.wrapped or parts.network, batch.network_input)
        loss = parts.loss(logits, target)
        torch.autograd.backward(scaler.scale(loss))
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parts.network.parameters(), gradient_clip)
        return loss.detach(), norm.detach(), logits[0].detach()

    loss, norm, logits = evaluate()
    result = StepResult(loss, norm)
    if not scaler.is_enabled():
        if parts.device.type == "cpu" and not torch.isfinite(norm):
            return result
        if parts.device.type != "cpu":
            logits = _without_bad_gradient(parts.network, norm, logits)
    if parts.optimization.settings.needs_closure:
        optimizer.step(lambda: evaluate()[0].item())
    else:
        scaler.step(optimizer)
        scaler.update()
    if parts.average is not None:
        parts.average.update(parts.network)
    for source in parts.evidence:
        source.observe(batch, logits)
        source.follow(parts.network)
    return result


def _without_bad_gradient(network: nn.Module, norm: Tensor, logits: Tensor) -> Tensor:
    """Set gradients to 0 if their ``norm`` is not finite, and return logits that are then 0, without a wait."""
    is_bad = ~torch.isfinite(norm)
    for weights in network.parameters():
        if weights.grad is not None:
            weights.grad.masked_fill_(is_bad, 0)
    return logits.masked_fill(is_bad, 0)


@torch.inference_mode()
def validate(parts: Parts, batches: Iterator[Batch]) -> tuple[float | None, list[float | None]]:
    """Return the mean loss over batches and the score of each row, None where nothing was decided."""
    parts.network.eval()  # no dropout, running statistics of batch norm; deep supervision stays on for the loss
    losses: list[float | None] = []
    counts: Tensor | None = None
    for batch in batches:
        moved = batch.to(parts.device)
        logits = _logits(parts, parts.network, moved.network_input)
        loss = parts.loss(logits, parts.objective.target(drawn_evidence(moved)))
        seen = parts.objective.count(logits[0], moved)
        counts = seen if counts is None else counts + seen
        losses.append(loss.item())
    if counts is None:
        return None, [None] * parts.objective.labels.n_heads
    return mean_known(losses), list(parts.objective.score(parts.ranks.sum(counts).cpu()))


def check_weights(network: nn.Module, iteration: int) -> None:
    """Raise ``TrainingError`` before weights are saved that are not finite, as after the last step whose loss was."""
    finite = [torch.isfinite(weights).all() for weights in network.parameters()]
    if not bool(torch.stack(finite).all()):
        raise TrainingError(f"training: found weights that are not finite after iteration {iteration}")


def _logits(parts: Parts, network: nn.Module, images: Tensor) -> list[Tensor]:
    """Logits per resolution, the full one first."""
    enabled = parts.autocast_dtype is not None
    with torch.autocast(parts.device.type, dtype=parts.autocast_dtype, enabled=enabled):
        output = network(images)
    return output if isinstance(output, list) else [output]
