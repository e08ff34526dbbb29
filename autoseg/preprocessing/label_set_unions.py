"""Codes for the unions of label sets that tie in resampling: a voxel halfway between two classes may be either."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from autoseg.core.arrays import BoolArray

MAX_CODES = 256
"""Number of codes that fit a map of 8 bits; beyond it, no union gets a new code."""


class LabelSetUnions:
    """Label sets of a case; unions are added when they are asked for.

    Parameters
    ----------
    label_sets
        (N, K) bool; not changed.
    """

    def __init__(self, label_sets: BoolArray) -> None:
        """Start with the rows of ``label_sets`` (N, K)."""
        self._rows = [np.asarray(row, dtype=bool) for row in label_sets]
        self._codes: dict[bytes, int] = {}
        for code, row in enumerate(self._rows):
            self._codes.setdefault(row.tobytes(), code)

    @property
    def label_sets(self) -> BoolArray:
        """(N', K) bool: the rows of the case, then the unions that are not among them."""
        return np.stack(self._rows)

    def code_of(self, codes: Iterable[int]) -> int | None:
        """Return the code of the union of the sets of ``codes``, a new one if needed; None if no code is left."""
        union = np.logical_or.reduce([self._rows[code] for code in codes])
        key = union.tobytes()
        if key not in self._codes:
            if len(self._rows) >= MAX_CODES:
                return None
            self._codes[key] = len(self._rows)
            self._rows.append(union)
        return self._codes[key]
