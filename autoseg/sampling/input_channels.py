"""How layers become channels of the network's input, by kind: the same in training and in prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from autoseg.cases.layers import Kind, LayerInfo

Channels = Callable[[Tensor, LayerInfo], Tensor]
"""(layer (B, C, *P) or (B, *P), what it is) -> (B, C', *P) float32."""


def with_channels(images: Tensor, layers: Mapping[str, Tensor], inputs: Sequence[LayerInfo]) -> Tensor:
    """Append layers to images as channels.

    Parameters
    ----------
    images
        (B, C, *P) float32.
    layers
        By name, on the device of ``images``: (B, C, *P) or (B, *P).
    inputs
        Those that are appended, in this order.

    Returns
    -------
    (B, C', *P) float32; ``images`` itself if nothing is appended.

    Raises
    ------
    KeyError
        If the kind of a layer has no channels: label sets and instances are no inputs.
    """
    if not inputs:
        return images
    return torch.cat([images, *(CHANNELS[info.kind](layers[info.name], info) for info in inputs)], dim=1)


def _intensity(layer: Tensor, info: LayerInfo) -> Tensor:
    return layer


def _classes(layer: Tensor, info: LayerInfo) -> Tensor:
    """Return 1 where a voxel is of the class, for each class but background; 0 elsewhere."""
    classes = torch.arange(1, info.channels + 1, device=layer.device, dtype=layer.dtype)
    return (layer[:, None] == classes.view(-1, *[1] * (layer.ndim - 1))).float()


CHANNELS: Mapping[Kind, Channels] = {Kind.INTENSITY: _intensity, Kind.CLASSES: _classes}
"""Rule of each kind that a network can see. Ids of instances and codes of label sets mean nothing to it."""
