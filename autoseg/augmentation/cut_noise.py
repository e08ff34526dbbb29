"""Noise in a box of the patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from autoseg.augmentation.draws import Probability, Switchable, draw_samples, generator_on
from autoseg.augmentation.sub_box import LengthRatio, draw_box


class CutNoise(Switchable):
    """Add uniform noise in a box, independent in every voxel and channel, within the old range of the channel.

    Source: PyTorch Connectomics ``CutNoise``. Differs: in units of the range of each channel in the patch, which is
    clipped to this range; there intensities are 0 to 1.
    """

    probability: Probability = 0.75
    """Probability of a sample."""
    length_ratio: LengthRatio = 0.4
    """Edges of the box relative to those of the patch."""
    scale: Annotated[float, Field(ge=0)] = 0.3
    """Largest noise relative to the range of a channel; uniform from minus to plus this number."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Change images (B, C, *P) float32 in place."""
        for sample, generator in draw_samples(self.probability, generators):
            box = draw_box(images.shape[2:], self.length_ratio, generator)
            of_voxels = generator_on(images.device, generator)
            for channel in images[sample]:
                low, high = torch.aminmax(channel)
                part = channel[box]
                noise = torch.rand(part.shape, generator=of_voxels, device=images.device, dtype=images.dtype)
                part.add_(noise.sub_(0.5).mul_(2 * self.scale * (high - low))).clamp_(low, high)
