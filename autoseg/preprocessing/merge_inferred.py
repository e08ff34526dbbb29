"""Keep what was drawn and what follows from promises in one map of codes, each with a table of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.core.chunks import chunks, slabs


@dataclass(frozen=True, slots=True)
class Paired:
    """A map of codes, each of which stands for a drawn set and the narrower set that is inferred."""

    codes: CodeArray
    """(*S) uint8 (uint16 when more than 256 codes). Where nothing is inferred, the codes of the drawn map."""
    label_sets: BoolArray
    """(N, K): what was drawn. The rows of the drawn map come first."""
    inferred_sets: BoolArray
    """(N, K): what is left; row by row a subset of ``label_sets``, empty only where that is."""
    n_conflicts: int
    """Voxels at which the two have no class in common: what was drawn holds there."""


def pair(codes: CodeArray, label_sets: BoolArray, inferred_codes: CodeArray, inferred_sets: BoolArray) -> Paired:
    """Pair what was drawn with what is inferred, voxel by voxel.

    A voxel with drawn set D and inferred set J gets (D, D ∩ J), or (D, D) if the two have no class in common.

    Parameters
    ----------
    codes, label_sets
        The drawn target: (*S) and (N, K).
    inferred_codes, inferred_sets
        The inferred one on the same grid: (*S) and (M, K).
    """
    n_drawn, n_inferred = len(label_sets), len(inferred_sets)
    voxels = _count_pairs(codes, inferred_codes, n_drawn, n_inferred)
    both = label_sets[:, None] & inferred_sets  # (N, M, K)
    has_common: BoolArray = np.logical_or.reduce(both, axis=2)
    is_narrower = has_common & (both.sum(axis=2) < label_sets.sum(axis=1)[:, None])
    table = np.repeat(np.arange(n_drawn)[:, None], n_inferred, axis=1)
    drawn_rows, inferred_rows = [label_sets], [label_sets]
    known: dict[tuple[int, bytes], int] = {}
    for drawn, inferred in np.argwhere(is_narrower & (voxels > 0)).tolist():
        key = (drawn, both[drawn, inferred].tobytes())
        if key not in known:
            known[key] = n_drawn + len(known)
            drawn_rows.append(label_sets[drawn, None])
            inferred_rows.append(both[drawn, inferred, None])
        table[drawn, inferred] = known[key]
    small: CodeArray = table.astype(np.uint8 if n_drawn + len(known) <= 256 else np.uint16)
    paired = np.empty(codes.shape, dtype=small.dtype)
    for slab in slabs(codes.shape):  # numpy makes 8-byte copies of what it indexes with
        paired[slab] = small[codes[slab], inferred_codes[slab]]
    n_conflicts = int(voxels[label_sets.any(axis=1, keepdims=True) & ~has_common].sum())
    return Paired(paired, np.concatenate(drawn_rows), np.concatenate(inferred_rows), n_conflicts)


def _count_pairs(codes: CodeArray, inferred_codes: CodeArray, n_drawn: int, n_inferred: int) -> np.ndarray:
    """(N, M) int64: voxels with each pair of codes."""
    drawn, inferred = codes.reshape(-1), inferred_codes.reshape(-1)
    voxels = np.zeros(n_drawn * n_inferred, dtype=np.int64)
    for piece in chunks(drawn.size):  # so that a volume needs no large integers
        joint = drawn[piece].astype(np.int64) * n_inferred + inferred[piece]
        voxels += np.bincount(joint, minlength=voxels.size)
    return voxels.reshape(n_drawn, n_inferred)
