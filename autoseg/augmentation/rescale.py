"""Scaling in the plane of sections, by its own factor along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from autoseg.augmentation.draws import Probability, Switchable
from autoseg.augmentation.enlarged import Size, in_plane_size
from autoseg.augmentation.warp import Warp, embedded

Factor = Annotated[float, Field(gt=0)]


class Rescale(Switchable):
    """Enlarge or reduce a patch about its centre along the last two axes.

    Source: PyTorch Connectomics ``Rescale``. Differs: what lies around a reduced patch is read, where it fills in 0;
    an enlarged part lies around the centre, since patches lie at random places anyway.
    """

    probability: Probability = 0.5
    """Probability of a sample."""
    low: Factor = 0.8
    """Smallest factor; below 1, objects get smaller."""
    high: Factor = 1.25
    """Largest factor; uniform in between."""
    fix_aspect: bool = False
    """Whether both axes have the same factor."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g}, high {self.high:g}: expected low <= high. Set both.")
        return self

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` with a further random scaling, for a patch of 2 or 3 axes."""
        if rng.random() >= self.probability:
            return before
        factors = rng.uniform(self.low, self.high, size=2)
        if self.fix_aspect:
            factors[1] = factors[0]
        return before.after(embedded(np.diag(1 / factors), len(patch)))

    def sample_size(self, size: Size) -> Size:
        """Return the edges of the sample that a patch with edges ``size`` is cut out of."""
        return in_plane_size(size, ratio=max(1 / self.low, 1.0))
