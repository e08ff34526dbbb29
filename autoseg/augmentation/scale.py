"""Scaling of a patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.augmentation.draws import Parameters, PositiveRange, Probability
from autoseg.augmentation.warp import Warp, embedded


class Scale(Parameters):
    """Scale about the patch's centre, by the same factor along all axes.

    Source: batchgeneratorsv2 ``SpatialTransform``.
    """

    probability: Probability = 0.2
    """Probability of a sample."""
    factor_range: PositiveRange = (0.7, 1.4)
    """Source voxels per patch voxel, uniform in this range. Above 1, objects get smaller."""
    in_plane: bool = False
    """Whether 3-D patches are scaled along the last two axes only (thick slices)."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` with a further random scaling, for a patch of 2 or 3 axes."""
        if rng.random() >= self.probability:
            return before
        n_moving = 2 if self.in_plane else len(patch)
        return before.after(embedded(np.eye(n_moving) * rng.uniform(*self.factor_range), len(patch)))
