"""From a plan's topology to an initialised network."""

from __future__ import annotations

from autoseg.core.errors import PlanError
from autoseg.core.plan import Topology
from autoseg.nn.architectures.blocks import initialise
from autoseg.nn.architectures.unet import UNet


def build_network(topology: Topology, n_channels: int, n_heads: int, *, deep_supervision: bool = True) -> UNet:
    """Build and initialise the network of a plan.

    Parameters
    ----------
    topology
        Stages, strides, kernels and widths.
    n_channels
        Image channels C, at least 1.
    n_heads
        Network outputs H: classes with background, or regions.
    deep_supervision
        Initial state of the switch ``network.deep_supervision``.

    Raises
    ------
    PlanError
        If the lists of the topology do not fit together; names all that do not.

    Notes
    -----
    Weights are drawn from torch's global generator, as in every torch module: seed it for a reproducible start.
    """
    faults = _topology_faults(topology)
    if min(n_channels, n_heads) < 1:
        faults.append(f"{n_channels} channels and {n_heads} heads, expected at least one of each")
    if faults:
        raise PlanError(f"plan: topology: found {'; '.join(faults)}. Plan this data set again.")
    network = UNet(topology, n_channels, n_heads, deep_supervision=deep_supervision)
    network.apply(initialise)
    return network


def _topology_faults(topology: Topology) -> list[str]:
    """Return what is wrong with a topology, empty if nothing."""
    if not topology.strides:
        return ["no stages, expected at least one"]
    n_stages, n_dims = topology.n_stages, topology.n_dims
    faults = [
        f"{len(entries)} {name}, expected {expected} for {n_stages} stages"
        for name, entries, expected in (
            ("features", topology.features, n_stages),
            ("kernels", topology.kernels, n_stages),
            ("encoder_blocks", topology.encoder_blocks, n_stages),
            ("decoder_blocks", topology.decoder_blocks, n_stages - 1),
        )
        if len(entries) != expected
    ]
    if n_dims not in (2, 3):
        faults.append(f"{n_dims} patch axes, expected 2 or 3")
    if any(len(entry) != n_dims for entry in (*topology.strides, *topology.kernels)):
        faults.append(f"strides or kernels of different length, expected {n_dims} axes in each")
    if any(edge % 2 == 0 for kernel in topology.kernels for edge in kernel):
        faults.append(f"even kernel edges in {topology.kernels}, expected odd ones")
    if min((*topology.features, *topology.encoder_blocks, *topology.decoder_blocks), default=0) < 1:
        faults.append("a stage without features or blocks, expected at least one of each")
    if any(step != 1 for step in topology.strides[0]):
        faults.append(f"stride {topology.strides[0]} in stage 0, expected all 1")
    return faults
