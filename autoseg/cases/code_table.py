"""The code table of a case: what each code of its label map stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray
from autoseg.dataset.labels import drawn_codes, foreground_codes, head_states, informative_codes

NO_ZONE = -1
"""Distance zone of codes that are in none."""


@dataclass(frozen=True, slots=True)
class CodeTable:
    """One row for each of the N codes of a label map, over K classes.

    The first K codes are the single classes, code K is "nothing known" (``autoseg.dataset.labels.Labels.encode``).
    """

    drawn: BoolArray
    """(N, K): classes that a voxel with the code may have by its annotation, also where that is held out."""
    learnt: BoolArray
    """(N, K): classes that training takes such a voxel for: what promises leave of ``drawn``, and all classes where the
    annotation is held out."""
    undrawn: int
    """Code of unannotated voxels, as known where the label file was encoded. A case without such voxels has K."""
    base: NDArray[np.int64]
    """(N,): the code that was annotated alike, before promises, held-out annotation and zones gave some of its voxels
    codes of their own. "Nothing known", which voxels beyond the image carry, has ``undrawn`` for its base: neither has
    a vote against annotated voxels."""
    held_out: BoolArray
    """(N,): codes of annotated voxels that training does not see."""
    zone: NDArray[np.int64]
    """(N,): distance zone of codes of unannotated voxels, 0 nearest to foreground annotation; otherwise ``NO_ZONE``."""

    @classmethod
    def of_sets(cls, drawn: BoolArray, learnt: BoolArray, undrawn: int) -> CodeTable:
        """Return the table of a case in which nothing is held out and no zones are told apart.

        Parameters
        ----------
        drawn, learnt
            (N, K): label sets as annotated, and what promises leave of them.
        undrawn
            Code of unannotated voxels.
        """
        _, first, alike = np.unique(drawn, axis=0, return_index=True, return_inverse=True)
        base = first[alike.reshape(-1)].astype(np.int64)
        base[base == drawn.shape[1]] = undrawn
        n_codes = len(drawn)
        return cls(drawn, learnt, undrawn, base, np.zeros(n_codes, dtype=bool), np.full(n_codes, NO_ZONE))

    def __len__(self) -> int:
        return len(self.drawn)

    @property
    def informative(self) -> BoolArray:
        """(N,): codes whose annotation says something: its set is neither empty nor all classes."""
        return informative_codes(self.drawn)

    @property
    def annotated(self) -> BoolArray:
        """(N,): informative codes whose set is not that of unannotated voxels, held-out ones included."""
        return drawn_codes(self.drawn, self.drawn[self.undrawn])

    @property
    def foreground(self) -> BoolArray:
        """(N,): codes annotated as certainly foreground: their set is not empty and has no background."""
        return foreground_codes(self.drawn)

    @property
    def single(self) -> BoolArray:
        """(N,): codes annotated as exactly one class."""
        is_single: BoolArray = self.drawn.sum(axis=1) == 1
        return is_single

    def head_states(self, regions: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Return for which codes each head is certainly positive, and negative, by the annotation: both (N, H) bool.

        ``regions`` is (H, K) bool; see :func:`autoseg.dataset.labels.head_states`.
        """
        return head_states(self.drawn, regions)

    def with_extra_codes(self, held_out: BoolArray, n_zones: int) -> CodeTable:
        """Return the table with codes for held-out voxels and for distance zones after those of the case.

        Code n of the N codes gets N + n for its held-out voxels, unannotated voxels of zone r get 2 N + r.

        Parameters
        ----------
        held_out
            (N,): codes of which voxels are held out. The others' extra codes occur nowhere: all classes.
        n_zones
            Number of distance zones; 0 adds none.
        """
        n_codes = len(self)
        everything = np.ones_like(self.drawn)
        zones = [self.undrawn] * n_zones
        return replace(
            self,
            drawn=np.concatenate([self.drawn, np.where(held_out[:, None], self.drawn, True), self.drawn[zones]]),
            learnt=np.concatenate([self.learnt, everything, self.learnt[zones]]),
            base=np.concatenate([self.base, self.base, self.base[zones]]),
            held_out=np.concatenate([np.zeros_like(held_out), held_out, np.zeros(n_zones, dtype=bool)]),
            zone=np.concatenate([np.full(2 * n_codes, NO_ZONE), np.arange(n_zones)]),
        )
