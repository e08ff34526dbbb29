"""A network that costs next to nothing, so that what is measured is everything but the network; for both sides."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Nearest(nn.Module):
    """Which of ``n_heads`` centres, evenly spread from -1 to 1, the first channel is nearest to: one affine map a head.

    The logit of a centre c is 2 c x - c^2, minus the squared distance but for what all heads share. Folds differ by a
    factor.
    """

    def __init__(self, n_heads: int, factor: float = 1.0) -> None:
        super().__init__()
        centres = torch.linspace(-1, 1, n_heads)
        self.slope = nn.Parameter(2 * factor * centres, requires_grad=False)
        self.offset = nn.Parameter(-factor * centres**2, requires_grad=False)
        self.seconds = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *P) -> (B, H, *P)."""
        started = time.perf_counter()
        logits = images.new_empty(len(images), len(self.slope), *images.shape[2:])
        for head, slope in enumerate(self.slope.tolist()):
            torch.add(self.offset[head], images[:, 0], alpha=slope, out=logits[:, head])
        self.seconds += time.perf_counter() - started
        return logits


@dataclass(frozen=True)
class AllButNetworks:
    """Something to be timed of which what its networks take does not count."""

    run: Callable[[], Any]
    networks: Sequence[Nearest]

    def __call__(self) -> Any:
        """Run it."""
        for network in self.networks:
            network.seconds = 0.0
        return self.run()

    def uncounted(self) -> float:
        """Seconds of the last run that the networks took."""
        return sum(network.seconds for network in self.networks)


def folds(n_folds: int, n_heads: int) -> list[Nearest]:
    """Return the members of an ensemble in evaluation mode."""
    return [Nearest(n_heads, factor).eval() for factor in np.linspace(0.5, 1.5, n_folds).tolist()]
