"""Registry of losses by name, and the trial of a loss that is not built in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autoseg.core.components import call_component, resolve
from autoseg.core.errors import ConfigError
from autoseg.nn.losses.label_sets import AllReduce, LabelSetLoss, VoxelLoss, no_reduction
from autoseg.nn.losses.numbers import AbsoluteError, NumberLoss, SquaredError

log = logging.getLogger(__name__)

LOSSES: dict[str, Callable[..., VoxelLoss]] = {"label_sets": LabelSetLoss}
"""(regions (O, K) bool or None for a softmax over outputs, whether Dice pools the batch, sum over ranks, and by keyword
the weights (O,) of the outputs or None) -> loss."""
NUMBER_LOSSES: dict[str, Callable[[AllReduce], NumberLoss]] = {"l2": SquaredError, "l1": AbsoluteError}
"""Losses of a regression: (sum over ranks) -> loss."""
CPU = torch.device("cpu")
TRIAL_EDGE = 8
"""Edge of the patches with which a user's loss is tried, voxels."""


def named_loss(
    name: str,
    regions: Tensor | None,
    batch_dice: bool,
    all_reduce: AllReduce = no_reduction,
    *,
    n_outputs: int,
    n_dims: int,
    weights: Tensor | None = None,
    device: torch.device = CPU,
) -> VoxelLoss:
    """Return the loss ``name``: built in, an entry point, or ``package.module:attribute``.

    A loss that is not built in is tried on a tiny batch (:func:`try_loss`).

    Parameters
    ----------
    name
        As in the run's configuration.
    regions
        (O, K) bool, or None for a softmax over outputs.
    batch_dice
        Whether Dice pools the batch.
    all_reduce
        Sums over ranks; the trial is of one rank.
    n_outputs
        Outputs of the network, O.
    n_dims
        Axes of a patch, 2 or 3.
    weights
        (O,) weights of the outputs in the cross entropy of a built-in loss; others take none. None: all 1.
    device
        Where logits will lie, and ``regions`` do.

    Raises
    ------
    ConfigError
        If there is no such loss, or if the trial fails.
    """
    if name in LOSSES:
        return LOSSES[name](regions, batch_dice, all_reduce, weights=weights)
    factory = resolve("loss", name, LOSSES, needs=("__call__",))
    trial = call_component("loss", name, factory, regions, batch_dice, no_reduction)
    try_loss(name, trial, regions, n_outputs, n_dims, device)
    loss: VoxelLoss = call_component("loss", name, factory, regions, batch_dice, all_reduce)
    return loss


def named_number_loss(
    name: str, all_reduce: AllReduce = no_reduction, *, n_outputs: int, n_dims: int, device: torch.device = CPU
) -> NumberLoss:
    """Return the loss ``name`` of a regression: l2, l1, an entry point, or ``package.module:attribute``.

    Parameters and errors as for :func:`named_loss`. A loss that is not built in is tried on a tiny batch, with and
    without known voxels.
    """
    factory = resolve("loss", name, NUMBER_LOSSES, needs=("__call__",))
    if name not in NUMBER_LOSSES:
        _try_number_loss(name, call_component("loss", name, factory, no_reduction), n_outputs, n_dims, device)
    loss: NumberLoss = call_component("loss", name, factory, all_reduce)
    return loss


def try_loss(
    name: str, loss: Any, regions: Tensor | None, n_outputs: int, n_dims: int, device: torch.device = CPU
) -> None:
    """Call a user's loss on random logits of a tiny batch, with and without weights of voxels.

    Parameters as for :func:`named_loss`. The state of torch's generators is the same afterwards. A loss whose value
    depends on voxels of which nothing is known is named in a warning.

    Raises
    ------
    ConfigError
        If it raises an exception, or returns anything but a finite differentiable scalar.
    """
    if not callable(loss):
        raise ConfigError(
            f"loss {name!r}: it made an object of {type(loss).__name__}, expected a class with a method __call__"
            "(logits, codes, label_sets, voxel_weights=None). docs/extending.md has an example."
        )
    generator = torch.Generator().manual_seed(0)
    shape = (TRIAL_EDGE,) * n_dims
    n_classes = n_outputs if regions is None else regions.shape[1]
    sets = torch.cat([torch.eye(n_classes, dtype=torch.bool), torch.ones(1, n_classes, dtype=torch.bool)])
    label_sets = sets.expand(2, -1, -1).to(device)  # (B, N, K): each class, and "nothing known"
    codes = torch.randint(n_classes + 1, (2, *shape), generator=generator).to(device)
    logits = torch.randn(2, n_outputs, *shape, generator=generator).to(device)
    weights = torch.rand(2, *shape, generator=generator).to(device)
    is_unknown = (codes == n_classes)[:, None]  # (B, 1, *P)
    nothing_known = torch.full_like(codes, n_classes)
    has_warned = False
    for further in ((), (weights,)):
        values = []
        for change in (0.0, 1.0):
            noise = change * torch.randn(logits.shape, generator=generator).to(device)
            tried = (logits + noise * is_unknown).requires_grad_()
            values.append(_try_once(name, loss, tried, codes, label_sets, *further))
        _try_once(name, loss, logits.clone().requires_grad_(), nothing_known, label_sets, *further)
        if abs(values[1] - values[0]) > 1e-4 * max(1.0, abs(values[0])) and not has_warned:
            has_warned = True
            log.warning(
                "loss %r: found %.6g, and %.6g with other logits where nothing is known (label sets of all classes),"
                " expected the same: unannotated voxels are trained with it. Leave these voxels out of its sums, "
                "unless that is meant.", name, *values,
            )  # fmt: skip


