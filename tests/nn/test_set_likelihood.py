"""The likelihood of sets of several classes, and its hand-written backward pass."""

from __future__ import annotations

import pytest
import torch

from autoseg.nn.set_likelihood import sum_of_set_losses

LABEL_SETS = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)[None].repeat(2, 1, 1)
LABEL_SETS[1] = LABEL_SETS[1].flip(1)
WEIGHTS = torch.tensor([[1.0, 0.5, 2.0], [3.0, 1.0, 0.0]])


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_value_and_gradient_are_those_of_autograd(scale):
    generator = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(2, 4, 50, generator=generator)).requires_grad_()
    codes = torch.randint(0, 3, (2, 50), generator=generator)
    is_set = torch.rand(2, 50, generator=generator) < 0.6
    found = sum_of_set_losses(logits.log_softmax(1), codes, LABEL_SETS, WEIGHTS, is_set)
    (gradient,) = torch.autograd.grad(3 * found, logits)

    members = torch.stack([LABEL_SETS[sample, codes[sample]].T for sample in (0, 1)])  # (B, K, V)
    each = logits.logsumexp(1) - logits.masked_fill(~members, -torch.inf).logsumexp(1)
    expected = (each * WEIGHTS.gather(1, codes) * is_set).sum()
    (expected_gradient,) = torch.autograd.grad(3 * expected, logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)
    assert not gradient.movedim(1, 2)[~is_set].any()


def test_no_voxel_gives_zero_and_zero_gradients():
    logits = torch.randn(2, 4, 5, requires_grad=True)
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    total = sum_of_set_losses(logits, torch.zeros(2, 5, dtype=torch.int64), LABEL_SETS, WEIGHTS, nothing)
    total.backward()
    assert total.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
