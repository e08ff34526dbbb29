"""Where a training patch comes from: carried with every batch, for whoever wants to look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from autoseg.sampling.patches import Place
    from autoseg.sampling.places import Aim


@dataclass(frozen=True, slots=True)
class Origin:
    """Place and reason of one patch."""

    centre: tuple[float, float, float]
    """Voxel (z, y, x) of the cached case that the patch's centre shows."""
    head: int | None
    """Index of the foreground class or region that the patch was drawn for; None where it was none's turn."""
    code: int | None
    """Code of the cached case that must occur in the patch; None where the patch may lie anywhere."""
    is_context: bool
    """Whether the patch lies anywhere in a sparse case by intent (``context_fraction``)."""
    matrix: tuple[tuple[float, ...], ...]
    """(n, n), n patch axes: offset from the patch's centre -> offset in the cached case; the identity moves nothing."""
    mirrors: tuple[bool, ...]
    """(n,): patch axes that are flipped."""
    displaced: float = 0.0
    """Largest displacement of a voxel beyond ``matrix``, voxels of the cached case. The field itself, three times as
    large as the image, is not sent from the processes that build batches."""


def origin_of(aim: Aim, place: Place) -> Origin:
    """Return what is known of the patch at ``place`` that was drawn for ``aim``; 2-D patches get their slice as z."""
    z, y, x = place.centre if place.slice_index is None else (float(place.slice_index), *place.centre)
    warp = place.warp
    displaced = 0.0 if warp.displacement is None else float(np.linalg.norm(warp.displacement, axis=0).max())
    return Origin((z, y, x), aim.head, aim.code, aim.is_context, warp.matrix, warp.mirrors, displaced)
