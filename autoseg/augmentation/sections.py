"""Moves of single sections of a 3-D patch, as they occur where tissue is cut into sections and imaged one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Section(NamedTuple):
    """Move of one section of a patch, besides the move of the whole."""

    step: int = 0
    """Sections by which the source is displaced along axis 0."""
    angle: float = 0.0
    """Rotation in the plane about the patch's centre, radians."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Displacement in the plane (y, x), source voxels."""

    def after(self, before: Section) -> Section:
        """Return both moves together."""
        (y, x), (other_y, other_x) = self.shift, before.shift
        return Section(self.step + before.step, self.angle + before.angle, (y + other_y, x + other_x))


def runs(sections: Sequence[Section]) -> Iterator[tuple[slice, Section, list[int]]]:
    """Yield runs of consecutive sections that move alike in the plane: which, the move of the first, and their steps.

    The runs follow each other and hold all sections.
    """
    start = 0
    for _, members in groupby(sections, key=lambda section: section[1:]):
        run = list(members)
        yield slice(start, start + len(run)), run[0], [section.step for section in run]
        start += len(run)


def plane_rotation(angle: float) -> Matrix:
    """Return (2, 2): the rotation by ``angle`` (radians); the identity for 0."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def is_on_grid(matrix: Matrix, centre: Sequence[float], patch: Sequence[int]) -> bool:
    """Whether the voxels of a patch of m axes lie on voxels of its source, so that they are only copied.

    ``matrix`` (m, m) and ``centre`` (m,) as in :class:`autoseg.augmentation.warp.Warp`.
    """
    first = np.asarray(centre) - (np.asarray(patch) - 1) / 2
    return bool(np.array_equal(matrix, np.eye(len(matrix))) and np.abs(first - np.rint(first)).max() < 1e-6)
