"""Sums over the processes of a distributed training, through which gradients flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def sum_over_ranks(sums: Tensor) -> Tensor:
    """Return the sum over ranks of ``sums`` (any shape, the same everywhere); ``sums`` itself without a process group.

    The ``all_reduce`` of the partial losses. Its backward sums the gradients over ranks too, which the mean that
    DistributedDataParallel takes undoes: N ranks step as one process with the whole batch.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return sums
    total: Tensor = _SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
    return total


class _SumOverRanks(torch.autograd.Function):
    """Like ``torch.distributed.nn.functional.all_reduce``, which newer versions of torch deprecate."""

    @staticmethod
    def forward(context: Any, sums: Tensor) -> Tensor:
        total = sums.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
