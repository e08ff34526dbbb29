"""Misaligned sections: one that slipped, or all from one on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from autoseg.augmentation.draws import Probability, Switchable
from autoseg.augmentation.enlarged import Size, in_plane_size
from autoseg.augmentation.sections import Section
from autoseg.augmentation.warp import Warp

SLIP = 0.5
"""Share of slips; the others are translations."""


class MisAlignment(Switchable):
    """Shift or rotate sections in the plane, in image and labels.

    A *slip* moves one section between others; a *translation* moves all from a section on to the end. Half are slips.
    The others stay. In a patch with two sections the second is moved, one with a single section stays, as does a 2-D
    one. Source: PyTorch Connectomics ``MisAlignment``. Differs: what enters is read, where a rotation there fills in 0;
    patches with few sections raise no error; all channels move.
    """

    probability: Probability = 0.5
    """Probability of a sample."""
    displacement: Annotated[int, Field(ge=1)] = 16
    """A shift along an axis is below this, in whole voxels: the difference of two numbers, uniform from 0 to this - 1.
    By a rotation no voxel is moved further."""
    rotate_ratio: Probability = 0.5
    """Share of rotations; the others are shifts."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` with randomly drawn sections moved."""
        if rng.random() >= self.probability or len(patch) < 3 or patch[0] < 2:
            return before
        rotates, slips = rng.random(2) < (self.rotate_ratio, SLIP)
        move = Section(angle=self._angle(patch, rng)) if rotates else Section(shift=self._shift(rng))
        first = int(rng.integers(1, max(patch[0] - 1, 2)))
        stop = first + 1 if slips else patch[0]
        return before.with_sections([move if first <= z < stop else Section() for z in range(patch[0])])

    def _shift(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return a shift (y, x) in whole voxels, at least one of them not 0 if ``displacement`` allows for it."""
        places = rng.integers(self.displacement, size=(2, 2))
        while self.displacement > 1 and (places[0] == places[1]).all():
            places = rng.integers(self.displacement, size=(2, 2))
        y, x = (places[1] - places[0]).tolist()
        return float(y), float(x)

    def _angle(self, patch: Sequence[int], rng: np.random.Generator) -> float:
        """Return an angle (radians) by which no voxel moves by more than ``displacement``."""
        largest = largest_angle(self.displacement, patch)
        return float(rng.uniform(-largest, largest))

    def sample_size(self, size: Size) -> Size:
        """Return the edges of the sample that a patch with edges ``size`` is cut out of."""
        return size if len(size) < 3 else in_plane_size(size, add=-(-self.displacement // 2))


def largest_angle(displacement: float, patch: Sequence[int]) -> float:
    """Return the angle (radians) by which a corner of the plane of ``patch`` moves by ``displacement`` voxels."""
    half_diagonal = math.hypot(*patch[-2:]) / 2
    return 2 * math.asin(min(1.0, displacement / 2 / max(half_diagonal, 0.5)))
