"""Sizes of the chunks in which large arrays are processed, the iteration over them, and samples of many items.

Sizes of what adds up floating-point numbers stand beside the sum, since the result depends on them in the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

VOXELS = 1 << 20
"""Voxels at a time, so that a temporary array of 8 bytes a voxel takes 8 MB, however large the volume is."""
CACHED_VOXELS = 1 << 14
"""Voxels at a time where each has many values, so that all of them stay in the processor's cache."""


def chunks(n: int, size: int | None = None, *, start: int = 0) -> Iterator[slice]:
    """Yield slices that cut the items ``start`` to ``n - 1`` into runs of ``size`` (None: ``VOXELS``).

    The last may be shorter; no items give no slices.
    """
    step = VOXELS if size is None else size
    for first in range(start, n, step):
        yield slice(first, min(first + step, n))


def slabs(shape: Sequence[int], size: int | None = None) -> Iterator[slice]:
    """Yield slices along the first axis of an array of ``shape`` (*S), of about ``size`` voxels (None: ``VOXELS``).

    At least one plane each; an array without planes gives none.
    """
    voxels = VOXELS if size is None else size
    return chunks(shape[0], max(1, voxels // max(1, math.prod(shape[1:]))))


def evenly_spread(n: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` > 1 of the indices 0 to n - 1, ascending, the outermost included; all if n is small."""
    indices: NDArray[np.int64] = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
    return indices
