"""Missing parts of sections: bands in which nothing was imaged, as by folds and cracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from autoseg.augmentation.draws import Probability, Switchable

PARTS_OF_EDGE = 4
"""A band is at most half as wide as the shorter edge of a section: with the default, from 256 voxels on it is narrower
than that, as in the reference, whose patches have 257."""


class MissingParts(Switchable):
    """Fill a band between opposite borders of a section with the section's mean, in all channels.

    The band is a straight line, dilated. Of two consecutive sections at most one loses parts; a 2-D patch is one
    section. Source: PyTorch Connectomics ``MissingParts``. Differs: the probability is that of a section and counts
    once, not for the sample and again for each section; the band is narrower in small patches, of which nothing would
    be left.
    """

    probability: Probability = 0.9
    """Probability of a section, unless the section before it lost parts."""
    iterations: Annotated[int, Field(ge=0)] = 64
    """Dilations of the line, by one voxel along each axis: half of the width of the band, voxels. At most a quarter of
    the shorter edge of the section."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Change images (B, C, *P) float32 in place."""
        stacks = images if images.ndim == 5 else images[:, :, None]
        for sample, generator in enumerate(generators):
            for z in self._chosen(stacks.shape[2], generator):
                section = stacks[sample, :, z]
                band = self._band(section, generator)
                for channel in section:
                    channel.masked_fill_(band, channel.mean())

    def _chosen(self, n_sections: int, generator: Generator) -> list[int]:
        """Return the sections that lose parts, ascending."""
        chosen: list[int] = []
        for z, number in enumerate(torch.rand(n_sections, generator=generator).tolist()):
            if number < self.probability and (not chosen or chosen[-1] < z - 1):
                chosen.append(z)
        return chosen

    def _band(self, section: Tensor, generator: Generator) -> Tensor:
        """Return (y, x) bool: a random line across a section (C, y, x), dilated.

        In steps along axes, the distance to a line is that along the axis that the line crosses less steeply.
        """
        goes_down, start, stop = torch.rand(3, generator=generator).tolist()
        height, width = section.shape[1:]
        length, across = (height, width) if goes_down < 0.5 else (width, height)
        slope = (stop - start) * (across - 1) / max(length - 1, 1)
        middle = start * (across - 1) + slope * torch.arange(length)
        reach = (min(self.iterations, min(height, width) // PARTS_OF_EDGE) + 0.5) * max(abs(slope), 1.0)
        low, high = (
            part.to(section.device, torch.int32)[:, None] for part in ((middle - reach).ceil(), middle + reach)
        )
        beside = torch.arange(across, dtype=torch.int32, device=section.device)
        band: Tensor = (beside >= low) & (beside <= high)
        return band if goes_down < 0.5 else band.T
