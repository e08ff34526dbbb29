"""Mean of past weights: an exponential average over the steps of a training, which scores better than its last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
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
        Its parameters are averaged, and its buffers of floating-point numbers, which are the running statistics of
        batch norm: those of the last step do not fit the mean of past weights. Other buffers (counters) and those that
        no checkpoint holds stay as they are.
    decay
        d, 0 to 1.

    Notes
    -----
    Source: Polyak & Juditsky 1992; the growing decay as in TensorFlow's ``ExponentialMovingAverage(num_updates)``.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        saved = network.state_dict()
        self.weights = {
            name: values.detach().clone()
            for name, values in _parameters_and_buffers(network).items()
            if name in saved and values.is_floating_point()
        }
        """Name -> mean, of the shape and type of what it is the mean of."""

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the weights of one more step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        weights = _parameters_and_buffers(network)
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
        weights = _parameters_and_buffers(network)
        for name, mean in self.weights.items():
            mean.copy_(weights[name])

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
        weights = _parameters_and_buffers(network)
        for name, mean in self.weights.items():
            own = weights[name].detach().clone()
            weights[name].copy_(mean)
            mean.copy_(own)


def _parameters_and_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Return name -> tensor; one that the network has under several names once."""
    return dict(chain(network.named_parameters(), network.named_buffers()))
