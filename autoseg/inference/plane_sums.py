"""Weighted sums of overlapping windows, kept in memory only for planes that a later window may still cover."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box


class PlaneSums:
    """Sums of windows in a circular buffer of as many planes as one window has.

    Windows are added in the order of their first plane, and finished planes are taken out. So memory does not grow
    with the number of planes of the image.
    """

    def __init__(
        self, window: Sequence[int], weights: Sequence[Tensor], device: torch.device, start: Shape3 = (0, 0, 0)
    ) -> None:
        """Allocate the buffer for windows of shape (O, *patch).

        ``weights`` are three tensors, (z,), (y,) and (x,) for a region of shape (z, y, x). The sum at a voxel is
        multiplied with the product of its three weights when it is taken. ``start`` is the first voxel of the region,
        where the corners of windows count from 0; what reaches out of the region is cut off.
        """
        self._start = start
        along, *across = weights
        n_heads, self._depth = window[:2]
        self._sums = _zeros((n_heads, self._depth, *(len(axis) for axis in across)), device)
        self._plane_weights = outer(across).float().to(self._sums.device)
        self._weights = along.float().to(self._sums.device)
        self._first = 0

    def add(self, corner: Shape3, window: Tensor) -> None:
        """Add a window (O, *patch) whose first voxel is ``corner``, in a plane that was not taken yet."""
        lengths = (len(self._weights), *self._sums.shape[2:])
        at = [first - start for first, start in zip(corner, self._start, strict=True)]
        lows = [max(0, first) for first in at]
        highs = [min(first + edge, n) for first, edge, n in zip(at, window.shape[1:], lengths, strict=True)]
        z, y, x = (slice(low - first, high - first) for low, high, first in zip(lows, highs, at, strict=True))
        window = window[:, z, y, x].to(self._sums.device)
        target = self._sums[:, :, lows[1] : highs[1], lows[2] : highs[2]]
        offset = lows[0] % self._depth
        n_planes = window.shape[1]
        n_before_end = min(n_planes, self._depth - offset)
        target[:, offset : offset + n_before_end] += window[:, :n_before_end]
        target[:, : n_planes - n_before_end] += window[:, n_before_end:]

    def take(self, stop: int, n_values: int) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first plane, weighted sums (O, planes, y, x) float32)`` up to the plane ``stop`` of the region.

        No window may be added to these planes later. Each item has about ``n_values`` values, at least one plane.
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


class PartialPlaneSums:
    """Weighted means of windows that leave voxels uncovered, taken plane by plane as from :class:`PlaneSums`.

    Weights are summed like one more output, because without all windows of a grid their sum is not a product over axes.
    """

    def __init__(self, profiles: Sequence[Tensor], region: Box, elsewhere: Tensor, device: torch.device) -> None:
        """Allocate the buffer.

        Parameters
        ----------
        profiles
            Weights of a window's voxels along its axes, (z,), (y,) and (x,), above 0; windows come multiplied by them.
        region
            Voxels (z, y, x) that are summed.
        elsewhere
            (O,): value of each output at voxels that no window covers.
        device
            Where sums are kept if they take at most half of its free memory.
        """
        self._window_weights = outer(profiles)[None]
        window = (len(elsewhere) + 1, *self._window_weights.shape[1:])
        self._sums = PlaneSums(window, [torch.ones(edge) for edge in region.shape], device, region.start)
        self._elsewhere = elsewhere[:, None, None, None]

    def add(self, corner: Shape3, window: Tensor) -> None:
        """Add a window (O, *patch); see :meth:`PlaneSums.add`."""
        self._sums.add(corner, torch.cat((window, self._window_weights.to(window.device))))

    def take(self, stop: int, n_values: int) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first plane, weighted means (O, planes, y, x) float32)``; see :meth:`PlaneSums.take`."""
        for first, planes in self._sums.take(stop, n_values):
            sums, weights = planes[:-1], planes[-1:]
            yield first, torch.where(weights > 0, sums / weights, self._elsewhere.to(planes.device))


def outer(profiles: Sequence[Tensor]) -> Tensor:
    """Return the outer product of n profiles, each (size,), as a tensor with n axes: (n0, n1, ...)."""
    first, *others = profiles
    product = first
    for profile in others:
        product = product[..., None] * profile
    return product


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return float32 zeros of ``shape`` on ``device`` if they take at most half of its free memory, else on the CPU."""
    if device.type == "cuda" and 4 * math.prod(shape) > torch.cuda.mem_get_info(device)[0] // 2:
        device = torch.device("cpu")
    return torch.zeros(shape, dtype=torch.float32, device=device)
