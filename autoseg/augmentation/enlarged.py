"""Size of the sample that a patch is cut out of: operations that move voxels need voxels around the patch."""

from __future__ import annotations

import math

Size = tuple[int, ...]
"""Edges in voxels, one per axis (2 or 3)."""


def in_plane_size(size: Size, *, ratio: float = 1.0, add: int = 0) -> Size:
    """Return ``size`` with the last two edges multiplied by ``ratio``, rounded up, and ``add`` voxels on each side."""
    return (*size[:-2], *(math.ceil(edge * ratio - 1e-9) + 2 * add for edge in size[-2:]))