def _try_number_loss(name: str, loss: Any, n_outputs: int, n_dims: int, device: torch.device) -> None:
    """Call a user's loss of a regression on random outputs of a tiny batch; warn if unknown voxels change its value."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, n_outputs, *(TRIAL_EDGE,) * n_dims)
    outputs, noise, numbers = (torch.randn(shape, generator=generator).to(device) for _ in range(3))
    is_unknown = (torch.rand(shape, generator=generator) < 0.5).to(device)
    partial_numbers = numbers.masked_fill(is_unknown, torch.nan)
    values = [
        _checked_value(name, loss, "a batch", tried.clone().requires_grad_(), partial_numbers)
        for tried in (outputs, outputs + noise * is_unknown)
    ]
    unknown = torch.full_like(numbers, torch.nan)
    _checked_value(name, loss, "a batch of which nothing is known", outputs.requires_grad_(), unknown, may_rest=True)
    if abs(values[1] - values[0]) > 1e-4 * max(1.0, abs(values[0])):
        log.warning(
            "loss %r: found %.6g, and %.6g with other outputs where no number is known (NaN), expected the same. Leave "
            "these voxels out of its sums.", name, *values,
        )  # fmt: skip


def _try_once(name: str, loss: Any, logits: Tensor, codes: Tensor, label_sets: Tensor, *weights: Tensor) -> float:
    """Return the loss of logits (B, O, *P); raise ``ConfigError`` unless it is a number that they can be trained by.

    Parameters as for :class:`VoxelLoss`. Where nothing is known of any voxel, the gradient may be 0.
    """
    is_annotated = bool(codes.min() < codes.max())
    given = f"{'a batch' if is_annotated else 'a batch of which nothing is known'}, " + (
        "with voxel_weights" if weights else "without voxel_weights"
    )
    return _checked_value(name, loss, given, logits, codes, label_sets, *weights, may_rest=not is_annotated)


def _checked_value(name: str, loss: Any, given: str, logits: Tensor, *target: Tensor, may_rest: bool = False) -> float:
    """Return the loss of logits; raise ``ConfigError`` unless it is a number that they can be trained by.

    ``given`` describes the ``target``; with ``may_rest``, the gradient may be 0.
    """
    devices = [logits.device] if logits.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        value = call_component("loss", name, loss, logits, *target)
        found = _fault(value)
        if not found:
            gradient = call_component("loss", name, partial(torch.autograd.grad, allow_unused=True), value, logits)[0]
            if gradient is not None and not bool(torch.isfinite(gradient).all()):
                found = "a number whose gradient is not finite"
            elif not may_rest and (gradient is None or not gradient.any()):
                found = "a number that does not depend on the logits, by which nothing would be trained"
    if found:
        raise ConfigError(
            f"loss {name!r}: for {given}, it returned {found}, expected one finite number as a tensor of shape () that "
            "follows from the logits by differentiable functions. Correct the loss, for example with .mean(), without "
            ".detach(), with .clamp_min(1) where it divides by a count of voxels."
        )
    return float(value.detach())


def _fault(value: Any) -> str:
    """Return in words what is wrong with the value of a loss, "" if nothing is."""
    if not isinstance(value, Tensor):
        return f"an object of {type(value).__name__}"
    if value.ndim != 0 or not value.is_floating_point():
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    if not value.requires_grad:
        return "a tensor without gradient, by which nothing would be trained"
    return "" if bool(torch.isfinite(value)) else str(value.item())
