"""Muon: momentum whose update is made orthogonal, so that a short run moves every direction of a kernel equally far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_MIN_EDGE = 8
"""Kernels with fewer rows or columns as a matrix have no directions worth balancing."""
_UPDATE_RMS = 0.2
"""Size of a weight's step in units of the learning rate: about that of AdamW, whose rates and decay thus fit."""
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """Muon for convolution kernels, AdamW for everything else, with one learning rate for both.

    A kernel (out, in, k, ...) is a matrix of ``out`` rows. Its update is the nearest orthogonal matrix to the Nesterov
    momentum, found by five steps of a Newton-Schulz iteration, times ``0.2 sqrt(max(rows, columns))``, which gives the
    update of an entry the root mean square of AdamW's. Norms, biases, kernels of one voxel (heads: their rows are the
    classes, of which the rare ones must catch up) and those with fewer than 8 rows or columns take AdamW with betas 0.9
    and 0.999. Weight decay is decoupled. Checkpoints as any optimiser of torch.

    Parameters
    ----------
    parameters
        Of the network; one group.
    lr
        Learning rate of both kinds.
    weight_decay
        Share of a weight that is taken away per unit of learning rate and step.
    momentum
        Of the kernels' momentum.

    Notes
    -----
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (iteration, coefficients);
    Liu et al. 2025, arXiv 2502.16982 (scale of the update, weight decay). That heads are left to AdamW is Jordan's
    advice. Differs in that kernels of convolutions of any dimension are flattened, and in the bound on their edges.
    ``torch.optim.Muon`` takes 2-D weights only.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 4e-3, weight_decay: float = 1e-2, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every weight that has a gradient; return what ``closure`` returns, None without one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["weight_decay"]:
                for weight in weights:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
            for kernels in _of_equal_shape([weight for weight in weights if _is_kernel(weight)]):
                ahead = [_nesterov(kernel, self.state[kernel], group["momentum"]) for kernel in kernels]
                scale = _UPDATE_RMS * math.sqrt(max(ahead[0].shape))
                for kernel, update in zip(kernels, orthogonal(torch.stack(ahead)), strict=True):
                    kernel.add_(update.view_as(kernel), alpha=-group["lr"] * scale)
            for weight in weights:
                if not _is_kernel(weight):
                    weight.add_(_adam_update(weight.grad, self.state[weight]), alpha=-group["lr"])
        return loss


def _of_equal_shape(kernels: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group kernels that are matrices of equal shape: on a GPU one product of many costs no more than one of one.

    On the CPU, where nothing is gained, each stays alone.
    """
    groups: dict[object, list[Tensor]] = {}
    for kernel in kernels:
        matrix = (len(kernel), kernel[0].numel(), kernel.device)
        groups.setdefault(matrix if kernel.is_cuda else id(kernel), []).append(kernel)
    return list(groups.values())


def _nesterov(kernel: Tensor, state: dict[str, Tensor], beta: float) -> Tensor:
    """Return the Nesterov momentum of a kernel (out, in, k, ...) with a gradient, as a matrix (out, in * k * ...)."""
    gradient = cast(Tensor, kernel.grad)
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum = state["momentum"].lerp_(gradient, 1 - beta)
    return torch.lerp(gradient, momentum, beta).flatten(1)


def _adam_update(gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
    if not state:
        state.update(step=torch.zeros(()), mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
    state["step"] += 1
    done = float(state["step"])
    mean = state["mean"].lerp_(gradient, 1 - _BETAS[0]) / (1 - _BETAS[0] ** done)
    square = state["square"].lerp_(gradient.square(), 1 - _BETAS[1]) / (1 - _BETAS[1] ** done)
    update: Tensor = mean / square.sqrt().add_(_EPSILON)
    return update


def orthogonal(matrix: Tensor) -> Tensor:
    """Return matrices (..., m, n) with the same singular vectors and singular values of about 1 (0.7 to 1.2).

    Zeros stay zeros. Computed in bfloat16 on CUDA, where it is fast and accurate enough, else in float32; the result
    is float32.
    """
    a, b, c = _QUINTIC
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    wide = (matrix.mT if is_tall else matrix).to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    wide = (wide / (wide.norm(dim=(-2, -1), keepdim=True) + _EPSILON)).reshape(-1, *wide.shape[-2:])
    for _ in range(_STEPS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return (wide.mT if is_tall else wide).reshape(matrix.shape).float()


def _is_kernel(weight: Tensor) -> bool:
    if weight.ndim <= 2 or weight[0, 0].numel() == 1:
        return False
    return min(weight.shape[0], weight[0].numel()) >= _MIN_EDGE
