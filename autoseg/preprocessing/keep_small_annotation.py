"""Second step of the resampling of label maps: a code that would vanish is kept near its annotated voxels.

It also measures which annotated voxels keep their code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.chunks import chunks
from autoseg.preprocessing.axes import AxisPart

Codes = NDArray[Any]
_ROUNDS = 24  # many rounds are needed only where many codes meet
TILE = 3  # edge of a tile; in a round at most one voxel per tile changes, so that changes rarely touch


@dataclass(frozen=True, slots=True)
class _Voxels:
    """Annotated source voxels, and for each the output voxels less than one voxel from its mapped position."""

    code: Codes
    """(n,) code of each source voxel."""
    candidates: NDArray[np.intp]
    """(n, 2**d) flat output indices, closest first; at the border a voxel may be listed more than once."""

    def kept(self, flat: Codes) -> NDArray[np.bool_]:
        """(n, 2**d) bool: the candidate has the voxel's code in the output map ``flat`` (output voxels,)."""
        match: NDArray[np.bool_] = flat[self.candidates] == self.code[:, None]
        return match

    def subset(self, chosen: NDArray[np.bool_]) -> _Voxels:
        """Return the voxels where the mask ``chosen`` (n,) is True."""
        return _Voxels(self.code[chosen], self.candidates[chosen])


