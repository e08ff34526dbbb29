"""Base class of all networks: a module with outputs at several resolutions."""

from __future__ import annotations

from torch import nn


class Network(nn.Module):
    """A module whose ``forward`` maps images (B, C, *P) to logits (B, H, *P / stride).

    If ``deep_supervision`` is True, it returns a list with one tensor per entry of ``output_strides``. Otherwise it
    returns only the logits of the full resolution.
    """

    deep_supervision: bool
    output_strides: tuple[tuple[int, ...], ...]
    """Patch voxels per logit along each axis, one entry per output. The full resolution, all 1, comes first."""
