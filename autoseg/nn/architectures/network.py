"""The base of all networks: a module with outputs at several resolutions."""

from __future__ import annotations

from torch import nn


class Network(nn.Module):
    """A module whose ``forward`` turns images (B, C, *P) into logits (B, H, *P / stride).

    With ``deep_supervision`` it returns a list with one tensor per entry of ``output_strides``, otherwise the logits of
    the full resolution only.
    """

    deep_supervision: bool
    output_strides: tuple[tuple[int, ...], ...]
    """Per output the patch voxels per logit along each axis: the full resolution, all 1, first."""
