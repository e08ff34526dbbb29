"""The patches of a batch with their labels, for operations that mix samples or change labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Patches:
    """The tensors of a batch, on any device, that an operation changes in place."""

    images: Tensor
    """(B, C, *P) float32."""
    codes: Tensor
    """(B, *P) integers."""
    foreground: Tensor
    """(B, *P) bool: voxels that are certainly foreground. Of unannotated voxels, and of a regression, none is."""
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    """Further layers by name, (B, ...): the last axes are those of P."""
    objects: Tensor | None = None
    """(B, *P) numbers of objects from 1 on, 0 and below for none; None if voxels belong to classes only."""
