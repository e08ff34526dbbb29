"""Losses of a regression: on voxels whose number is known, at one resolution and with deep supervision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.nn.losses.deep_supervision import deep_supervision_weights
from autoseg.nn.losses.label_sets import AllReduce, no_reduction


class NumberLoss(Protocol):
    """Loss of numbers at one resolution, with the arguments that training gives."""

    def __call__(self, outputs: Tensor, numbers: Tensor, /) -> Tensor:
        """Return the scalar loss of outputs (B, R, *P) against numbers (B, R, *P) float32, NaN where unknown."""


class SquaredError:
    """Mean squared error over known (voxel, target) pairs of the batch and of all ranks: masked L2.

    Unknown voxels have loss and gradient exactly 0. Without a known voxel the loss is 0.

    Parameters
    ----------
    all_reduce
        Sums over ranks, see :data:`autoseg.nn.losses.label_sets.AllReduce`.
    """

    def __init__(self, all_reduce: AllReduce = no_reduction) -> None:
        self.all_reduce = all_reduce

    def __call__(self, outputs: Tensor, numbers: Tensor) -> Tensor:
        """Return the scalar loss of outputs (B, R, *P) against numbers (B, R, *P), NaN where unknown."""
        return _known_mean(outputs, numbers, torch.square, self.all_reduce)


class AbsoluteError:
    """Mean absolute error over known (voxel, target) pairs, otherwise as :class:`SquaredError`: masked L1."""

    def __init__(self, all_reduce: AllReduce = no_reduction) -> None:
        self.all_reduce = all_reduce

    def __call__(self, outputs: Tensor, numbers: Tensor) -> Tensor:
        """Return the scalar loss of outputs (B, R, *P) against numbers (B, R, *P), NaN where unknown."""
        return _known_mean(outputs, numbers, torch.abs, self.all_reduce)


class NumberSupervision:
    """Loss over the outputs of all decoder stages, weighted as for classes.

    Parameters
    ----------
    loss
        Loss of one output.
    scales
        Patch voxels per output voxel of each output, full resolution first: ``network.output_strides``. None for
        networks with one output.
    """

    def __init__(self, loss: NumberLoss, scales: Sequence[Sequence[int]] | None) -> None:
        self.loss = loss
        self.scales = None if scales is None else [tuple(scale) for scale in scales]

    def __call__(self, outputs: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """Return the scalar loss of outputs (B, R, *P / scale), full resolution first, against numbers (B, R, *P).

        Outputs of weight 0 are not evaluated, but get a zero gradient, which distributed training needs.
        """
        if self.scales is None:
            return self.loss(outputs[0], numbers)
        total = torch.zeros((), device=numbers.device)
        for output, scale, weight in zip(outputs, self.scales, deep_supervision_weights(len(self.scales)), strict=True):
            if weight > 0:
                total = total + weight * self.loss(output, downsample_numbers(numbers, scale))
            else:
                total = total + output[:0].float().sum()
        return total


def downsample_numbers(numbers: Tensor, stride: Sequence[int]) -> Tensor:
    """Return numbers on a coarser grid: the mean of the known voxels in each coarse voxel, NaN if there is none.

    Parameters
    ----------
    numbers
        (B, R, *P) floating type, NaN where unknown.
    stride
        Voxels per coarse voxel along each axis of P. If it does not divide P, the last coarse voxel is smaller.

    Returns
    -------
    Tensor
        (B, R, *ceil(P / stride)), of the type of ``numbers``; ``numbers`` itself if all strides are 1.
    """
    if all(step == 1 for step in stride):
        return numbers
    missing = [-edge % step for edge, step in zip(numbers.shape[2:], stride, strict=True)]
    padding = [side for amount in reversed(missing) for side in (0, amount)]
    padded = functional.pad(numbers, padding, value=math.nan)
    is_known = ~padded.isnan()
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[len(stride)]
    share = pool(is_known.to(padded), tuple(stride), tuple(stride))
    mean = pool(padded.masked_fill(~is_known, 0), tuple(stride), tuple(stride))
    return torch.where(share > 0, mean / share, math.nan)


def _known_mean(outputs: Tensor, numbers: Tensor, penalty: Callable[[Tensor], Tensor], all_reduce: AllReduce) -> Tensor:
    """Return the mean penalty of the errors (B, R, *P) over known pairs of all ranks; float64 or float32."""
    if outputs.shape != numbers.shape:
        raise ValueError(f"outputs {tuple(outputs.shape)}, numbers {tuple(numbers.shape)}: expected the same shape")
    wide = outputs if outputs.dtype == torch.float64 else outputs.float()
    is_unknown = numbers.isnan()
    errors = (wide - numbers.to(wide).masked_fill(is_unknown, 0)).masked_fill(is_unknown, 0)
    total, count = all_reduce(torch.stack([penalty(errors).sum(), (~is_unknown).sum().to(wide)]))
    mean: Tensor = total / count.clamp_min(1)
    return mean
