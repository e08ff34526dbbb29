"""Rotation of a patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from autoseg.augmentation.draws import Parameters, Probability
from autoseg.augmentation.warp import Matrix, Warp, embedded


class Rotate(Parameters):
    """Rotate about the patch's centre: by one angle in the plane, or by one angle about each axis, axis 0 first.

    Source: batchgeneratorsv2 ``SpatialTransform``.
    """

    probability: Probability = 0.2
    """Probability of a sample."""
    degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    """Largest angle, degrees. Angles are uniform between minus and plus this number."""
    in_plane: bool = False
    """Whether 3-D patches are rotated within the last two axes only (thick slices)."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` with a further random rotation, for a patch of 2 or 3 axes."""
        if rng.random() >= self.probability:
            return before
        n_moving = 2 if self.in_plane else len(patch)
        limit = math.radians(self.degrees)
        matrix = rotation_matrix(rng.uniform(-limit, limit, size=1 if n_moving == 2 else 3))
        return before.after(embedded(matrix, len(patch)))


def rotation_matrix(angles: Sequence[float] | NDArray[np.float64]) -> Matrix:
    """Return the rotation matrix (2, 2) for one angle, or (3, 3) for three: about axis 0, then 1, then 2. Radians."""
    if len(angles) == 1:
        return _plane_rotation(2, 0, 1, angles[0])
    first, second, third = angles
    return _plane_rotation(3, 0, 1, third) @ _plane_rotation(3, 2, 0, second) @ _plane_rotation(3, 1, 2, first)


def _plane_rotation(n_axes: int, first: int, second: int, angle: float) -> Matrix:
    """Return (n_axes, n_axes): rotation by ``angle`` (radians) from axis ``first`` to axis ``second``.

    Multiples of 90 degrees are exact.
    """
    matrix = np.eye(n_axes)
    cosine, sine = (round(value, 15) for value in (math.cos(angle), math.sin(angle)))
    matrix[first, first] = matrix[second, second] = cosine
    matrix[second, first], matrix[first, second] = sine, -sine
    return matrix
