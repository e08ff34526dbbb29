"""In which orders the cases of a data set store their voxels, in words."""

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
    """Return for each case how it is turned to the order that prevails among all."""
    direction = prevailing_direction(geometries.values())
    return {case: order_towards(geometry, direction) for case, geometry in geometries.items()}


def order_warnings(name: str, geometries: Mapping[str, Geometry]) -> list[str]:
    """Say how many cases of the data set ``name`` are stored in which order, unless it is the same for all."""
    direction = prevailing_direction(geometries.values())
    if direction is None:
        return []
    stored: dict[str, list[str]] = {}
    silent = [case for case, geometry in geometries.items() if not has_axes(geometry)]
    for case, geometry in geometries.items():
        if has_axes(geometry):
            stored.setdefault(orientation_name(direction, order_towards(geometry, direction)), []).append(case)
    wanted = orientation_name(direction)
    warnings = []
    if len(stored) > 1:
        orders = sorted(stored, key=lambda order: (order != wanted, -len(stored[order]), order))
        found = "; ".join(f"{len(stored[order])} as {order} ({listed(stored[order])})" for order in orders)
        warnings.append(
            f"{name}: cases are stored in {len(stored)} orders of their voxels: {found}. Each is brought to {wanted} "
            "by exchanging and reversing axes before anything else, and back after; the letters say where x, y and z "
            "point (Left, Right, Anterior, Posterior, Superior, Inferior)"
        )
    if silent:
        warnings.append(
            f"{name}: {len(silent)} cases do not say how their axes lie, others do: {listed(silent)}. They are taken "
            f"as they are stored, as if that were {wanted}"
        )
    return warnings
