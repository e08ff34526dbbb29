"""Reflections and transpositions: copies of a patch in another orientation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from autoseg.augmentation.draws import Probability, Switchable
from autoseg.augmentation.enlarged import Size
from autoseg.augmentation.warp import Warp

Axis = Annotated[int, Field(ge=0, le=2)]
EACH = 0.5
"""Probability of each reflection and transposition of a chosen sample."""


def _axes(value: Any) -> Any:
    """Read ``0,1,2`` as axes, and an empty text as none."""
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Flip(Switchable):
    """Reflect a patch along each axis and swap axes, each with probability 1/2.

    Axes are swapped only if they have equally many voxels, so that the patch keeps its shape.
    Source: PyTorch Connectomics ``Flip`` (``do_ztrans`` is ``z_transpose``).
    """

    probability: Probability = 1.0
    """Probability of a sample."""
    axes: Annotated[tuple[Axis, ...], BeforeValidator(_axes)] = (0, 1, 2)
    """Patch axes that may be reflected; 0 is z of a 3-D patch; those it lacks do not count. Prediction averages
    over the same mirrored copies."""
    transpose: bool = True
    """Whether the last two axes may be swapped."""
    z_transpose: bool = False
    """Whether also the first and the last axis of a 3-D patch may be swapped: for cubic patches of isotropic data."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` in a random orientation, for a patch of 2 or 3 axes."""
        n_axes = len(patch)
        is_chosen, swaps_plane, swaps_z, *flips = rng.random(6)
        if is_chosen >= self.probability:
            return before
        order = list(range(n_axes))
        if self.transpose and swaps_plane < EACH and patch[-1] == patch[-2]:
            order[-2:] = order[:-3:-1]
        if self.z_transpose and n_axes == 3 and swaps_z < EACH and patch[0] == patch[-1]:
            order[0], order[-1] = order[-1], order[0]
        mirrors = [axis in self.axes and flips[axis] < EACH for axis in range(n_axes)]
        if order == list(range(n_axes)) and not any(mirrors):
            return before
        return before.rearranged(order, mirrors)

    def sample_size(self, size: Size) -> Size:
        """Return the edges of the sample that a patch with edges ``size`` is cut out of: the same."""
        return size
