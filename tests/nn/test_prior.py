from __future__ import annotations

import pytest
import torch

from autoseg.nn.prior import POWER, background_prior, lowest_recall

SETS = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)  # codes 0..4, 3 unknown
REGIONS = torch.tensor([[0, 1, 1], [0, 0, 1]], dtype=torch.bool)


def draw(shape, n_heads=3, **options):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 5, (2, *shape), generator=generator)
    logits = torch.randn(2, n_heads, *shape, generator=generator).requires_grad_()
    return logits, codes, SETS.expand(2, -1, -1)


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3)], ids=["2d", "3d"])
@pytest.mark.parametrize("regions", [None, REGIONS], ids=["classes", "regions"])
def test_only_voxels_of_which_nothing_is_known_are_moved(shape, regions):
    logits, codes, sets = draw(shape, 3 if regions is None else 2)
    background_prior(logits, codes, sets, regions).backward()
    moved = logits.grad.abs().sum(1) > 0
    assert torch.equal(moved, codes == 3)


def test_by_hand():
    codes = torch.full((1, 4), 3)
    expected = (1 - (1 / 3) ** POWER) / POWER
    assert background_prior(torch.zeros(1, 3, 4), codes, SETS[None]).item() == pytest.approx(expected)
    expected = (1 - 0.5**POWER) / POWER
    assert background_prior(torch.zeros(1, 2, 4), codes, SETS[None], REGIONS).item() == pytest.approx(expected)


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["classes", "regions"])
def test_nothing_unknown_gives_zero_and_no_gradient(regions):
    logits, codes, sets = draw((6, 5), 3 if regions is None else 2)
    loss = background_prior(logits, codes.clamp_max(2), sets, regions)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_a_voxel_that_looks_like_foreground_is_hardly_moved():
    logits = torch.tensor([[[0.0, 0.0], [0.0, 9.0], [0.0, 0.0]]], requires_grad=True)  # undecided; surely class 1
    background_prior(logits, torch.tensor([[3, 3]]), SETS[None]).backward()
    undecided, sure = logits.grad.abs().sum(1)[0].tolist()
    assert sure < undecided / 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite(dtype):
    logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4], [0, 0]]], dtype=dtype, requires_grad=True)
    loss = background_prior(logits, torch.tensor([[3, 3]]), SETS[None])
    loss.backward()
    assert loss.item() == pytest.approx(0.5 / POWER)
    assert torch.isfinite(logits.grad).all()


def test_two_ranks_equal_one():
    logits, codes, sets = draw((6, 5))
    codes[0, :5] = 0
    whole = background_prior(logits, codes, sets)
    parts = []
    background_prior(logits[:1], codes[:1], sets[:1], all_reduce=lambda sums: parts.append(sums) or sums)
    both = background_prior(logits[1:], codes[1:], sets[1:], all_reduce=lambda sums: sums + parts[0])
    assert torch.allclose(whole, both)


def test_lowest_recall_by_hand():
    probabilities = torch.tensor([[0.2, 0.1, 0.3, 0.5], [0.6, 0.1, 0.4, 0.25], [0.2, 0.8, 0.3, 0.25]])
    codes = torch.tensor([[1, 2, 1, 3]])  # class 1 found with 0.6 and 0.4, class 2 with 0.8; the last is unknown
    assert lowest_recall(probabilities.log()[None], codes, SETS[None]).item() == pytest.approx(0.5)
    assert lowest_recall(probabilities.log()[None], torch.tensor([[0, 3, 0, 3]]), SETS[None]).item() == 0
    logits = torch.logit(torch.tensor([[[0.5, 0.5, 0.7, 0.9], [0.2, 0.4, 0.2, 0.9]]]))
    # "whole" is drawn at voxels 0, 1, 2 (0.5, 0.5, 0.7), the inner region at voxel 1 only (0.4)
    assert lowest_recall(logits, codes, SETS[None], REGIONS).item() == pytest.approx(0.4)


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["classes", "regions"])
def test_recall_does_not_see_unknown_voxels(regions):
    logits, codes, sets = draw((6, 5), 3 if regions is None else 2)
    scrambled = torch.where((codes == 3)[:, None], -logits, logits)
    assert torch.equal(lowest_recall(logits, codes, sets, regions), lowest_recall(scrambled, codes, sets, regions))
