"""Elastic deformation in the plane of sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.ndimage import gaussian_filter

from autoseg.augmentation.draws import Probability, Switchable
from autoseg.augmentation.enlarged import Size, in_plane_size
from autoseg.augmentation.warp import Warp


class Elastic(Switchable):
    """Displace voxels within the plane by a smooth random field, the same in every section.

    Source: PyTorch Connectomics ``Elastic``: noise, uniform from -1 to 1, is blurred by a Gaussian and multiplied. With
    the defaults a voxel is displaced by 0.65 voxels (standard deviation, per axis).
    """

    probability: Probability = 0.75
    """Probability of a sample."""
    alpha: Annotated[float, Field(ge=0)] = 16.0
    """Factor of the blurred noise, voxels: the largest displacement that is possible."""
    sigma: Annotated[float, Field(gt=0)] = 4.0
    """Standard deviation of the Gaussian, voxels."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` with a further random displacement, for a patch of 2 or 3 axes."""
        if rng.random() >= self.probability or self.alpha == 0:
            return before
        noise = rng.random((2, *patch[-2:]), dtype=np.float32) * 2 - 1
        smooth = gaussian_filter(noise, (0, self.sigma, self.sigma), mode="wrap")
        return before.displaced(self.alpha * smooth)

    def sample_size(self, size: Size) -> Size:
        """Return the edges of the sample that a patch with edges ``size`` is cut out of."""
        return in_plane_size(size, add=int(self.alpha) + 1)
