"""The code table of a case: the meaning of each code of its label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray
from autoseg.dataset.labels import annotated_codes, foreground_codes, head_states, informative_codes

NO_ZONE = -1
"""Value of ``zone`` for codes without a distance zone."""


@dataclass(frozen=True, slots=True)
class CodeTable:
    """One row for each of the N codes of a label map, over K classes.

    The first K codes are the single classes, code K is "unknown", all classes
    (:meth:`autoseg.dataset.labels.Labels.encode`).
    """

    drawn: BoolArray
    """(N, K): classes that a voxel with the code may have by its annotation, held-out annotation included."""
    learnt: BoolArray
    """(N, K): classes that a voxel may have in training: those of ``drawn`` that promises leave; all classes for
    held-out annotation."""
    undrawn: int
    """Code of unannotated voxels, from the encoding of the label file. It is K if a case has no such voxels."""
    base: NDArray[np.int64]
    """(N,): code with the same annotation, before promises, held-out annotation and zones gave some of its voxels codes
    of their own. The base of "unknown", the code of voxels beyond the image, is ``undrawn``: in resampling neither has
    a vote against annotated voxels."""
    held_out: BoolArray
    """(N,): codes of annotated voxels that are held out from training."""
    zone: NDArray[np.int64]
    """(N,): distance zone of codes of unannotated voxels, 0 nearest to foreground annotation; otherwise ``NO_ZONE``."""
    weight: NDArray[np.float32]
    """(N,) above 0, at most 1: how much an annotated voxel counts in training. 1 for codes of unannotated voxels."""

    @classmethod
    def of_sets(
        cls, drawn: BoolArray, learnt: BoolArray, undrawn: int, weight: Sequence[float] | None = None
    ) -> CodeTable:
        """Return the table of a case without held-out annotation and without zones.

        Parameters
        ----------
        drawn, learnt
            (N, K): label sets as annotated, and the classes that promises leave of them.
        undrawn
            Code of unannotated voxels.
        weight
            (N,): how much a voxel counts in training; None: all 1.
        """
        _, first, alike = np.unique(drawn, axis=0, return_index=True, return_inverse=True)
        base = first[alike.reshape(-1)].astype(np.int64)
        base[base == drawn.shape[1]] = undrawn
        n_codes = len(drawn)
        weights = np.ones(n_codes, dtype=np.float32) if weight is None else np.array(weight, dtype=np.float32)
        return cls(drawn, learnt, undrawn, base, np.zeros(n_codes, dtype=bool), np.full(n_codes, NO_ZONE), weights)

    def __len__(self) -> int:
        return len(self.drawn)

    @property
    def informative(self) -> BoolArray:
        """(N,): codes whose annotated set is neither empty nor all classes."""
        return informative_codes(self.drawn)

    @property
    def annotated(self) -> BoolArray:
        """(N,): codes of annotated voxels (:func:`autoseg.dataset.labels.annotated_codes`), held-out ones included."""
        return annotated_codes(self.drawn, self.undrawn)

    @property
    def foreground(self) -> BoolArray:
        """(N,): codes annotated as certain foreground: their set is not empty and excludes background."""
        return foreground_codes(self.drawn)

    @property
    def single(self) -> BoolArray:
        """(N,): codes annotated as exactly one class."""
        is_single: BoolArray = self.drawn.sum(axis=1) == 1
        return is_single

    def head_states(self, regions: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Return (positive, negative), both (N, H) bool: codes for which a head is certain by the annotation.

        ``regions`` is (H, K) bool; see :func:`autoseg.dataset.labels.head_states`.
        """
        return head_states(self.drawn, regions)

    def with_extra_codes(self, held_out: BoolArray, n_zones: int) -> CodeTable:
        """Return the table with further rows, after the N codes of the case, for held-out voxels and distance zones.

        Held-out voxels of code n have code N + n, unannotated voxels of zone r have code 2 N + r.

        Parameters
        ----------
        held_out
            (N,) bool: codes with held-out voxels. Rows N + n of the other codes occur nowhere and hold all classes.
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
            weight=np.concatenate([self.weight, self.weight, self.weight[zones]]),
        )
