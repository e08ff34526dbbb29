"""Architectures by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from autoseg.core.components import resolve
from autoseg.core.errors import ConfigError
from autoseg.core.plan import Topology
from autoseg.nn.architectures.network import Network
from autoseg.nn.architectures.unet import build_unet


class Architecture(Protocol):
    """A family of networks: how one is built for a topology, and what memory it needs."""

    def build(self, topology: Topology, n_channels: int, n_outputs: int) -> Network:
        """Return an initialised network for images of ``n_channels`` channels."""

    def feature_map_values(self, topology: Topology, patch_size: Sequence[int], n_outputs: int) -> int:
        """Return the number of feature map values of one patch: the planner's measure of memory."""


BUILT_IN: dict[str, Callable[[Topology, int, int], Network]] = {"plain": build_unet, "residual": build_unet}


def build_network(topology: Topology, n_channels: int, n_outputs: int, *, deep_supervision: bool = True) -> Network:
    """Build and initialise the network of a plan.

    Parameters
    ----------
    topology
        Its ``kind`` names the architecture: built in, an entry point, or ``package.module:attribute``.
    n_channels
        Image channels C, at least 1.
    n_outputs
        Network outputs H: classes with background, or regions.
    deep_supervision
        Initial state of the switch ``network.deep_supervision``.

    Raises
    ------
    ConfigError
        If there is no such architecture, or what it builds is no :class:`Network`.
    PlanError
        If the lists of the topology do not fit together; names all that do not.

    Notes
    -----
    Weights are drawn from torch's global generator, as in every torch module: seed it for a reproducible start.
    """
    if topology.kind in BUILT_IN:
        network = BUILT_IN[topology.kind](topology, n_channels, n_outputs)
    else:
        architecture = resolve("architecture", topology.kind, BUILT_IN, needs=("build",))
        network = architecture.build(topology, n_channels, n_outputs)
    if not isinstance(network, Network):
        raise ConfigError(
            f"architecture {topology.kind!r}: found a {type(network).__name__}, expected an autoseg.nn.architectures."
            "network.Network. Derive its class from it; docs/extending.md has an example."
        )
    network.deep_supervision = deep_supervision
    return network
