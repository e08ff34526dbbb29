"""Whether two label maps lie on one grid of the world, in whatever order their files store its voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.geometry import Geometry
from autoseg.core.orientation import has_axes, order_towards


def on_grid_of(
    wanted: Geometry, labels: NDArray[np.integer[Any]], geometry: Geometry
) -> tuple[NDArray[np.integer[Any]], Geometry]:
    """Return labels (z, y, x) and their geometry in the order of axes of ``wanted``; each voxel keeps its place.

    Where one of the two does not say how its axes lie, nothing is changed.
    """
    order = order_towards(geometry, wanted.direction if has_axes(wanted) else None)
    if order.is_identity:
        return labels, geometry
    return np.ascontiguousarray(order.apply(labels)), order.turned(geometry, labels.shape)


def grid_difference(found: Geometry, expected: Geometry) -> str | None:
    """Say in what two geometries differ, as "found ..., expected ..."; None if they agree."""
    differing = found.differs_from(expected)
    if not differing:
        return None
    texts = (
        ", ".join(f"{name} {_shown(getattr(geometry, name))}" for name in differing) for geometry in (found, expected)
    )
    return "found {}, expected {}".format(*texts)


def _shown(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number + 0.0:.6g}' for number in numbers)})"  # + 0.0 turns -0 into 0
