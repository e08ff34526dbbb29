"""Observer that keeps whole volumes, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autoseg.inference.decided import DecidedSlab


@dataclass
class Recorder:
    """Keeps what it gets; refuses planes out of order."""

    needs_members: bool
    slabs: list[DecidedSlab] = field(default_factory=list)

    def __call__(self, slab):
        assert slab.first == sum(len(earlier.values) for earlier in self.slabs)
        self.slabs.append(slab)

    @property
    def values(self):
        """(planes, y, x) of all slabs."""
        return np.concatenate([slab.values for slab in self.slabs])

    @property
    def probabilities(self):
        """(H, planes, y, x) of all slabs."""
        return np.concatenate([slab.probabilities for slab in self.slabs], axis=1)

    @property
    def members(self):
        """M of (H, planes, y, x) of all slabs."""
        return [np.concatenate(own, axis=1) for own in zip(*(slab.members for slab in self.slabs), strict=True)]
