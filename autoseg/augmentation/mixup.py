"""Mixup: patches mixed with others of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Generator

from autoseg.augmentation.draws import Probability, Switchable, draw_uniform
from autoseg.augmentation.patches import Patches


class Mixup(Switchable):
    """Add to some patches of a batch another one, each with a weight; labels are those of the patch that weighs more.

    A batch with one patch stays. Of a batch that several processes share, each mixes its own patches, so the result
    depends on their number. All random numbers come from the generator of the first sample.
    Source: PyTorch Connectomics ``Mixup``.
    """

    enabled: bool = False
    """Whether the recipe em has the operation."""
    probability: Probability = 1.0
    """Probability of a batch."""
    min_ratio: Annotated[float, Field(ge=0.5, le=1)] = 0.7
    """Smallest weight of the patch that keeps its labels."""
    max_ratio: Annotated[float, Field(ge=0.5, le=1)] = 0.9
    """Largest such weight; uniform in between."""
    num_aug: Annotated[int, Field(ge=1)] = 2
    """Number of patches of a batch that are changed; in a smaller batch, all."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.min_ratio > self.max_ratio:
            raise ValueError(
                f"min_ratio {self.min_ratio:g}, max_ratio {self.max_ratio:g}: expected the former not to be larger. "
                "Set both."
            )
        return self

    def change_patches_(self, patches: Patches, generators: Sequence[Generator]) -> None:
        """Change the images of ``patches`` in place."""
        n_samples, generator = len(patches.images), generators[0]
        if n_samples < 2 or torch.rand(1, generator=generator).item() >= self.probability:
            return
        before = patches.images.clone()
        for major in torch.randperm(n_samples, generator=generator)[: self.num_aug].tolist():
            distance = int(torch.randint(1, n_samples, (1,), generator=generator))
            (ratio,) = draw_uniform(1, (self.min_ratio, self.max_ratio), generator)
            patches.images[major].mul_(ratio).add_(before[(major + distance) % n_samples], alpha=1 - ratio)
