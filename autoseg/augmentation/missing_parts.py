"""Missing parts of sections: bands in which nothing was imaged, as by folds and cracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from autoseg.augmentation.draws import Probability, Switchable


class MissingParts(Switchable):
    """Fill a band between opposite borders of a section with the section's mean, in all channels.

    The band is a straight line, dilated. Of two consecutive sections at most one loses parts; a 2-D patch is one
    section. Source: PyTorch Connectomics ``MissingParts``. Differs: the probability is that of a section and counts
    once, not for the sample and again for each section.
    """

    probability: Probability = 0.9
    """Probability of a section, unless the section before it lost parts."""
    iterations: Annotated[int, Field(ge=0)] = 64
    """Dilations of the line, by one voxel along each axis: half of the width of the band, voxels."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Change images (B, C, *P) float32 in place."""
        stacks = images if images.ndim == 5 else images[:, :, None]
        for sample, generator in enumerate(generators):
            for z in self._chosen(stacks.shape[2], generator):
                section = stacks[sample, :, z]
                band = self._band(section, generator)
                section.copy_(torch.where(band, section.mean((1, 2), keepdim=True), section))

    def _chosen(self, n_sections: int, generator: Generator) -> list[int]:
        """Return the sections that lose parts, ascending."""
        chosen: list[int] = []
        for z, number in enumerate(torch.rand(n_sections, generator=generator).tolist()):
            if number < self.probability and (not chosen or chosen[-1] < z - 1):
                chosen.append(z)
        return chosen

    def _band(self, section: Tensor, generator: Generator) -> Tensor:
        """Return (y, x) bool: a random line across a section (C, y, x), dilated.

        The distance to a line, in steps along axes, is that along the axis in which the line is steeper.
        """
        goes_down, start, stop = torch.rand(3, generator=generator).tolist()
        height, width = section.shape[1:]
        rows, columns = (torch.arange(edge, device=section.device) for edge in (height, width))
        length, across = (height, width) if goes_down < 0.5 else (width, height)
        first, last = start * (across - 1), stop * (across - 1)
        slope = (last - first) / max(length - 1, 1)
        along, beside = (rows[:, None], columns[None]) if goes_down < 0.5 else (columns[None], rows[:, None])
        distance = (beside - (first + slope * along)).abs() / max(abs(slope), 1.0)
        is_near: Tensor = distance <= self.iterations + 0.5
        return is_near
