"""Registry of network architectures by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from autoseg.core.components import resolve
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
        If there is no such architecture, or if it does not build a :class:`Network`.
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
        network = architecture.build(topology, n_channels, n_outputs)
    if not isinstance(network, Network):
        raise ConfigError(
            f"architecture {topology.kind!r}: found a {type(network).__name__}, expected an autoseg.nn.architectures."
            "network.Network. Derive its class from it; docs/extending.md has an example."
        )
    network.deep_supervision = deep_supervision
    return network
