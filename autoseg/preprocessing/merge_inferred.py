"""One map of codes for two targets: the annotated classes, and the classes that promises leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.core.chunks import chunks, slabs


@dataclass(frozen=True, slots=True)
class Paired:
    """Map of codes with two label sets for each code: the annotated one, and the narrower inferred one."""

    codes: CodeArray
    """(*S) uint8 (uint16 if there are more than 256 codes). Equal to the annotated map where nothing is inferred."""
    label_sets: BoolArray
    """(N, K) bool: annotated classes. The rows of the annotated map come first."""
    inferred_sets: BoolArray
    """(N, K) bool: classes that promises leave; each row is a subset of that of ``label_sets``, empty only if that
    is."""
    n_conflicts: int
    """Number of voxels whose annotated and inferred sets have no class in common; there the annotation holds."""


def pair(codes: CodeArray, label_sets: BoolArray, inferred_codes: CodeArray, inferred_sets: BoolArray) -> Paired:
    """Pair the annotated and the inferred set of each voxel.

    A voxel with annotated set D and inferred set J gets (D, D ∩ J), or (D, D) if the two have no class in common.

    Parameters
    ----------
    codes, label_sets
        Annotated target: (*S) unsigned integers < N, and (N, K) bool.
    inferred_codes, inferred_sets
        Inferred target on the same grid: (*S) unsigned integers < M, and (M, K) bool.
    """
    n_drawn, n_inferred = len(label_sets), len(inferred_sets)
    voxels = count_pairs(codes, inferred_codes, n_drawn, n_inferred)
    both = label_sets[:, None] & inferred_sets  # (N, M, K)
    has_common: BoolArray = np.logical_or.reduce(both, axis=2)
    is_narrower = has_common & (both.sum(axis=2) < label_sets.sum(axis=1)[:, None])
    table = np.repeat(np.arange(n_drawn)[:, None], n_inferred, axis=1)
    drawn_rows, inferred_rows = [label_sets], [label_sets]
    code_of: dict[tuple[int, bytes], int] = {}
    for drawn, inferred in np.argwhere(is_narrower & (voxels > 0)).tolist():
        key = (drawn, both[drawn, inferred].tobytes())
        if key not in code_of:
            code_of[key] = n_drawn + len(code_of)
            drawn_rows.append(label_sets[drawn, None])
            inferred_rows.append(both[drawn, inferred, None])
        table[drawn, inferred] = code_of[key]
    paired = look_up_pairs(table, codes, inferred_codes)
    n_conflicts = int(voxels[label_sets.any(axis=1, keepdims=True) & ~has_common].sum())
    return Paired(paired, np.concatenate(drawn_rows), np.concatenate(inferred_rows), n_conflicts)


def look_up_pairs(table: NDArray[np.int64], first: CodeArray, second: CodeArray) -> CodeArray:
    """Return (*S) uint8 (uint16 for codes above 255): ``table[first, second]`` for maps (*S) and a table (N, M)."""
    small: CodeArray = table.astype(np.uint8 if table.max(initial=0) < 256 else np.uint16)
    paired = np.empty(first.shape, dtype=small.dtype)
    for slab in slabs(first.shape):  # numpy makes 8-byte copies of what it indexes with
        paired[slab] = small[first[slab], second[slab]]
    return paired


def count_pairs(first: CodeArray, second: CodeArray, n_first: int, n_second: int) -> NDArray[np.int64]:
    """(N, M) int64: voxels with each pair of a code of ``first`` (*S) and one of ``second`` (*S)."""
    one, other = first.reshape(-1), second.reshape(-1)
    voxels = np.zeros(n_first * n_second, dtype=np.int64)
    for chunk in chunks(one.size):  # so that no volume of large integers is needed
        joint = one[chunk].astype(np.int64) * n_second + other[chunk]
        voxels += np.bincount(joint, minlength=voxels.size)
    return voxels.reshape(n_first, n_second)
