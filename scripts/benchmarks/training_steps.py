"""Our training measured: iterations per second as a run has them, and one by one where the time of a step goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from training_cases import N_CLASSES, labels

from autoseg.augmentation.recipes import nnunet_recipe
from autoseg.cases.store import CaseSource
from autoseg.core.plan import Configuration
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.compiling import compile_network
from autoseg.nn.device import tune_for_equal_shapes
from autoseg.nn.losses.label_sets import LabelSetLoss
from autoseg.nn.precision import choose_dtype
from autoseg.sampling import loader as loading
from autoseg.sampling.batch import Batch
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.loader import make_loader
from autoseg.tasks.semantic import Semantic
from autoseg.training.config import TrainingConfig
from autoseg.training.evidence.drawn import drawn_evidence
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.objective import Objective
from autoseg.training.optim import build_optimization
from autoseg.training.trainer import Parts, training_step


@dataclass
class Clock:
    """Seconds by name; with ``waits`` the device is waited for before and after whatever is timed."""

    device: torch.device
    waits: bool = True
    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Run ``work`` and add its time to ``name``."""
        if self.waits:
            synchronise(self.device)
        started = time.perf_counter()
        result = work()
        if self.waits:
            synchronise(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        return result


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def build(configuration: Configuration, device: torch.device, *, compiles: bool) -> tuple[Parts, dict[str, Any]]:
    """Return the parts of a run of nnU-Net's optimiser, and what was chosen for it."""
    torch.manual_seed(0)
    tune_for_equal_shapes(device)
    network = build_network(configuration.topology, 1, N_CLASSES).to(device)
    shape = (configuration.batch_size, 1, *configuration.patch_size)
    dtype = choose_dtype(lambda: network, shape, device)
    started = time.perf_counter()
    is_compiled = compiles and compile_network(network, shape, device, dtype)
    config = TrainingConfig(optimizer="sgd", iterations=250_000)
    known = labels()
    parts = Parts(
        network=network,
        loss=EvidenceLoss(LabelSetLoss(None, configuration.batch_dice), network.output_strides, known.unknown),
        optimization=build_optimization(network, config.optimizer, config.iterations),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        device=device,
        autocast_dtype=dtype,
        training_batches=lambda start: iter(()),
        validation_batches=lambda: iter(()),
        objective=Objective(Semantic(known), device),
    )
    parts.optimization.set_learning_rate(0)
    chosen = {"precision": str(dtype or torch.float32).removeprefix("torch."), "compiled": is_compiled}
    return parts, chosen | {"compile_s": round(time.perf_counter() - started, 1)}


def batches(
    sources: list[CaseSource], configuration: Configuration, device: torch.device, workers: int, start: int, stop: int
) -> Iterator[Batch]:
    """Return augmented batches, as a run gets them."""
    return make_loader(
        sources, configuration, SamplingConfig(), nnunet_recipe(configuration), labels=labels(), start=start,
        stop=stop, seed=0, workers=workers, device=None if device.type == "cpu" else device,
    )  # fmt: skip


def throughput(parts: Parts, stream: Iterator[Batch], warmup: int, steps: int) -> dict[str, Any]:
    """Return iterations per second of ``steps`` free-running steps, the processor time of one in s, and losses.

    Also the share of time in which the program waited for workers, what it does itself with a batch not counted: at
    most so long a GPU was without work.
    """
    losses: list[Tensor] = []
    started, computed, clock = 0.0, 0.0, Clock(parts.device, waits=False)
    with timed_augmentation(clock):
        for index in range(warmup + steps):
            if index == warmup:
                synchronise(parts.device)
                clock.seconds.clear()
                started, computed = time.perf_counter(), time.process_time()
            batch = clock.time("data", lambda: next(stream))
            losses.append(training_step(parts, batch, index, 12.0).loss)
        synchronise(parts.device)
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - computed
    waited = clock.seconds["data"] - clock.seconds.get("augment", 0.0)
    values = torch.stack(losses).tolist()
    return {
        "iterations_per_s": steps / seconds,
        "processor_s": processor_seconds / steps,
        "data_wait_share": waited / seconds,
        "first_loss": values[0],
        "last_loss": sum(values[-3:]) / len(values[-3:]),
    }


def split(parts: Parts, stream: Iterator[Batch], steps: int) -> dict[str, float]:
    """Return the mean milliseconds of each part of a step, the device waited for in between."""
    clock = Clock(parts.device)
    with timed_augmentation(clock):
        for _ in range(steps):
            inside = clock.seconds.get("augment", 0.0)
            batch = clock.time("data wait", lambda: next(stream))
            clock.seconds["data wait"] -= clock.seconds.get("augment", 0.0) - inside
            _timed_step(parts, batch.to(parts.device), clock)
    return {name: 1000 * seconds / steps for name, seconds in clock.seconds.items()}


class timed_augmentation:  # noqa: N801 (used as a statement)
    """Time what a device does to raw batches; on the CPU workers do it, and it is in the wait for data."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.moved, self.augment = loading.RawBatch.moved, loading.augment_batch_

    def __enter__(self) -> None:
        """Put the clock around moving and changing intensities."""
        clock, moved, augment = self.clock, self.moved, self.augment
        loading.RawBatch.moved = lambda raw: clock.time("augment", lambda: moved(raw))

        def timed(batch: Batch, *further: Any) -> None:
            if batch.images.device.type == "cpu":
                augment(batch, *further)
            else:
                clock.time("augment", lambda: augment(batch, *further))

        loading.augment_batch_ = timed

    def __exit__(self, *error: object) -> None:
        """Take it away."""
        loading.RawBatch.moved, loading.augment_batch_ = self.moved, self.augment


def _timed_step(parts: Parts, batch: Batch, clock: Clock) -> None:
    """Do what ``training_step`` does for a run without further evidence, part by part."""
    optimizer = parts.optimization.optimizer
    optimizer.zero_grad(set_to_none=True)

    def forward() -> Any:
        with torch.autocast(parts.device.type, dtype=parts.autocast_dtype, enabled=parts.autocast_dtype is not None):
            return parts.network(batch.network_input)

    def backward() -> None:
        torch.autograd.backward(parts.scaler.scale(loss))

    def update() -> None:
        parts.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parts.network.parameters(), 12.0)
        parts.scaler.step(optimizer)
        parts.scaler.update()

    logits = clock.time("forward", forward)
    loss = clock.time("loss", lambda: parts.loss(logits, parts.objective.target(drawn_evidence(batch))))
    clock.time("backward", backward)
    clock.time("optimiser", update)
