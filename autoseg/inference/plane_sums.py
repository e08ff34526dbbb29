"""Weighted sums of overlapping windows, kept only for the planes that a later window may still cover."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from autoseg.core.arrays import Shape3


class RollingSums:
    """A ring as deep as one window: windows are added in the order of their first plane, finished planes leave.

    The logits of a whole image never exist, however long its first axis is.
    """

    def __init__(self, window: Sequence[int], weights: Sequence[Tensor], device: torch.device) -> None:
        """Prepare for windows of shape (H, *patch) and an image of as many voxels as ``weights`` along each axis.

        The sum at a voxel is multiplied with the product of its three weights (one 1-D tensor per axis) as it leaves.
        """
        along, *across = weights
        n_heads, self._depth = window[:2]
        self._sums = _zeros((n_heads, self._depth, *(len(axis) for axis in across)), device)
        self._plane_weights = outer(across).float().to(self._sums.device)
        self._weights = along.float().to(self._sums.device)
        self._first = 0

    def add(self, corner: Shape3, window: Tensor) -> None:
        """Add a window (H, *patch) at its first voxel, which lies in no plane that was taken."""
        first, y, x = corner
        target = self._sums[:, :, y : y + window.shape[2], x : x + window.shape[3]]
        window = window.to(target.device)
        offset = first % self._depth
        target[:, offset:] += window[:, : self._depth - offset]
        target[:, :offset] += window[:, self._depth - offset :]

    def take(self, stop: int, n_values: int) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first plane, (H, planes, y, x))``, weighted, up to the plane ``stop``; no window covers them later.

        About ``n_values`` values at a time, at least one plane.
        """
        most = max(1, n_values // max(1, self._sums[:, 0].numel()))
        while self._first < stop:
            first, offset = self._first, self._first % self._depth
            n_planes = min(stop - first, self._depth - offset, most)
            part = self._sums[:, offset : offset + n_planes]
            planes = part * self._plane_weights
            planes *= self._weights[first : first + n_planes, None, None]
            part.zero_()
            self._first += n_planes
            yield first, planes


def outer(profiles: Sequence[Tensor]) -> Tensor:
    """Return the product of 1-D profiles as an array with one axis for each."""
    first, *others = profiles
    product = first
    for profile in others:
        product = product[..., None] * profile
    return product


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return zeros on ``device`` if they leave half of its free memory, else on the CPU."""
    if device.type == "cuda" and 4 * math.prod(shape) > torch.cuda.mem_get_info(device)[0] // 2:
        device = torch.device("cpu")
    return torch.zeros(shape, dtype=torch.float32, device=device)
