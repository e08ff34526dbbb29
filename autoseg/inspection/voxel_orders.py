"""Voxel orders (orientations) of the cases of a data set, and warnings if they differ."""

from __future__ import annotations

from collections.abc import Mapping

from autoseg.core.findings import listed
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import (
    VoxelOrder,
    has_axes,
    order_towards,
    orientation_name,
    prevailing_direction,
)


def prevailing_orders(geometries: Mapping[str, Geometry]) -> dict[str, VoxelOrder]:
    """Return case -> change from its voxel order to the order that most cases have."""
    direction = prevailing_direction(geometries.values())
    return {case: order_towards(geometry, direction) for case, geometry in geometries.items()}


def order_warnings(name: str, geometries: Mapping[str, Geometry]) -> list[str]:
    """Return warnings if the cases of the data set ``name`` do not all have the same voxel order."""
    direction = prevailing_direction(geometries.values())
    if direction is None:
        return []
    stored: dict[str, list[str]] = {}
    without_axes = [case for case, geometry in geometries.items() if not has_axes(geometry)]
    for case, geometry in geometries.items():
        if has_axes(geometry):
            stored.setdefault(orientation_name(direction, order_towards(geometry, direction)), []).append(case)
    wanted = orientation_name(direction)
    warnings = []
    if len(stored) > 1:
        orders = sorted(stored, key=lambda order: (order != wanted, -len(stored[order]), order))
        numbers = "; ".join(f"{len(stored[order])} as {order} ({listed(stored[order])})" for order in orders)
        warnings.append(
            f"{name}: cases have {len(stored)} different voxel orders: {numbers}. Each is brought to {wanted} by "
            "exchanging and reversing axes before all other steps, and brought back at the end. The letters are the "
            "directions of x, y and z (Left, Right, Anterior, Posterior, Superior, Inferior)"
        )
    if without_axes:
        warnings.append(
            f"{name}: the files of {len(without_axes)} cases do not state a voxel order, unlike others: "
            f"{listed(without_axes)}. They are used as stored, as if in the order {wanted}"
        )
    return warnings
