"""Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from autoseg.augmentation.draws import Parameters, Probability, Range, draw_samples, draw_uniform, generator_on


class Noise(Parameters):
    """Add Gaussian noise: one standard deviation per sample, independent values per voxel.

    Source: batchgeneratorsv2 ``GaussianNoiseTransform`` (whose ``noise_variance`` is used as a standard deviation).
    """

    probability: Probability = 0.1
    """Probability of a sample."""
    sigma_range: Range = (0.0, 0.1)
    """Standard deviation, uniform, in units of the normalised image; equal for all channels of a sample."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Add noise to images (B, C, *P) float32 in place."""
        for sample, generator in draw_samples(self.probability, generators):
            (sigma,) = draw_uniform(1, self.sigma_range, generator)
            of_voxels = generator_on(images.device, generator)
            noise = torch.randn(images.shape[1:], generator=of_voxels, device=images.device, dtype=images.dtype)
            images[sample].add_(noise, alpha=sigma)
