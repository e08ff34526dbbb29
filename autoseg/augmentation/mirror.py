"""Mirroring of a patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoseg.augmentation.draws import Parameters, Probability
from autoseg.augmentation.warp import Warp


class Mirror(Parameters):
    """Flip patch axes, each independently. Source: batchgeneratorsv2 ``MirrorTransform``."""

    probability: Probability = 0.5
    """Probability of each axis."""
    axes: tuple[int, ...] = (0, 1, 2)
    """Patch axes that may be flipped. Prediction averages over the same mirrored copies."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` with further random flips, for a patch of 2 or 3 axes."""
        flips = rng.random(len(patch)) < self.probability
        drawn = tuple(bool(flips[axis]) and axis in self.axes for axis in range(len(patch)))
        return replace(before, mirrors=tuple(a != b for a, b in zip(before.mirrors, drawn, strict=True)))
