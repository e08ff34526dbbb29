"""The processes (ranks) of a distributed training: how they start, and differentiable sums over them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from autoseg.core.errors import ConfigError, LostRankError
from autoseg.core.ranks import ONE_PROCESS, Ranks
from autoseg.nn.device import select_device

LONGEST_WAIT = timedelta(hours=12)
"""Longest time that a rank waits for the others, while the first one saves, draws and evaluates. A rank that died is
noticed by the process that started it."""


def current_ranks() -> Ranks:
    """Return the ranks of the process group that this process belongs to; without one, those of a single process."""
    if not _in_group():
        return ONE_PROCESS
    return Ranks(distributed.get_rank(), distributed.get_world_size(), sum_over_ranks, _any_rank)


def rank_device(name: str, local_rank: int) -> torch.device:
    """Return the device of a rank: its own GPU, or the CPU.

    Parameters
    ----------
    name
        ``auto``, ``cuda`` or ``cpu``. ``auto`` is CUDA where there is a GPU.
    local_rank
        Number of the process on this machine, from 0.

    Raises
    ------
    ConfigError
        If ``name`` is another device, or this machine has fewer GPUs.
    """
    if name not in ("auto", "cuda", "cpu"):
        raise ConfigError(f"device: {name!r} is one device, but each process has its own. Use --device cuda or cpu.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return select_device(f"cuda:{local_rank}")


@contextmanager
def process_group(device: torch.device, restarts: int = 0) -> Iterator[Ranks]:
    """Yield the ranks that torchrun's environment variables describe: connected by NCCL on CUDA, otherwise by Gloo.

    Parameters
    ----------
    device
        Of this process. It becomes the current CUDA device.
    restarts
        How often all ranks have been started again. torchrun on one machine keeps its store over restarts, and with it
        the addresses of processes that are gone, so each start has keys of its own there.

    Raises
    ------
    LostRankError
        If another rank ended before it should.
    """
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(device)
    try:
        store, rank, size = next(rendezvous("env://", timeout=LONGEST_WAIT))
        distributed.init_process_group(
            "nccl" if is_cuda else "gloo",
            store=PrefixStore(f"start_{restarts}", store),
            rank=rank,
            world_size=size,
            timeout=LONGEST_WAIT,
        )
        yield current_ranks()
    except RuntimeError as error:
        if not _is_lost_rank(error):
            raise
        message = f"process {current_ranks().rank}: another process of this training has ended"
        raise LostRankError(message) from error
    except SystemExit:  # a rank that has nothing to say ends so
        end_process_group()
        raise
    end_process_group()


def end_process_group() -> None:
    """Leave the process group of this process and wait for the end of its threads.

    The caller may keep no network: those wrapped by DistributedDataParallel hold the group in a reference cycle. Left
    to the exit of the interpreter, one of Gloo's threads drops its last tensor when no interpreter is left, and the
    process aborts.
    """
    distributed.destroy_process_group()
    gc.collect()


def distributed_network(network: nn.Module, device: torch.device, ranks: Ranks) -> nn.Module:
    """Return the module whose forward pass a training calls: ``network`` itself, or wrapped to average gradients.

    The wrapped module has the parameters of ``network``, whose state dict stays as it is.
    """
    if ranks.size == 1:
        return network
    return DistributedDataParallel(network, [device] if device.type == "cuda" else None, gradient_as_bucket_view=True)


def sum_over_ranks(sums: Tensor) -> Tensor:
    """Return the sum over ranks of ``sums`` (any shape, equal on all ranks); ``sums`` itself without a process group.

    This is the ``all_reduce`` of the losses on label sets. Its backward pass sums the gradients over ranks too.
    Together with the mean that DistributedDataParallel takes, N ranks compute the gradient of one process with the
    whole batch.
    """
    if not _in_group():
        return sums
    total: Tensor = _SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
    return total


def _in_group() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _any_rank(flag: bool) -> bool:
    """Whether ``flag`` is true on any rank."""
    device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else None
    flags = torch.tensor([int(flag)], device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags.item())


def _is_lost_rank(error: RuntimeError) -> bool:
    """Whether a collective operation failed because another rank is gone. Gloo says so in words only."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()


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
