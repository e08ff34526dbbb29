"""Blur along one axis of single sections, as by a stage that moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor
from torch.nn.functional import pad

from autoseg.augmentation.draws import Probability, Switchable, draw_samples


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"found {value}, expected an odd number. Write {value + 1}.")
    return value


class MotionBlur(Switchable):
    """Replace voxels of single sections by the mean of those around them along y, or along x, in all channels.

    At the border voxels repeat. A 2-D patch is one section. Source: PyTorch Connectomics ``MotionBlur``. Differs: the
    axis is drawn for each section, and all random numbers come from the generator of the sample.
    """

    probability: Probability = 0.5
    """Probability of a sample."""
    sections: Annotated[int, Field(ge=1)] = 2
    """Number of sections that are blurred; in a patch with fewer, all."""
    kernel_size: Annotated[int, Field(ge=1), AfterValidator(_odd)] = 11
    """Number of voxels in a mean; odd."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Change images (B, C, *P) float32 in place."""
        stacks = images if images.ndim == 5 else images[:, :, None]
        for sample, generator in draw_samples(self.probability, generators):
            chosen = torch.randperm(stacks.shape[2], generator=generator)[: self.sections].tolist()
            along_x = torch.randint(2, (len(chosen),), generator=generator).tolist()
            for z, is_along_x in zip(chosen, along_x, strict=True):
                section = stacks[sample, :, z]
                section.copy_(box_filtered(section, self.kernel_size, along_x=bool(is_along_x)))


def box_filtered(section: Tensor, length: int, *, along_x: bool) -> Tensor:
    """Return a section (C, y, x), each voxel the mean of the ``length`` (odd) around it along one axis."""
    half, axis = length // 2, 2 if along_x else 1
    padded = pad(section[None], (half, half, 0, 0) if along_x else (0, 0, half, half), mode="replicate")[0]
    total = torch.zeros_like(section)
    for start in range(length):  # faster than a convolution or pooling for few taps
        total.add_(padded.narrow(axis, start, section.shape[axis]))
    return total.div_(length)
