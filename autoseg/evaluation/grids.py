"""Comparison of the grids of two label maps, independent of the order in which their files store the voxels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import EvaluationError
from autoseg.core.geometry import ASSUMED, Geometry
from autoseg.core.orientation import has_axes, order_towards


class Grid(NamedTuple):
    """Grid of a reference, to which its predictions are brought."""

    path: Path
    shape: tuple[int, ...]
    """(z, y, x)."""
    geometry: Geometry


def placed_on(
    grid: Grid, values: NDArray[Any], geometry: Geometry, *, case: str, path: Path
) -> tuple[NDArray[Any], str | None]:
    """Return a prediction in the voxel order of a reference, and a warning if only one of the two states directions.

    Parameters
    ----------
    grid
        Of the reference.
    values, geometry
        (z, y, x) or (R, z, y, x), and their geometry, as read from the file ``path`` of ``case``.

    Raises
    ------
    EvaluationError
        If shape or geometry differ.
    """
    values, turned = on_grid_of(grid.geometry, values, geometry)
    if values.shape[-3:] != grid.shape:
        raise EvaluationError(
            f"prediction of case {case!r} ({path}): found shape {values.shape[-3:]}, expected {grid.shape} (z, y, x) "
            f"as in {grid.path}. Predict on the grid of the reference."
        )
    difference = grid_difference(turned, grid.geometry)
    if difference is None:
        return values, None
    if has_axes(grid.geometry) and has_axes(turned):
        raise EvaluationError(
            f"prediction of case {case!r} ({path}): {difference} as in {grid.path}. It is not scored: resample it to "
            "the grid of the reference, or write it with the geometry of its image."
        )
    return values, (
        f"prediction of case {case!r} ({path}): {difference} as in {grid.path}. The arrays were compared voxel by "
        "voxel. Write predictions with the geometry of their image."
    )


def stated_geometry(reference: Geometry, prediction: Geometry) -> Geometry:
    """Return the geometry of a reference; if its file states no voxel size, that of the prediction."""
    return prediction if reference.metadata.get("spacing") == ASSUMED else reference


def on_grid_of(wanted: Geometry, labels: NDArray[Any], geometry: Geometry) -> tuple[NDArray[Any], Geometry]:
    """Return labels (z, y, x), or (R, z, y, x), and their geometry in the voxel order of ``wanted``.

    Voxels keep their world positions.

    Both are returned unchanged if one of the geometries does not state the direction of its axes.
    """
    order = order_towards(geometry, wanted.direction if has_axes(wanted) else None)
    if order.is_identity:
        return labels, geometry
    return np.ascontiguousarray(order.apply(labels)), order.turned(geometry, labels.shape[-3:])


def grid_difference(geometry: Geometry, expected: Geometry) -> str | None:
    """Return the differing properties of two geometries as "found ..., expected ..."; None if they agree."""
    differing = geometry.differs_from(expected)
    if not differing:
        return None
    texts = (", ".join(f"{name} {_shown(getattr(item, name))}" for name in differing) for item in (geometry, expected))
    return "found {}, expected {}".format(*texts)


def _shown(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number + 0.0:.6g}' for number in numbers)})"  # + 0.0 turns -0 into 0
