"""Contrast: scaling of each channel around its mean by a factor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from autoseg.augmentation.draws import Parameters, Probability, Range, channel_rows, draw_channels, draw_factor


class Contrast(Parameters):
    """Scale each channel of the drawn samples around its mean, clamped to its old minimum and maximum.

    Source: batchgeneratorsv2 ``ContrastTransform`` with ``preserve_range``.
    """

    probability: Probability = 0.15
    """Probability of a sample."""
    factor_range: Range = (0.75, 1.25)
    """Half of the factors lie below 1, half above; see :func:`autoseg.augmentation.draws.draw_factor`."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Change images (B, C, *P) float32 in place."""
        rows = channel_rows(images)
        for row, generator in draw_channels(images, self.probability, 1.0, generators):
            factor = draw_factor(self.factor_range, generator)
            channel = rows[row]
            low, high = torch.aminmax(channel)
            mean = channel.mean()
            channel.sub_(mean).mul_(factor).add_(mean).clamp_(low, high)
