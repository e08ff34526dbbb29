"""Memory that a network needs, measured as the number of values in its feature maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autoseg.core.components import call_component, resolve
from autoseg.core.errors import ConfigError
from autoseg.core.plan import Topology

_KEEPS_INPUT = ("gelu", "silu")
"""Activations whose gradient needs what they were given."""


def feature_map_values(topology: Topology, patch_size: Sequence[int], n_outputs: int) -> int:
    """Count the feature map values of one patch.

    ``plain`` and ``residual`` networks are counted here. Any other architecture is an object that has its own method
    ``feature_map_values`` with the same parameters (see docs/extending.md).

    Parameters
    ----------
    topology
        The network.
    patch_size
        Voxels per axis.
    n_outputs
        Channels of the output layer.

    Raises
    ------
    ConfigError
        If there is no such architecture, or if its count is not a positive number.
    """
    if topology.kind in _ENCODERS:
        return _unet_values(topology, patch_size, n_outputs)
    architecture = resolve("architecture", topology.kind, _ENCODERS, needs=("feature_map_values",))
    count: Any = call_component(
        "architecture", topology.kind, architecture.feature_map_values, topology, patch_size, n_outputs
    )
    if not isinstance(count, float | int | np.number) or not 0 < count < math.inf:
        raise ConfigError(
            f"architecture {topology.kind!r}: feature_map_values returned {count!r}, expected a positive number: the "
            "values of the feature maps of one patch. docs/extending.md has an example."
        )
    return int(count)


def _unet_values(topology: Topology, patch_size: Sequence[int], n_outputs: int) -> int:
    """Count the output values of all convolutions of a U-Net for one patch.

    The count stands for the memory (and time) of training. It covers the encoder, the decoder with its transposed
    convolutions and the output layer at full resolution, but not the outputs of deep supervision. The number of input
    channels has no effect.

    A convolution stands for two values in memory, its result and the normalised one, which the activation overwrites.
    Without normalisation it is one, and activations that keep their input (gelu, silu) add one. Max pooling adds what
    it pools. Dropout of whole channels adds nothing.

    Parameters
    ----------
    topology
        The network.
    patch_size
        Voxels per axis.
    n_outputs
        Channels of the output layer.

    Notes
    -----
    Source: ``compute_conv_feature_map_size`` of dynamic-network-architectures 0.4, by which nnU-Net 2.8.1 plans.
    """
    voxels = _voxels_per_stage(topology, patch_size)
    encoder = _ENCODERS[topology.kind]
    skips = range(topology.n_stages - 2, -1, -1)
    decoder = sum(
        blocks * topology.features[stage] * voxels[stage]
        for blocks, stage in zip(topology.decoder_blocks, skips, strict=True)
    )
    upsampled = sum(topology.features[stage] * voxels[stage] for stage in skips)
    pooled = sum(topology.features[stage] * voxels[stage + 1] for stage in skips) if topology.pooling == "max" else 0
    halves = (topology.normalization != "none") + 1 + (topology.activation in _KEEPS_INPUT)
    return (encoder(topology, voxels) + decoder) * halves // 2 + upsampled + pooled + n_outputs * voxels[0]


def _voxels_per_stage(topology: Topology, patch_size: Sequence[int]) -> list[int]:
    size = list(patch_size)
    voxels = []
    for stride in topology.strides:
        size = [edge // step for edge, step in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    return voxels


def _plain_encoder(topology: Topology, voxels: Sequence[int]) -> int:
    return sum(
        blocks * features * count
        for blocks, features, count in zip(topology.encoder_blocks, topology.features, voxels, strict=True)
    )


def _residual_encoder(topology: Topology, voxels: Sequence[int]) -> int:
    """Count the stem, two convolutions per block, and a projection of the skip where a stage changes its shape."""
    total = topology.features[0] * voxels[0]
    before = topology.features[0]
    for stage, (features, blocks) in enumerate(zip(topology.features, topology.encoder_blocks, strict=True)):
        projected = features != before or any(step != 1 for step in topology.strides[stage])
        total += (2 * blocks + projected) * features * voxels[stage]
        before = features
    return total


_ENCODERS: dict[str, Callable[[Topology, Sequence[int]], int]] = {
    "plain": _plain_encoder,
    "residual": _residual_encoder,
}
