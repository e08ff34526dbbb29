"""Rotation in the plane of sections, by quarter turns or by any angle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.augmentation.draws import Probability, Switchable
from autoseg.augmentation.enlarged import Size, in_plane_size
from autoseg.augmentation.rotate import Rotate
from autoseg.augmentation.warp import Warp

LARGEST_RATIO = 1.42
"""Edge of a sample relative to that of the patch for any angle: the square root of 2. Source: PyTorch Connectomics."""


class Turn(Switchable):
    """Rotate about the patch's centre within the last two axes.

    Source: PyTorch Connectomics ``Rotate``. Differs: what lies around a patch is read, where it fills in 0.
    """

    probability: Probability = 1.0
    """Probability of a sample."""
    rot90: bool = True
    """Whether only by 0, 90, 180 or 270 degrees, each as likely, where voxels are only copied (a patch that is not
    square by 0 or 180); otherwise by any angle."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` with a further random rotation, for a patch of 2 or 3 axes."""
        if not self.rot90:
            return Rotate(probability=self.probability, degrees=180, in_plane=True).warp(before, patch, rng)
        if rng.random() >= self.probability:
            return before
        quarters = int(rng.integers(4))
        if patch[-1] != patch[-2]:
            quarters -= quarters % 2
        lead = len(patch) - 2
        order = (lead, lead + 1) if quarters % 2 == 0 else (lead + 1, lead)
        flips = (quarters in (1, 2), quarters in (2, 3))
        return before.rearranged((*range(lead), *order), (*(False,) * lead, *flips)) if quarters else before

    def sample_size(self, size: Size) -> Size:
        """Return the edges of the sample that a patch with edges ``size`` is cut out of."""
        return size if self.rot90 else in_plane_size(size, ratio=LARGEST_RATIO)
