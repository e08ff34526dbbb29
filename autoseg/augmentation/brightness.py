"""Brightness: multiplication of each channel by a factor."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from autoseg.augmentation.draws import Parameters, Probability, Range, channel_rows, draw_channels, draw_factor


class Brightness(Parameters):
    """Multiply each channel of the drawn samples by its own factor.

    Source: batchgeneratorsv2 ``MultiplicativeBrightnessTransform``.
    """

    probability: Probability = 0.15
    """Probability of a sample."""
    factor_range: Range = (0.75, 1.25)
    """Half of the factors lie below 1, half above; see :func:`autoseg.augmentation.draws.draw_factor`."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Change images (B, C, *P) float32 in place."""
        rows = channel_rows(images)
        for row, generator in draw_channels(images, self.probability, 1.0, generators):
            rows[row].mul_(draw_factor(self.factor_range, generator))
