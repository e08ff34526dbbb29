"""Differentiable sums over the processes (ranks) of a distributed training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def sum_over_ranks(sums: Tensor) -> Tensor:
    """Return the sum over ranks of ``sums`` (any shape, equal on all ranks); ``sums`` itself without a process group.

    This is the ``all_reduce`` of the losses on label sets. Its backward pass sums the gradients over ranks too.
    Together with the mean that DistributedDataParallel takes, N ranks compute the gradient of one process with the
    whole batch.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return sums
    total: Tensor = _SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
    return total


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks of a tensor of any shape.

    As ``torch.distributed.nn.functional.all_reduce``, which newer versions of torch deprecate.
    """

    @staticmethod
    def forward(context: Any, sums: Tensor) -> Tensor:
        """Return the sum over ranks, in the shape of ``sums`` (any shape)."""
        total = sums.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        """Return the sum over ranks of the gradient, of any shape."""
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
