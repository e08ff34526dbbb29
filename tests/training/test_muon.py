from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (12, 40), (40, 12)])
def test_an_update_keeps_the_singular_vectors_and_evens_out_the_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ orthogonal(matrix) @ right.T
    values = inner.diagonal()
    assert ((values > 0.6) & (values < 1.3)).all()
    assert torch.allclose(inner, torch.diag(values), atol=1e-3)


def test_the_size_of_a_matrix_does_not_matter():
    matrix = torch.randn(10, 30, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(orthogonal(1e-4 * matrix), orthogonal(1e4 * matrix), atol=1e-3)


def test_zeros_stay_zeros():
    assert not orthogonal(torch.zeros(9, 9)).any()


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (16, 8, 3, 3, 3), (8, 16, 2, 2)])
def test_a_first_step_moves_a_kernel_by_its_orthogonal_gradient(shape):
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape))
    before, kernel.grad = kernel.detach().clone(), torch.randn(shape)
    Muon([kernel], lr=0.1, weight_decay=0.5).step()
    rows, columns = shape[0], kernel[0].numel()
    moved = 0.1 * 0.2 * max(rows, columns) ** 0.5 * orthogonal(kernel.grad.flatten(1)).view(shape)
    assert torch.allclose(kernel, before * (1 - 0.1 * 0.5) - moved, atol=1e-4)
    assert (kernel - before * 0.95).square().mean().sqrt().item() == pytest.approx(0.1 * 0.2, rel=0.25)


@pytest.mark.parametrize("shape", [(5,), (3, 16, 1, 1), (16, 32, 1, 1, 1), (4, 16, 3, 3), (16, 4)])
def test_heads_norms_and_biases_are_trained_as_by_adamw(shape):
    torch.manual_seed(0)
    start = torch.randn(shape)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = Muon([mine], lr=0.01, weight_decay=0.1)
    reference = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(4):
        mine.grad = torch.randn(shape)
        theirs.grad = mine.grad.clone()
        ours.step()
        reference.step()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_weights_without_a_gradient_stay():
    kernel = nn.Parameter(torch.ones(8, 8, 3))
    assert Muon([kernel]).step(lambda: 7.0) == 7.0
    assert torch.equal(kernel, torch.ones(8, 8, 3))


def test_a_state_that_was_saved_goes_on_as_before():
    torch.manual_seed(0)
    gradients = torch.randn(4, 16, 8, 3, 3)

    def run(restart_after):
        kernel = nn.Parameter(torch.zeros(16, 8, 3, 3))
        optimizer = Muon([kernel], lr=0.01)
        for index, gradient in enumerate(gradients):
            if index == restart_after:
                state = optimizer.state_dict()
                optimizer = Muon([kernel], lr=0.5)
                optimizer.load_state_dict(state)
            kernel.grad = gradient.clone()
            optimizer.step()
        return kernel.detach()

    assert torch.equal(run(None), run(2))


def test_a_stack_of_matrices_is_each_matrix_alone():
    matrices = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    together = orthogonal(matrices)
    assert all(torch.equal(together[index], orthogonal(matrix)) for index, matrix in enumerate(matrices))
