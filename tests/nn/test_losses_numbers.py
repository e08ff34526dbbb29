"""Losses of numbers: means over known pairs, to which unknown voxels add nothing, on one rank as on many."""

from __future__ import annotations

import logging

import pytest
import torch

from autoseg.core.errors import ConfigError
from autoseg.nn.losses.numbers import AbsoluteError, NumberSupervision, SquaredError, downsample_numbers
from autoseg.nn.losses.registry import NUMBER_LOSSES, named_number_loss

SHAPES = pytest.mark.parametrize("shape", [(7, 5), (4, 6, 5)], ids=["2d", "3d"])
LOSSES = pytest.mark.parametrize("loss", [SquaredError, AbsoluteError])


def example(shape, seed: int = 0, share: float = 0.4):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(3, 2, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    numbers = torch.randn(3, 2, *shape, generator=generator, dtype=torch.float64)
    numbers[torch.rand(numbers.shape, generator=generator) < share] = torch.nan
    return outputs, numbers


def test_known_answers():
    outputs = torch.tensor([[[1.0, 5.0, 9.0]]])
    numbers = torch.tensor([[[3.0, torch.nan, 8.0]]])
    assert SquaredError()(outputs, numbers) == (4 + 1) / 2
    assert AbsoluteError()(outputs, numbers) == (2 + 1) / 2


@LOSSES
@SHAPES
def test_unknown_voxels_have_neither_loss_nor_gradient(loss, shape):
    outputs, numbers = example(shape)
    is_unknown = numbers.isnan()
    value = loss()(outputs, numbers)
    value.backward()
    assert not outputs.grad[is_unknown].any() and outputs.grad[~is_unknown].all()
    changed = outputs.detach() + 7 * is_unknown
    assert loss()(changed, numbers) == value


@LOSSES
def test_a_batch_of_which_nothing_is_known_has_loss_and_gradients_of_0(loss):
    outputs, numbers = example((4, 4), share=2)
    value = loss()(outputs, numbers)
    value.backward()
    assert value == 0 and not outputs.grad.any()


@LOSSES
@SHAPES
def test_two_ranks_with_unequal_shares_compute_the_gradient_of_one(loss, shape):
    outputs, numbers = example(shape)
    numbers[0] = torch.nan  # the first rank knows far less than the second
    numbers[0, 0].view(-1)[0] = 2.0
    loss()(outputs, numbers).backward()
    whole = outputs.grad.clone()
    counts = [(~part.isnan()).sum() for part in (numbers[:1], numbers[1:])]
    parts = []
    for part, other in ((slice(0, 1), slice(1, 3)), (slice(1, 3), slice(0, 1))):
        own = outputs.detach()[part].clone().requires_grad_()
        others = torch.stack([loss()(outputs.detach()[other], numbers[other]), torch.ones(())])
        n = counts[0 if other == slice(0, 1) else 1]
        loss(lambda sums, others=others, n=n: sums + others * n)(own, numbers[part]).backward()
        parts.append(own.grad)
    torch.testing.assert_close(torch.cat(parts), whole)


@SHAPES
def test_a_coarse_voxel_is_the_mean_of_the_known_voxels_in_it(shape):
    _, numbers = example(shape)
    stride = (2,) * len(shape)
    coarse = downsample_numbers(numbers, stride)
    assert coarse.shape == (3, 2, *(-(-edge // 2) for edge in shape))
    for index in torch.cartesian_prod(*map(torch.arange, coarse.shape[2:])).tolist():
        cell = numbers[(slice(None), slice(None), *(slice(2 * i, 2 * i + 2) for i in index))].flatten(2)
        expected = cell.nanmean(2)
        torch.testing.assert_close(coarse[(..., *index)], expected, equal_nan=True)


def test_deep_supervision_halves_the_weight_with_each_resolution_and_leaves_the_last_out():
    numbers = torch.full((1, 1, 4, 4), 2.0)
    numbers[..., :2] = torch.nan
    outputs = [torch.zeros(1, 1, edge, edge, requires_grad=True) for edge in (4, 2, 1)]
    value = NumberSupervision(SquaredError(), [(1, 1), (2, 2), (4, 4)])(outputs, numbers)
    value.backward()
    assert value == 4 and not outputs[2].grad.any()
    assert torch.equal(outputs[1].grad[0, 0], torch.tensor([[0.0, -2 / 3], [0.0, -2 / 3]]))


def test_half_precision_is_summed_in_float32():
    outputs = torch.full((1, 1, 300, 300), 3.0, dtype=torch.bfloat16)
    assert SquaredError()(outputs, torch.zeros(1, 1, 300, 300)) == 9


@pytest.mark.parametrize("name", list(NUMBER_LOSSES))
def test_losses_of_a_regression_go_by_name(name):
    assert isinstance(named_number_loss(name, n_outputs=1, n_dims=2), NUMBER_LOSSES[name])


class Huber:
    def __init__(self, all_reduce):
        self.all_reduce = all_reduce

    def __call__(self, outputs, numbers):
        known = ~numbers.isnan()
        errors = torch.nn.functional.huber_loss(outputs[known], numbers[known], reduction="sum")
        total, count = self.all_reduce(torch.stack([errors, known.sum()]))
        return total / count.clamp_min(1)


class SeesUnknown(Huber):
    def __call__(self, outputs, numbers):
        return (outputs - numbers.nan_to_num(0)).square().mean()


class NoNumber(Huber):
    def __call__(self, outputs, numbers):
        return (outputs - numbers).square().mean()


def test_a_loss_of_a_user_is_tried_and_taken(caplog):
    loss = named_number_loss("test_losses_numbers:Huber", n_outputs=2, n_dims=3)
    assert loss(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, torch.nan]]])) == 2.5 and not caplog.records


def test_a_loss_that_sees_unknown_voxels_is_named_in_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        named_number_loss("test_losses_numbers:SeesUnknown", n_outputs=1, n_dims=2)
    assert "other outputs where no number is known" in caplog.text


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"NoNumber.*it returned nan, expected one finite number"):
        named_number_loss("test_losses_numbers:NoNumber", n_outputs=1, n_dims=2)