def find_survivors(source: Codes, result: Codes, unknown: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return which annotated voxels of a map keep their code after resampling.

    Parameters
    ----------
    source, result
        (z, y, x) codes of the same field of view, before and after.
    unknown
        Code of unannotated voxels.

    Returns
    -------
    (n,) flat indices of the annotated voxels of ``source``, ascending, and (n,) bool: an output voxel less than one
    voxel from the mapped position along each axis has the code. Both are empty if nothing is annotated.
    """
    annotated = np.flatnonzero(source != unknown)
    flat = np.ascontiguousarray(result).reshape(-1)
    axes = [AxisPart.whole(n, m) for n, m in zip(source.shape, result.shape, strict=True)]
    is_kept = [_describe(annotated[chunk], source, axes).kept(flat).any(axis=1) for chunk in chunks(len(annotated))]
    return annotated, np.concatenate(is_kept) if is_kept else np.zeros(0, dtype=bool)


def rescue_classes(source: Codes, result: Codes, unknown: int, axes: Sequence[AxisPart]) -> None:
    """Change ``result`` in place until every annotated source voxel has its code near its mapped position.

    A voxel of ``source`` (z, y, x) is lost if none of the (up to 2 per axis) output voxels of ``result`` (z', y', x')
    less than one voxel from its mapped position has its code. It takes the closest of them that is unknown, or whose
    code no other source voxel would lose. Voxels that are still lost then look in the same way among the 3 voxels per
    axis around their mapped position.

    Parameters
    ----------
    unknown
        Code of unannotated voxels.
    axes
        The parts of the three axes that ``source`` and ``result`` are. Of a part of a map, the first output voxel is a
        multiple of ``TILE`` on each axis, so that voxels change in the same rounds as in the whole map.
    """
    for is_wide in (False, True):
        lost = _lost_voxels(source, result, unknown, axes)
        if len(lost) == 0:
            return
        around = _annotated_around(source, axes, lost, unknown)
        _give_back(_describe(around, source, axes, is_wide=is_wide), result, unknown)


def _give_back(voxels: _Voxels, result: Codes, unknown: int) -> None:
    """Change ``result`` (z', y', x') in rounds until none of ``voxels`` is lost, or none can be given back."""
    flat = result.reshape(-1)
    for step in range(_ROUNDS):
        has_code = voxels.kept(flat)
        is_lost: NDArray[np.bool_] = np.logical_not(has_code.any(axis=1))
        if not is_lost.any():
            return
        needed = _indispensable(voxels, has_code, flat.size)
        if not _give(voxels.subset(is_lost), flat, needed, unknown, step, result.shape):
            return


def _lost_voxels(source: Codes, result: Codes, unknown: int, axes: Sequence[AxisPart]) -> NDArray[np.intp]:
    """(n,) flat indices of annotated voxels of ``source`` (z, y, x) whose code is at no candidate in ``result``."""
    back = result
    for axis, part in enumerate(axes):
        if part.n != part.m:
            back = back.take(part.mapped_voxels(), axis=axis)
    doubtful = np.flatnonzero((back != source) & (source != unknown))
    if len(doubtful) == 0:
        return doubtful
    return doubtful[~_describe(doubtful, source, axes).kept(result.reshape(-1)).any(axis=1)]


def _describe(flat: NDArray[np.intp], source: Codes, axes: Sequence[AxisPart], *, is_wide: bool = False) -> _Voxels:
    """Return code and candidates of the voxels of ``source`` (z, y, x) at the flat indices ``flat`` (n,).

    With ``is_wide`` there are 3 candidates per axis.
    """
    code = np.ascontiguousarray(source).reshape(-1)[flat]
    per_axis: list[list[tuple[NDArray[np.intp], NDArray[np.float64]]]] = []
    shape = tuple(part.n_outputs for part in axes)
    for coordinate, part in zip(np.unravel_index(flat, source.shape), axes, strict=True):
        mapped = part.mapped()[coordinate]
        low, centre, high = np.floor(mapped), np.floor(mapped + 0.5), np.ceil(mapped)
        near = (low,) if part.n == part.m else (low, high)
        choices = (centre - 1, centre, centre + 1) if is_wide and part.m > 1 else near
        last = part.n_outputs - 1
        per_axis.append([(np.clip(choice, 0, last).astype(np.intp), np.abs(choice - mapped)) for choice in choices])
    candidates, distances = [], []
    for corner in product(*per_axis):
        candidates.append(np.ravel_multi_index(tuple(index for index, _ in corner), shape))
        distances.append(sum(distance**2 for _, distance in corner))
    order = np.argsort(np.stack(distances, axis=1), axis=1, kind="stable")
    return _Voxels(code, np.take_along_axis(np.stack(candidates, axis=1), order, axis=1))


def _annotated_around(
    source: Codes, axes: Sequence[AxisPart], lost: NDArray[np.intp], unknown: int
) -> NDArray[np.intp]:
    """(n,) flat indices of all annotated voxels of ``source`` (z, y, x) whose candidates may meet those of a lost one.

    ``lost`` (l,) are flat indices.
    """
    touched = np.zeros(tuple(part.n_outputs for part in axes), dtype=bool)
    touched.reshape(-1)[_describe(lost, source, axes).candidates] = True
    touched = ndimage.maximum_filter(touched, size=3, mode="nearest")
    for axis, part in enumerate(axes):
        if part.n != part.m:
            touched = touched.take(part.mapped_voxels(), axis=axis)
    return np.flatnonzero(touched & (source != unknown))


def _indispensable(voxels: _Voxels, has_code: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """(output voxels,) bool: at least one source voxel has its code there and at no other candidate.

    ``kept`` (n, 2**d) bool: the candidate has the voxel's code.
    """
    needed = np.zeros(size, dtype=bool)
    first = has_code.argmax(axis=1)
    only = np.take_along_axis(voxels.candidates, first[:, None], axis=1)
    is_only = has_code.any(axis=1) & ~(has_code & (voxels.candidates != only)).any(axis=1)
    needed[only[is_only]] = True
    return needed


def _give(
    waiting: _Voxels, flat: Codes, needed: NDArray[np.bool_], unknown: int, step: int, shape: Sequence[int]
) -> bool:
    """Give lost voxels their closest free candidate in ``flat`` (output voxels,), at most one per tile.

    A candidate is free if it is unknown or not ``needed`` (output voxels,). Returns whether any code was given.
    """
    free = (flat[waiting.candidates] == unknown) | ~needed[waiting.candidates]
    rows = np.flatnonzero(free.any(axis=1))
    if len(rows) == 0:
        return False
    wanted = np.take_along_axis(waiting.candidates[rows], free[rows].argmax(axis=1)[:, None], axis=1)[:, 0]
    tiles = tuple((index + step) // TILE for index in np.unravel_index(wanted, tuple(shape)))
    tile = np.ravel_multi_index(tiles, tuple(length // TILE + _ROUNDS for length in shape))
    _, first = np.unique(tile, return_index=True)
    flat[wanted[first]] = waiting.code[rows[first]]
    return True
