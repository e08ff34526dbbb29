"""Optimiser and learning rate of a run."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from autoseg.core.components import call_component, resolve
from autoseg.core.errors import ConfigError
from autoseg.training.muon import Muon
from autoseg.training.schedules import SCHEDULES, Schedule, parse_table, rate_from_table

log = logging.getLogger(__name__)

LONG_RUN = 50_000
"""Runs of at least so many steps take nnU-Net's optimiser, which was tuned for 250,000; shorter ones Muon."""


class OptimizerConfig(BaseModel):
    """Settings of the optimiser and the learning rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "auto"
    """auto (sgd for runs of 50,000 steps or more, otherwise muon), sgd (nnU-Net's), adamw, adam, muon, rmsprop, rprop,
    lbfgs, or package.module:attribute."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate; None takes the optimiser's own."""
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Of sgd, muon and rmsprop, and the first beta of adam and adamw; None takes the optimiser's own."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Not applied to biases and norms; None takes the optimiser's own."""
    warmup_iterations: int | None = Field(default=None, ge=0)
    """Steps of linear warm-up, at most a tenth of the run; None takes the optimiser's own."""
    schedule: Literal["auto", "poly", "cosine", "exponential", "constant"] = "auto"
    """Learning rate after the warm-up; auto takes the optimiser's own."""
    decay_per_1000: float = Field(default=0.993, gt=0, le=1)
    """Factor of the learning rate per 1000 steps, for schedule=exponential."""
    table: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[float, Field(gt=0)]], ...] = ()
    """STEP:RATE,STEP:RATE: learning rates from these steps on; with schedule=exponential the rate decays from there,
    otherwise it stays until the next entry. Before the first entry the schedule holds. Empty: the schedule alone."""
    gradient_clip: float = Field(default=12.0, gt=0)
    """Largest norm of the gradient. Source: nnU-Net."""
    weight_average: float = Field(default=0.0, ge=0, lt=1)
    """Decay per step of the mean of past weights, which is then what is validated and saved as final. 0 is none."""

    @field_validator("table", mode="before")
    @classmethod
    def _table_from_text(cls, value: Any) -> Any:
        return parse_table(value) if isinstance(value, str) and value else value or ()

    @field_validator("table")
    @classmethod
    def _in_order(cls, table: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        if len({step for step, _ in table}) < len(table):
            raise ValueError("expected each step once")
        return tuple(sorted(table))


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """One way to train: how to build the optimiser, and its learning rate over the run."""

    build: Callable[..., torch.optim.Optimizer]
    """(parameter groups, learning rate, weight decay, momentum) -> optimiser."""
    learning_rate: float
    weight_decay: float
    warmup_iterations: int = 0
    """Linear, from 0; at most a tenth of the run."""
    schedule: str = "constant"
    """Key of ``SCHEDULES``."""
    momentum: float = 0.9
    needs_closure: bool = False
    """Whether a step computes the loss several times: no float16 scaler, and slower by as much."""


def nnunet_sgd() -> OptimizerSettings:
    """Return SGD 0.01 with Nesterov momentum 0.99 and polynomial decay. Source: nnU-Net ``nnUNetTrainer.py``.

    Differs in that the rate falls with every step, not once per epoch, and biases and norms do not decay.
    """
    return OptimizerSettings(_sgd, 1e-2, 3e-5, 0, "poly", 0.99)


def adamw() -> OptimizerSettings:
    """Return AdamW 2e-3 with a short warm-up and cosine decay, for runs too short for momentum 0.99."""
    return OptimizerSettings(_adamw, 2e-3, 1e-2, 50, "cosine")


def muon() -> OptimizerSettings:
    """Return Muon 4e-3 with the schedule of :func:`adamw`, which it beats in short runs (docs/results.md)."""
    return OptimizerSettings(_muon, 4e-3, 1e-2, 50, "cosine", 0.95)


BUILT_IN: Mapping[str, Callable[[], OptimizerSettings]] = {
    "sgd": nnunet_sgd,
    "adamw": adamw,
    "muon": muon,
    "adam": lambda: OptimizerSettings(_adam, 1e-3, 0.0, 50, "cosine"),
    "rmsprop": lambda: OptimizerSettings(_rmsprop, 1e-3, 0.0, 50, "cosine", 0.0),
    "rprop": lambda: OptimizerSettings(_rprop, 1e-3, 0.0),
    "lbfgs": lambda: OptimizerSettings(_lbfgs, 0.1, 0.0, needs_closure=True),
}


def optimizer_name(config: OptimizerConfig, iterations: int) -> str:
    """Return the optimiser's name, with ``auto`` decided by the length of the run."""
    if config.name != "auto":
        return config.name
    return "sgd" if iterations >= LONG_RUN else "muon"


def optimizer_settings(config: OptimizerConfig, iterations: int) -> OptimizerSettings:
    """Return the settings of the optimiser, those of ``config`` in place of its own.

    Raises ``ConfigError`` for a name that is not known, and for a function of a user that returns something else.
    """
    name = optimizer_name(config, iterations)
    own = call_component("optimizer", name, resolve("optimizer", name, dict(BUILT_IN), needs=("__call__",)))
    if not isinstance(own, OptimizerSettings):
        raise _unexpected(name, f"a function that returned {own!r}", "one that returns OptimizerSettings")
    if own.schedule not in SCHEDULES:
        raise _unexpected(name, f"schedule={own.schedule!r}", f"one of {sorted(SCHEDULES)}")
    if not callable(own.build):
        raise _unexpected(name, f"build={own.build!r}", "a function")
    return replace(
        own,
        learning_rate=own.learning_rate if config.learning_rate is None else config.learning_rate,
        weight_decay=own.weight_decay if config.weight_decay is None else config.weight_decay,
        warmup_iterations=own.warmup_iterations if config.warmup_iterations is None else config.warmup_iterations,
        momentum=own.momentum if config.momentum is None else config.momentum,
        schedule=own.schedule if config.schedule == "auto" else config.schedule,
    )


@dataclass
class Optimization:
    """An optimiser and its learning rate at every step."""

    optimizer: torch.optim.Optimizer
    settings: OptimizerSettings
    config: OptimizerConfig
    iterations: int
    """Length of the run in steps, which the schedule spans."""

    def learning_rate_at(self, iteration: int, time_share: float = 0.0) -> float:
        """Return the learning rate of step ``iteration``, from 0.

        Parameters
        ----------
        time_share
            Share of the time limit of the run that has passed, 0 to 1; 0 without a limit. The schedule follows
            whichever is further, steps or time, so that a run that ends by time ends with a low rate, too.
        """
        top, warmup = self.settings.learning_rate, min(self.settings.warmup_iterations, self.iterations // 10)
        schedule: Schedule = SCHEDULES[self.settings.schedule](self.config.decay_per_1000)
        entry = rate_from_table(self.config.table, iteration)
        if entry is not None:
            rate, since = entry
            return rate * schedule(0.0, iteration - since) if self.settings.schedule == "exponential" else rate
        if iteration < warmup:
            return top * (iteration + 1) / (warmup + 1)
        done = (iteration - warmup) / max(1, self.iterations - warmup)
        return top * schedule(max(done, time_share), iteration - warmup)

    def apply_settings(self) -> None:
        """Let the optimiser have the momentum and weight decay of ``settings``, which changed.

        Weights of one axis do not decay, as in :func:`build_optimization`.
        """
        momentum = self.settings.momentum
        for group in self.optimizer.param_groups:
            if "weight_decay" in group and any(weight.ndim > 1 for weight in group["params"]):
                group["weight_decay"] = self.settings.weight_decay
            if "momentum" in group:
                group["momentum"] = momentum
            if "nesterov" in group:
                group["nesterov"] = momentum > 0
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state of the optimiser of a checkpoint, which may come from another device.

        Whether one kernel updates all weights (``fused``) stays as built, because it depends on the device.
        """
        groups = [
            {**stored, "fused": own["fused"]} if "fused" in own else stored
            for stored, own in zip(state["param_groups"], self.optimizer.param_groups, strict=False)
        ]
        self.optimizer.load_state_dict({**state, "param_groups": groups})

    def set_learning_rate(self, iteration: int, time_share: float = 0.0) -> float:
        """Set the rate of step ``iteration`` (from 0) and return it; see :meth:`learning_rate_at`."""
        rate = self.learning_rate_at(iteration, time_share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate


def build_optimization(network: nn.Module, config: OptimizerConfig, iterations: int) -> Optimization:
    """Build the optimiser of ``network`` and its learning-rate schedule over ``iterations`` steps.

    Weights of one axis (biases, scales and shifts of norms) do not decay: decay would pull a norm's scale to 0 and adds
    nothing where no capacity is.
    """
    settings = optimizer_settings(config, iterations)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    name = optimizer_name(config, iterations)
    optimizer = call_component(
        "optimizer", name, settings.build, groups, settings.learning_rate, settings.weight_decay, settings.momentum
    )
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise _unexpected(name, f"a function build that returned {optimizer!r}", "one that returns a torch optimiser")
    return Optimization(optimizer, settings, config, iterations)


def _unexpected(name: str, found: str, expected: str) -> ConfigError:
    return ConfigError(f"optimizer {name!r}: found {found}, expected {expected}. docs/extending.md has an example.")


def _sgd(groups: Iterable[Any], rate: float, decay: float, momentum: float) -> torch.optim.Optimizer:
    return _fused(torch.optim.SGD, groups, rate, momentum=momentum, nesterov=momentum > 0, weight_decay=decay)


def _adamw(groups: Iterable[Any], rate: float, decay: float, momentum: float) -> torch.optim.Optimizer:
    return _fused(torch.optim.AdamW, groups, rate, betas=(momentum, 0.999), weight_decay=decay)


def _adam(groups: Iterable[Any], rate: float, decay: float, momentum: float) -> torch.optim.Optimizer:
    return _fused(torch.optim.Adam, groups, rate, betas=(momentum, 0.999), weight_decay=decay)


def _fused(
    optimizer: Callable[..., torch.optim.Optimizer], groups: Iterable[Any], rate: float, **options: Any
) -> torch.optim.Optimizer:
    """Return the optimiser that updates all weights in one kernel if they are on CUDA and this torch has it."""
    groups = list(groups)
    on_cuda = all(weight.device.type == "cuda" for group in groups for weight in group["params"])
    if on_cuda and "fused" in inspect.signature(optimizer).parameters:
        options["fused"] = True
    return optimizer(groups, rate, **options)


def _muon(groups: Iterable[Any], rate: float, decay: float, momentum: float) -> torch.optim.Optimizer:
    return Muon(groups, rate, decay, momentum)


def _rmsprop(groups: Iterable[Any], rate: float, decay: float, momentum: float) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, rate, momentum=momentum, weight_decay=decay)


def _rprop(groups: Iterable[Any], rate: float, decay: float, momentum: float) -> torch.optim.Optimizer:
    """Rprop with ELEKTRONN's factors and limits; a step per weight, so made for batches that hardly vary."""
    without_decay = [{"params": group["params"]} for group in groups]
    return torch.optim.Rprop(without_decay, rate, etas=(0.65, 1.2), step_sizes=(1e-7, 2e-3))


def _lbfgs(groups: Iterable[Any], rate: float, decay: float, momentum: float) -> torch.optim.Optimizer:
    """L-BFGS on one batch at a time, with the numbers of ELEKTRONN (4 iterations, 40 evaluations, memory of 10)."""
    weights = [weight for group in groups for weight in group["params"]]
    return torch.optim.LBFGS(weights, rate, max_iter=4, max_eval=40, history_size=10, line_search_fn="strong_wolfe")
