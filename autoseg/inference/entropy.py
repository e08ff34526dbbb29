"""Entropy of probabilities, as a share of the largest possible one."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def entropy(probabilities: Tensor, *, is_exclusive: bool) -> Tensor:
    """Return the entropy of each voxel, (*S) float32 in [0, 1], from the probabilities of heads (H, *S).

    Classes: the entropy over heads divided by log(H). Regions: the mean of the heads' :func:`binary_entropies`. Of one
    class alone it is 0.
    """
    if not is_exclusive:
        return binary_entropies(probabilities).mean(dim=0).clamp(0, 1)
    total: Tensor = torch.special.entr(probabilities).sum(dim=0)
    return (total / math.log(max(2, len(probabilities)))).clamp(0, 1)


def binary_entropies(probabilities: Tensor) -> Tensor:
    """Return the entropy of yes or no with each probability, divided by log(2): the same shape, in [0, 1]."""
    total: Tensor = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
    return total / math.log(2)
