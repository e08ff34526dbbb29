"""The origin of a training patch: case, place and transform. Every batch carries it, for pictures and lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoseg.augmentation.sections import Section

if TYPE_CHECKING:
    from autoseg.sampling.patches import Place
    from autoseg.sampling.places import Aim


@dataclass(frozen=True, slots=True)
class Origin:
    """Place and transform of one patch, and the reason for its place."""

    centre: tuple[float, float, float]
    """Point (z, y, x) of the patch's centre, in voxels of the cached case."""
    head: int | None
    """Index of the foreground class or region that the patch was drawn for; None if it was drawn for none."""
    code: int | None
    """Code of the cached case that must occur in the patch; None if the patch may lie anywhere."""
    is_context: bool
    """Whether the patch is a context patch, which may lie anywhere in a sparse case (``context_fraction``)."""
    matrix: tuple[tuple[float, ...], ...]
    """(n, n) for n patch axes: maps an offset from the patch's centre to one in the cached case."""
    mirrors: tuple[bool, ...]
    """(n,): patch axes that are flipped."""
    displaced: float = 0.0
    """Largest displacement of a voxel in addition to ``matrix``, in voxels of the cached case; 0 for none. The field
    itself is three times as large as the image, so worker processes do not send it."""
    order: tuple[int, ...] = ()
    """(n,): patch axes in their new order, before the flips; empty if they stay."""
    sections: tuple[Section, ...] = ()
    """(D,): move of each section of a 3-D patch; empty if none is moved."""


def origin_of(aim: Aim, place: Place) -> Origin:
    """Return the origin of the patch at ``place`` that was drawn for ``aim``; z of a 2-D patch is its slice."""
    z, y, x = place.centre if place.slice_index is None else (float(place.slice_index), *place.centre)
    warp = place.warp
    displaced = 0.0 if warp.displacement is None else float(np.linalg.norm(warp.displacement, axis=0).max())
    return Origin(
        (z, y, x), aim.head, aim.code, aim.is_context, warp.matrix, warp.mirrors, displaced, warp.order, warp.sections
    )
