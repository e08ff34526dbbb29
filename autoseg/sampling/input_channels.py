"""Conversion of layers to input channels of the network, by kind: the same in training and in prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from autoseg.cases.layers import Kind, LayerInfo

Channels = Callable[[Tensor, LayerInfo], Tensor]
"""(layer (B, C, *P) or (B, *P), its description) -> channels (B, C', *P) float32."""


def with_channels(images: Tensor, layers: Mapping[str, Tensor], inputs: Sequence[LayerInfo]) -> Tensor:
    """Return images with layers appended as channels.

    Parameters
    ----------
    images
        (B, C, *P) float32.
    layers
        Layers by name, on the device of ``images``: (B, C, *P) or (B, *P).
    inputs
        Descriptions of the layers to append, in this order.

    Returns
    -------
    (B, C', *P) float32; ``images`` itself if nothing is appended.

    Raises
    ------
    KeyError
        If a layer is of a kind without channels: label sets and instances cannot be inputs.
    """
    if not inputs:
        return images
    return torch.cat([images, *(CHANNELS[info.kind](layers[info.name], info) for info in inputs)], dim=1)


def _intensity(layer: Tensor, info: LayerInfo) -> Tensor:
    """Return the intensities (B, C, *P) float32 as they are."""
    return layer


def _classes(layer: Tensor, info: LayerInfo) -> Tensor:
    """Return class indices (B, *P) as one channel per class without background: (B, K - 1, *P) float32, 1 or 0."""
    classes = torch.arange(1, info.channels + 1, device=layer.device, dtype=layer.dtype)
    return (layer[:, None] == classes.view(-1, *[1] * (layer.ndim - 1))).float()


CHANNELS: Mapping[Kind, Channels] = {Kind.INTENSITY: _intensity, Kind.CLASSES: _classes}
"""Rule of each kind that can be an input. Ids of instances and codes of label sets have no meaning as numbers."""
