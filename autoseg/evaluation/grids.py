"""Comparison of the grids of two label maps, independent of the order in which their files store the voxels."""

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
    """Return labels (z, y, x) and their geometry in the voxel order of ``wanted``; voxels keep their world positions.

    Both are returned unchanged if one of the geometries does not state the direction of its axes.
    """
    order = order_towards(geometry, wanted.direction if has_axes(wanted) else None)
    if order.is_identity:
        return labels, geometry
    return np.ascontiguousarray(order.apply(labels)), order.turned(geometry, labels.shape)


def grid_difference(geometry: Geometry, expected: Geometry) -> str | None:
    """Return the differing properties of two geometries as "found ..., expected ..."; None if they agree."""
    differing = geometry.differs_from(expected)
    if not differing:
        return None
    texts = (", ".join(f"{name} {_shown(getattr(item, name))}" for name in differing) for item in (geometry, expected))
    return "found {}, expected {}".format(*texts)


def _shown(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number + 0.0:.6g}' for number in numbers)})"  # + 0.0 turns -0 into 0
