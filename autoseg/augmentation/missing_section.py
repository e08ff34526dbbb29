"""Missing sections: some that were lost in cutting are not in the stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from autoseg.augmentation.draws import Probability, Switchable
from autoseg.augmentation.enlarged import Size
from autoseg.augmentation.sections import Section
from autoseg.augmentation.warp import Warp


class MissingSection(Switchable):
    """Leave sections out, in image and labels: those behind move up, and as many further ones are read.

    The first and the last section of a patch are never left out. A patch with one section, and a 2-D one, stays.
    Source: PyTorch Connectomics ``MissingSection``, which raises an error for patches with few sections.
    """

    probability: Probability = 0.5
    """Probability of a sample."""
    num_sections: Annotated[int, Field(ge=1)] = 2
    """Number of sections that are left out."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` without some randomly drawn sections."""
        if rng.random() >= self.probability or len(patch) < 3 or patch[0] < 2:
            return before
        inner = np.arange(1, patch[0] + self.num_sections - 1)
        missing = rng.choice(inner, size=self.num_sections, replace=False)
        shown = np.setdiff1d(np.arange(patch[0] + self.num_sections), missing)
        steps = shown - np.arange(patch[0])
        return before.with_sections([Section(step=int(step)) for step in steps])

    def sample_size(self, size: Size) -> Size:
        """Return the edges of the sample that a patch with edges ``size`` is cut out of."""
        return size if len(size) < 3 else (size[0] + 2 * -(-self.num_sections // 2), *size[1:])
