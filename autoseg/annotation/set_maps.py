"""A map of label sets under construction: classes are taken from voxels, and equal sets share a code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.annotation.label_counts import count_values
from autoseg.core.arrays import BoolArray, CodeArray

MAX_SETS = 100
"""Of a map. Above, the rarest are widened to the smallest of the others that holds them: less is said then, nothing
wrong. Losses take time in proportion to the number of codes."""


def without(
    codes: CodeArray, table: BoolArray, where: BoolArray, classes: Sequence[int]
) -> tuple[CodeArray, BoolArray]:
    """Take ``classes`` from the sets of the voxels ``where`` (*S); return codes (*S) and table (M, K)."""
    if not where.any():
        return codes, table
    narrower = table.copy()
    narrower[:, list(classes)] = False
    return compacted(codes + where * codes.dtype.type(len(table)), np.concatenate((table, narrower)))


def compacted(codes: CodeArray, table: BoolArray) -> tuple[CodeArray, BoolArray]:
    """Give every set that occurs one code, at most ``MAX_SETS`` of them; code 0 is the set of all classes.

    Parameters
    ----------
    codes, table
        (*S) uint8 and (M, K), M up to 256; several rows may be equal.
    """
    voxels: dict[bytes, int] = {np.ones(table.shape[1], dtype=bool).tobytes(): codes.size}  # always kept
    for code, number in count_values(codes).items():
        key = table[code].tobytes()
        voxels[key] = voxels.get(key, 0) + number
    kept = [np.frombuffer(key, dtype=bool) for key in sorted(voxels, key=lambda key: -voxels[key])[:MAX_SETS]]
    sets = np.array(kept)
    holds = (sets | ~table[:, None]).all(axis=2)  # (before, after): the new set holds the old one
    new_codes = np.where(holds, sets.sum(axis=1), table.shape[1] + 1).argmin(axis=1).astype(np.uint8)
    return new_codes[codes], sets
