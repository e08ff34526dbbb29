"""Registry of network architectures by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from autoseg.core.components import call_component, resolve
from autoseg.core.errors import ConfigError
from autoseg.core.plan import Topology
from autoseg.nn.architectures.network import Network
from autoseg.nn.architectures.unet import build_unet


class Architecture(Protocol):
    """A family of networks: builds a network for a topology and estimates its memory."""

    def build(self, topology: Topology, n_channels: int, n_outputs: int) -> Network:
        """Return an initialised network for images of ``n_channels`` channels, with ``n_outputs`` outputs."""

    def feature_map_values(self, topology: Topology, patch_size: Sequence[int], n_outputs: int) -> int:
        """Return the number of feature map values for one patch. The planner uses it as a measure of memory."""


BUILT_IN: dict[str, Callable[[Topology, int, int], Network]] = {"plain": build_unet, "residual": build_unet}


def build_network(topology: Topology, n_channels: int, n_outputs: int, *, deep_supervision: bool = True) -> Network:
    """Return the initialised network of a plan.

    Parameters
    ----------
    topology
        Topology, whose ``kind`` names the architecture: built in, an entry point, or ``package.module:attribute``.
    n_channels
        Image channels C, at least 1.
    n_outputs
        Network outputs H: classes with background, or regions.
    deep_supervision
        Initial value of ``network.deep_supervision``.

    Raises
    ------
    ConfigError
        If there is no such architecture, or if what it builds is not a :class:`Network` whose outputs are as it says;
        see :func:`try_network`.
    PlanError
        If the lists of the topology are inconsistent. The message names all faults.

    Notes
    -----
    Weights are drawn from torch's global generator, as in every torch module. Seed it for reproducible weights.
    """
    if topology.kind in BUILT_IN:
        network = BUILT_IN[topology.kind](topology, n_channels, n_outputs)
    else:
        architecture = resolve("architecture", topology.kind, BUILT_IN, needs=("build",))
        network = call_component("architecture", topology.kind, architecture.build, topology, n_channels, n_outputs)
        try_network(network, topology, n_channels, n_outputs)
    network.deep_supervision = deep_supervision
    return network


def try_network(network: Any, topology: Topology, n_channels: int, n_outputs: int) -> None:
    """Compute the outputs of a user's network for one small patch of zeros, with and without deep supervision.

    Parameters as for :func:`build_network`. Weights, modes and the state of torch's generators are the same afterwards.
    A network whose weights are on the meta device is not computed.

    Raises
    ------
    ConfigError
        If it is not a :class:`Network`, or if number or shapes of its outputs are not those of ``output_strides``.
    """
    name = topology.kind
    if not isinstance(network, Network):
        raise _unexpected(
            name, f"build returned an object of {type(network).__name__}",
            "an autoseg.nn.architectures.network.Network, from which its class derives",
        )  # fmt: skip
    strides: Any = getattr(network, "output_strides", None)
    if not _are_strides(strides, topology.n_dims):
        raise _unexpected(
            name, f"found output_strides {strides!r}",
            f"a tuple with {topology.n_dims} whole numbers for each output, the first of them {(1,) * topology.n_dims}",
        )  # fmt: skip
    if any(weight.is_meta for weight in network.parameters()):
        return  # it is built for names and shapes of weights alone
    patch = tuple(max(8, 2 * math.prod(steps)) for steps in zip(*topology.strides, strict=True))
    modes = [(module, module.training) for module in network.modules()]
    images = torch.zeros(1, n_channels, *patch)
    network.eval()  # running statistics stay
    try:
        for is_deep in (True, False):
            network.deep_supervision = is_deep
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                outputs = call_component("architecture", name, network, images)
            _check_outputs(name, outputs, [(1, n_outputs, *_divided(patch, stride)) for stride in strides], is_deep)
    finally:
        for module, mode in modes:
            module.training = mode


def _are_strides(strides: Any, n_dims: int) -> bool:
    """Whether ``strides`` are those of at least one output, the full resolution first."""
    if not isinstance(strides, tuple) or not strides or not all(isinstance(stride, tuple) for stride in strides):
        return False
    steps = [step for stride in strides for step in stride]
    is_whole = all(len(stride) == n_dims for stride in strides) and all(
        type(step) is int and step > 0 for step in steps
    )
    return is_whole and strides[0] == (1,) * n_dims


def _divided(patch: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-edge // step) for edge, step in zip(patch, stride, strict=True))


def _check_outputs(name: str, outputs: Any, expected: Sequence[tuple[int, ...]], is_deep: bool) -> None:
    """Raise ``ConfigError`` unless ``outputs`` are logits of the expected shapes in a list, if not deep the first."""
    tensors = outputs if isinstance(outputs, list) else [outputs]
    shapes = [tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__ for item in tensors]
    found = shapes if isinstance(outputs, list) else shapes[0]
    wanted = list(expected) if is_deep else expected[0]
    if found != wanted:
        raise _unexpected(
            name, f"with deep_supervision = {is_deep} the network returned {found}",
            f"{wanted} (batch, outputs, *patch), {'a list as output_strides says' if is_deep else 'a single tensor'}",
        )  # fmt: skip


def _unexpected(name: str, found: str, expected: str) -> ConfigError:
    return ConfigError(
        f"architecture {name!r}: {found}, expected {expected}. Correct the network; docs/extending.md has an example."
    )
