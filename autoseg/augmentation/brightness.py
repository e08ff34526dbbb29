"""Brightness: multiplication of each channel by a factor."""

from __future__ import annotations

from torch import Generator, Tensor

from autoseg.augmentation.draws import Parameters, Probability, Range, channel_rows, draw_channels, draw_factors


class Brightness(Parameters):
    """Multiply each channel of the drawn samples by its own factor.

    Source: batchgeneratorsv2 ``MultiplicativeBrightnessTransform``.
    """

    probability: Probability = 0.15
    """Probability of a sample."""
    factor_range: Range = (0.75, 1.25)
    """Half of the factors lie below 1, half above; see :func:`autoseg.augmentation.draws.draw_factors`."""

    def change_(self, images: Tensor, generator: Generator) -> None:
        """Change images (B, C, *P) float32 in place."""
        rows = channel_rows(images)
        chosen = draw_channels(images, self.probability, 1.0, generator)
        for row, factor in zip(chosen, draw_factors(len(chosen), self.factor_range, generator).tolist(), strict=True):
            rows[row].mul_(factor)
