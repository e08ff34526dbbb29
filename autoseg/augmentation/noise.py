"""Gaussian noise."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from autoseg.augmentation.draws import Parameters, Probability, Range, device_generator, draw_samples, draw_uniform


class Noise(Parameters):
    """Add Gaussian noise: one standard deviation per sample, independent values per voxel.

    Source: batchgeneratorsv2 ``GaussianNoiseTransform`` (whose ``noise_variance`` is used as a standard deviation).
    """

    probability: Probability = 0.1
    """Probability of a sample."""
    sigma_range: Range = (0.0, 0.1)
    """Standard deviation, uniform, in units of the normalised image; equal for all channels of a sample."""

    def change_(self, images: Tensor, generator: Generator) -> None:
        """Add noise to images (B, C, *P) float32 in place."""
        samples = draw_samples(len(images), self.probability, generator)
        if not samples:
            return
        sigma = draw_uniform(len(samples), self.sigma_range, generator)
        source = device_generator(images.device, generator)
        for index, scale in zip(samples, sigma.tolist(), strict=True):
            noise = torch.randn(images.shape[1:], generator=source, device=images.device, dtype=images.dtype)
            images[index].add_(noise, alpha=scale)
