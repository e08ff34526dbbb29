"""Elastic deformation in the plane of sections."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import fft

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
        return before.displaced(self.alpha * _smooth_noise(patch[-2:], self.sigma, rng))

    def sample_size(self, size: Size) -> Size:
        """Return the edges of the sample that a patch with edges ``size`` is cut out of."""
        return in_plane_size(size, add=int(self.alpha) + 1)


def _smooth_noise(plane: Sequence[int], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return two fields (2, y, x) of noise, uniform from -1 to 1, blurred by a Gaussian of ``sigma`` voxels.

    The noise is blurred as if it were repeated, in the next larger plane whose Fourier transform is fast.
    """
    larger = tuple(fft.next_fast_len(edge, real=True) for edge in plane)
    noise = rng.random((2, *larger), dtype=np.float32) * 2 - 1
    smooth: NDArray[np.float32] = fft.irfft2(fft.rfft2(noise) * _gaussian(larger, sigma), larger)
    return smooth[:, : plane[0], : plane[1]]


@lru_cache(maxsize=8)
def _gaussian(plane: tuple[int, ...], sigma: float) -> NDArray[np.float32]:
    """Return the Fourier transform (y, x // 2 + 1) of a Gaussian kernel with sum 1 in a plane (y, x)."""
    frequencies = np.meshgrid(fft.fftfreq(plane[0]), fft.rfftfreq(plane[1]), indexing="ij")
    gaussian: NDArray[np.float32] = np.exp(-2 * (np.pi * sigma) ** 2 * np.square(frequencies).sum(axis=0))
    return gaussian.astype(np.float32)
