"""Mean of past weights: an exponential average over the steps of a training, which scores better than its last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    r"""Exponential mean of the weights of a network.

    .. math:: m_t = d_t m_{t-1} + (1 - d_t) w_t, \quad d_t = \min(d, (1 + t) / (10 + t))

    so that the first steps, which are far from all later ones, are soon forgotten.

    Parameters
    ----------
    network
        Its parameters are averaged, in float32; buffers are not (instance norm has none).
    decay
        d, 0 to 1.

    Notes
    -----
    Source: Polyak & Juditsky 1992; the growing decay as in TensorFlow's ``ExponentialMovingAverage(num_updates)``.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = {name: weight.detach().clone() for name, weight in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the weights of one more step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        weights = dict(network.named_parameters())
        torch._foreach_lerp_(list(self.weights.values()), [weights[name].detach() for name in self.weights], 1 - decay)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Let ``network`` have the averaged weights; its own return at the end of the block."""
        self._swap(network)
        try:
            yield
        finally:
            self._swap(network)

    @torch.no_grad()
    def restart(self, network: nn.Module) -> None:
        """Forget the past: begin with the present weights, as after they were loaded from a file."""
        self.steps = 0
        for name, weight in network.named_parameters():
            self.weights[name].copy_(weight)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"steps": self.steps, "weights": self.weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.steps = int(state["steps"])
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])

    @torch.no_grad()
    def _swap(self, network: nn.Module) -> None:
        for name, weight in network.named_parameters():
            own: Tensor = weight.detach().clone()
            weight.copy_(self.weights[name])
            self.weights[name].copy_(own)
