"""Gaussian blur."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from autoseg.augmentation.draws import (
    Parameters,
    PositiveRange,
    Probability,
    channel_rows,
    draw_channels,
    draw_uniform,
)


class Blur(Parameters):
    """Blur channels with a Gaussian. Channels are mirrored at the border.

    The kernel has the odd length nearest to ``6 sigma + 0.5``. Axes of length 1 are not blurred.
    Source: batchgeneratorsv2 ``GaussianBlurTransform``.
    """

    probability: Probability = 0.2
    """Probability of a sample."""
    channel_probability: Probability = 0.5
    """Probability of each channel of such a sample."""
    sigma_range: PositiveRange = (0.5, 1.0)
    """Standard deviation in voxels, uniform in this range, drawn per channel and axis."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Blur images (B, C, *P) float32 in place."""
        rows = channel_rows(images)
        for row, generator in draw_channels(images, self.probability, self.channel_probability, generators):
            blurred = rows[row]
            for axis, value in enumerate(draw_uniform(blurred.ndim, self.sigma_range, generator)):
                blurred = _blur_axis(blurred, axis, value)
            rows[row] = blurred


def kernel_length(sigma: float) -> int:
    """Return the odd number nearest to ``6 sigma + 0.5``: the length of the blur kernel in voxels."""
    wanted = 6 * sigma + 0.5
    rounded = round(wanted)
    if rounded % 2 == 1:
        return rounded
    return rounded + 1 if wanted >= rounded else rounded - 1


def _blur_axis(channel: Tensor, axis: int, sigma: float) -> Tensor:
    """Return a channel (*P), convolved along ``axis``.

    It is a sum of weighted shifted copies, which is faster than a convolution call for few taps.
    """
    length = channel.shape[axis]
    radius = kernel_length(sigma) // 2
    if length == 1 or radius == 0:
        return channel
    taps = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(radius + 1)]
    weights = [tap / (taps[0] + 2 * sum(taps[1:])) for tap in taps]
    before = _reflected(torch.arange(-radius, 0, device=channel.device), length)
    after = _reflected(torch.arange(length, length + radius, device=channel.device), length)
    padded = torch.cat([channel.index_select(axis, before), channel, channel.index_select(axis, after)], axis)
    blurred = channel * weights[0]
    for distance in range(1, radius + 1):
        blurred.add_(padded.narrow(axis, radius - distance, length), alpha=weights[distance])
        blurred.add_(padded.narrow(axis, radius + distance, length), alpha=weights[distance])
    return blurred


def _reflected(positions: Tensor, length: int) -> Tensor:
    """Return indices (n,) into an axis of ``length``: ``positions`` (n,), mirrored at the first and last voxel.

    The first and last voxel are not repeated. Positions may lie at any distance outside.
    """
    period = 2 * (length - 1)
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded)
