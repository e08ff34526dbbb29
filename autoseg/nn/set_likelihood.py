"""The likelihood of sets of several classes, with a backward pass that touches only the voxels that carry one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sum_of_set_losses(
    log_probabilities: Tensor, codes: Tensor, label_sets: Tensor, code_weights: Tensor, is_set: Tensor
) -> Tensor:
    r"""Sum :math:`-w \log \sum_{k \in A} p_k` over chosen voxels.

    Parameters
    ----------
    log_probabilities
        (B, K, V) float32; differentiable.
    codes
        (B, V) int64 < N.
    label_sets
        (B, N, K) bool.
    code_weights
        (B, N) float32.
    is_set
        (B, V) bool: the voxels to sum over. Their sets must not be empty.

    Returns
    -------
    Tensor
        Scalar float32, 0 if no voxel is chosen.
    """
    total: Tensor = _SumOfSetLosses.apply(  # type: ignore[no-untyped-call]
        log_probabilities, codes, label_sets, code_weights, is_set
    )
    return total


class _SumOfSetLosses(torch.autograd.Function):
    """Autograd's own way through indexing and logsumexp takes several times as long."""

    @staticmethod
    def forward(
        context: Any, log_probabilities: Tensor, codes: Tensor, label_sets: Tensor, code_weights: Tensor, is_set: Tensor
    ) -> Tensor:
        samples, voxels = is_set.nonzero(as_tuple=True)  # (M,)
        chosen = codes[samples, voxels]
        members = log_probabilities.transpose(0, 1)[:, samples, voxels]  # (K, M): much faster than (M, K)
        members.masked_fill_((~label_sets).permute(2, 0, 1)[:, samples, chosen], -torch.inf)
        largest = members.amax(0)
        shares = members.sub_(largest).exp_()
        norm = shares.sum(0)
        weights = code_weights[samples, chosen]
        loss = -((norm.log() + largest) * weights).sum()
        context.save_for_backward(samples, voxels, shares.mul_(weights / norm))  # w p_k / p(A)
        context.shape = log_probabilities.shape
        return loss

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        samples, voxels, shares = context.saved_tensors
        result = shares.new_zeros(context.shape)
        result.transpose(0, 1)[:, samples, voxels] = shares * -gradients[0]
        return result, None, None, None, None
