"""Optimiser and learning rate, chosen to fit the length of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from autoseg.core.components import resolve
from autoseg.training.config import TrainingConfig
from autoseg.training.muon import Muon

LONG_RUN = 50_000
"""Runs of at least so many steps take nnU-Net's optimiser, which was tuned for 250,000; shorter ones Muon."""


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """One way to train: how to build the optimiser, and its learning rate over the run."""

    build: Callable[[Iterable[nn.Parameter], float, float], torch.optim.Optimizer]
    """(parameters, learning rate, weight decay) -> optimiser."""
    learning_rate: float
    weight_decay: float
    warmup_iterations: int
    """Linear, from 0; at most a tenth of the run."""
    decay: Callable[[float], float]
    """Share of the run done after warm-up (0 to 1) -> factor of the learning rate."""


def _sgd(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, learning_rate, momentum=0.99, nesterov=True, weight_decay=weight_decay)


def _adamw(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, learning_rate, weight_decay=weight_decay)


def _muon(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return Muon(parameters, learning_rate, weight_decay)


def _polynomial(done: float) -> float:
    return math.pow(1 - done, 0.9)


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def nnunet_sgd() -> OptimizerSettings:
    """Return SGD 0.01 with Nesterov momentum 0.99 and polynomial decay. Source: nnU-Net ``nnUNetTrainer.py``.

    Differs in that the rate falls with every step, not once per epoch.
    """
    return OptimizerSettings(_sgd, 1e-2, 3e-5, 0, _polynomial)


def adamw() -> OptimizerSettings:
    """Return AdamW 2e-3 with a short warm-up and cosine decay, for runs too short for momentum 0.99."""
    return OptimizerSettings(_adamw, 2e-3, 1e-2, 50, _cosine)


def muon() -> OptimizerSettings:
    """Return Muon 4e-3 with the schedule of :func:`adamw`, which it beats in short runs (docs/results.md)."""
    return OptimizerSettings(_muon, 4e-3, 1e-2, 50, _cosine)


BUILT_IN: dict[str, Callable[..., OptimizerSettings]] = {"sgd": nnunet_sgd, "adamw": adamw, "muon": muon}


def optimizer_name(config: TrainingConfig) -> str:
    """Return the optimiser's name, with ``auto`` decided by the length of the run."""
    if config.optimizer != "auto":
        return config.optimizer
    return "sgd" if config.iterations >= LONG_RUN else "muon"


def own_learning_rate(config: TrainingConfig) -> float:
    """Return the highest learning rate of the optimiser where ``config`` sets none."""
    settings: OptimizerSettings = resolve("optimizer", optimizer_name(config), BUILT_IN)()
    return settings.learning_rate


@dataclass(frozen=True, slots=True)
class Optimization:
    """An optimiser and its learning rate at every step."""

    optimizer: torch.optim.Optimizer
    learning_rate_at: Callable[[int], float]

    def set_learning_rate(self, iteration: int) -> float:
        """Set the rate of step ``iteration`` (from 0) and return it."""
        rate = self.learning_rate_at(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate


def build_optimization(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> Optimization:
    """Build what ``config`` asks for; the schedule spans ``config.iterations`` steps and ends near 0."""
    settings: OptimizerSettings = resolve("optimizer", optimizer_name(config), BUILT_IN)()
    top = settings.learning_rate if config.learning_rate is None else config.learning_rate
    decay = settings.weight_decay if config.weight_decay is None else config.weight_decay
    warmup = settings.warmup_iterations if config.warmup_iterations is None else config.warmup_iterations
    warmup = min(warmup, config.iterations // 10)

    def learning_rate_at(iteration: int) -> float:
        if iteration < warmup:
            return top * (iteration + 1) / (warmup + 1)
        return top * settings.decay((iteration - warmup) / max(1, config.iterations - warmup))

    return Optimization(settings.build(parameters, top, decay), learning_rate_at)
