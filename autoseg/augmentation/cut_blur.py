"""A box of the patch with a lower resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from autoseg.augmentation.draws import Probability, Switchable, draw_samples, draw_uniform
from autoseg.augmentation.sub_box import LengthRatio, draw_box

Ratio = Annotated[float, Field(ge=1)]


class CutBlur(Switchable):
    """Sample a box on a coarser grid and back: means of blocks, which are then shown as blocks.

    Source: PyTorch Connectomics ``CutBlur``. Differs: means of blocks, where it interpolates after a Gaussian.
    """

    probability: Probability = 0.5
    """Probability of a sample."""
    length_ratio: LengthRatio = 0.4
    """Edges of the box relative to those of the patch."""
    down_ratio_min: Ratio = 2.0
    """Smallest ratio of the edges of the box on the fine grid and on the coarse one."""
    down_ratio_max: Ratio = 8.0
    """Largest such ratio; uniform in between."""
    downsample_z: bool = False
    """Whether the resolution is also lower along z of a 3-D patch."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.down_ratio_min > self.down_ratio_max:
            raise ValueError(
                f"down_ratio_min {self.down_ratio_min:g}, down_ratio_max {self.down_ratio_max:g}: expected the former "
                "not to be larger. Set both."
            )
        return self

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Change images (B, C, *P) float32 in place."""
        for sample, generator in draw_samples(self.probability, generators):
            box = draw_box(images.shape[2:], self.length_ratio, generator)
            (ratio,) = draw_uniform(1, (self.down_ratio_min, self.down_ratio_max), generator)
            part = images[sample][(slice(None), *box)]
            part.copy_(self._blurred(part, ratio))

    def _blurred(self, part: Tensor, ratio: float) -> Tensor:
        """Return the box (C, *box) sampled on a grid that is coarser by ``ratio``, and back."""
        edges = part.shape[1:]
        coarse = [max(1, round(edge / ratio)) for edge in edges]
        if len(edges) == 3 and not self.downsample_z:
            coarse[0] = edges[0]
        if len(edges) == 3:
            blocks = adaptive_avg_pool3d(part, (coarse[0], coarse[1], coarse[2]))
        else:
            blocks = adaptive_avg_pool2d(part, (coarse[0], coarse[1]))
        for axis, (edge, few) in enumerate(zip(edges, coarse, strict=True), 1):
            if few != edge:
                places = torch.arange(edge, device=part.device) * few // edge
                blocks = blocks.index_select(axis, places)
        return blocks
