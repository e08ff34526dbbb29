"""Codes for the unions of label sets that resampling meets: a voxel halfway between two classes may be either."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from autoseg.core.arrays import BoolArray

MAX_CODES = 256
"""So many fit a map of 8 bits; with as many codes no union gets a new one."""


class Unions:
    """The label sets of a case, to which unions are added as they are asked for.

    Parameters
    ----------
    label_sets
        (N, K) bool; never changed.
    """

    def __init__(self, label_sets: BoolArray) -> None:
        self._rows = [np.asarray(row, dtype=bool) for row in label_sets]
        self._codes: dict[bytes, int] = {}
        for code, row in enumerate(self._rows):
            self._codes.setdefault(row.tobytes(), code)

    @property
    def label_sets(self) -> BoolArray:
        """(N', K) bool: the rows of the case, then those of the unions that have none there."""
        return np.stack(self._rows)

    def code_of(self, codes: Iterable[int]) -> int | None:
        """Return the code of the union of the sets of ``codes``, a new one if need be; None if no code is left."""
        union = np.logical_or.reduce([self._rows[code] for code in codes])
        key = union.tobytes()
        if key not in self._codes:
            if len(self._rows) >= MAX_CODES:
                return None
            self._codes[key] = len(self._rows)
            self._rows.append(union)
        return self._codes[key]
