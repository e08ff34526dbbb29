"""Codes of their own for annotated voxels that count less than others in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.preprocessing.merge_inferred import count_pairs, look_up_pairs


@dataclass(frozen=True, slots=True)
class Weighted:
    """Map of codes that say how much a voxel counts."""

    codes: CodeArray
    """(*S) uint8 (uint16 if there are more than 256 codes). Equal to the map before where voxels count 1."""
    code_before: NDArray[np.intp]
    """(N',) code before of each code; those before come first."""
    weights: tuple[float, ...]
    """(N',) above 0, at most 1."""


def weigh(codes: CodeArray, annotated: BoolArray, levels: CodeArray, weights: Sequence[float]) -> Weighted:
    """Give each code of annotated voxels a further code for every weight below 1 that its voxels have.

    Unannotated voxels keep their code, whatever their level is.

    Parameters
    ----------
    codes, annotated
        (*S) unsigned integers < N, and (N,) bool: codes of annotated voxels.
    levels
        (*S) index into ``weights``. Voxels of level L count 1: resampling can make a voxel annotated that has no level.
    weights
        (L,) above 0, at most 1.
    """
    n_codes, n_levels = len(annotated), len(weights) + 1
    voxels = count_pairs(codes, levels, n_codes, n_levels)
    is_weighted = np.array([*(weight < 1 for weight in weights), False])
    pairs = np.argwhere((voxels > 0) & annotated[:, None] & is_weighted)
    table = np.repeat(np.arange(n_codes)[:, None], n_levels, axis=1)
    table[pairs[:, 0], pairs[:, 1]] = n_codes + np.arange(len(pairs))
    return Weighted(
        codes=look_up_pairs(table, codes, levels),
        code_before=np.concatenate([np.arange(n_codes), pairs[:, 0]]),
        weights=(*[1.0] * n_codes, *(weights[level] for level in pairs[:, 1].tolist())),
    )
