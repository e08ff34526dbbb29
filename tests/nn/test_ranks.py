"""Two real processes step as one."""

from __future__ import annotations

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from autoseg.nn.losses.label_sets import LabelSetLoss
from autoseg.nn.ranks import end_process_group, sum_over_ranks

LABEL_SETS = torch.cat([torch.eye(3), torch.ones(1, 3), torch.tensor([[1.0, 1, 0]])]).bool()[None]


def batch():
    """One sample with much and one with little annotation."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 5, (2, 8, 8), generator=generator)
    codes[1, 1:] = 3
    return torch.randn(2, 1, 8, 8, generator=generator), codes


def network():
    torch.manual_seed(0)
    return nn.Conv2d(1, 3, 3, padding=1)


def step_as_one_rank_of_two(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.save(loss_and_gradients(rank), f"{folder}/{rank}.pt")
    end_process_group()


def loss_and_gradients(rank):
    images, codes = batch()
    model = DistributedDataParallel(network())
    loss = LabelSetLoss(None, batch_dice=True, all_reduce=sum_over_ranks)
    value = loss(model(images[rank : rank + 1]), codes[rank : rank + 1], LABEL_SETS)
    value.backward()
    return [value.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.slow
def test_two_processes_get_the_loss_and_the_gradient_of_one(tmp_path):
    if not distributed.is_available():
        pytest.skip("torch without torch.distributed")
    multiprocessing.spawn(step_as_one_rank_of_two, (str(tmp_path),), nprocs=2)
    images, codes = batch()
    model = network()
    value = LabelSetLoss(None, batch_dice=True)(model(images), codes, LABEL_SETS.expand(2, -1, -1))
    value.backward()
    for rank in (0, 1):
        actual = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(actual, [value.detach(), *(parameter.grad for parameter in model.parameters())])


def test_without_a_process_group_nothing_is_summed():
    sums = torch.ones(3)
    assert sum_over_ranks(sums) is sums
