"""Maps of label sets under construction: exclude classes at voxels, and give equal sets one code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.annotation.label_counts import count_values
from autoseg.core.arrays import BoolArray, CodeArray

MAX_SETS = 100
"""Largest number of label sets in a map, because losses take time in proportion to it. If there are more, the rarest
ones are replaced by the smallest of the others that contains them, which is less precise but not wrong."""


def without(
    codes: CodeArray, table: BoolArray, where: BoolArray, classes: Sequence[int]
) -> tuple[CodeArray, BoolArray]:
    """Exclude ``classes`` from the sets of the voxels in the mask ``where`` (*S).

    ``codes`` is (*S), ``table`` (M, K). Returns the new codes (*S) and the new table; both as given if ``where`` is
    empty.
    """
    if not where.any():
        return codes, table
    narrower = table.copy()
    narrower[:, list(classes)] = False
    return compacted(codes + where * codes.dtype.type(len(table)), np.concatenate((table, narrower)))


def compacted(codes: CodeArray, table: BoolArray) -> tuple[CodeArray, BoolArray]:
    """Return codes (*S) uint8 and a table (M', K) in which every set that occurs has one code.

    Code 0 is the set of all classes. There are at most ``MAX_SETS`` sets.

    Parameters
    ----------
    codes, table
        (*S) uint8 and (M, K), M up to 256; several rows may be equal.
    """
    voxels: dict[bytes, int] = {np.ones(table.shape[1], dtype=bool).tobytes(): codes.size}  # most voxels: code 0
    for code, number in count_values(codes).items():
        key = table[code].tobytes()
        voxels[key] = voxels.get(key, 0) + number
    most_frequent = sorted(voxels, key=lambda key: -voxels[key])[:MAX_SETS]
    sets = np.array([np.frombuffer(key, dtype=bool) for key in most_frequent])
    contains = (sets | ~table[:, None]).all(axis=2)  # (M, M'): the new set contains the old one
    new_codes = np.where(contains, sets.sum(axis=1), table.shape[1] + 1).argmin(axis=1).astype(np.uint8)
    return new_codes[codes], sets
