"""Smooth random shapes and fields, with sizes in mm, for artificial cases."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Shape3

Spacing = tuple[float, float, float]
"""mm, (z, y, x)."""
Volume = NDArray[np.float64]
"""(z, y, x), or broadcastable to it."""


def millimetres(shape: Shape3, spacing: Spacing) -> tuple[Volume, Volume, Volume]:
    """Return the positions of the voxels relative to the centre, mm: (z, 1, 1), (1, y, 1) and (1, 1, x)."""
    axes = [(np.arange(n) - (n - 1) / 2) * edge for n, edge in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return z, y, x


def blob(
    rng: np.random.Generator, position: tuple[Volume, Volume, Volume], centre: Spacing, radii: Spacing,
    shape: Shape3, spacing: Spacing,
) -> BoolArray:  # fmt: skip
    """Return a mask (z, y, x) of an ellipsoid with an irregular, smooth surface.

    ``position`` as from :func:`millimetres`; ``centre`` and ``radii`` in mm.
    """
    distance = sum(((p - c) / r) ** 2 for p, c, r in zip(position, centre, radii, strict=True))
    blob: BoolArray = np.asarray(distance) < 1 + 0.22 * np.clip(smooth_field(rng, shape, spacing, 14.0), -2, 2)
    return blob


def tube(
    position: tuple[Volume, Volume, Volume], path: Sequence[Spacing], radius: float, *, n_points: int = 60
) -> BoolArray:
    """Return a mask (z, y, x) of a tube around a smooth path.

    Parameters
    ----------
    position
        Positions of the voxels, mm: (z, 1, 1), (1, y, 1) and (1, 1, x).
    path
        Control points (z, y, x) in mm of a Bézier curve, which starts at the first and ends at the last.
    radius
        Radius of the tube, mm.
    n_points
        Number of points of the path to which the distance is measured.
    """
    n = len(path) - 1
    t = np.linspace(0, 1, n_points)[:, None]
    weights = np.concatenate([comb(n, k) * t**k * (1 - t) ** (n - k) for k in range(n + 1)], axis=1)
    points = weights @ np.array(path)  # (n_points, 3)
    axes = [np.asarray(axis).reshape(-1) for axis in position]
    inside = np.zeros([len(axis) for axis in axes], dtype=bool)
    low, high = points.min(axis=0) - radius, points.max(axis=0) + radius
    near = [np.flatnonzero((axis >= a) & (axis <= b)) for axis, a, b in zip(axes, low, high, strict=True)]
    if all(len(indices) for indices in near):
        z, y, x = (axis[indices] for axis, indices in zip(axes, near, strict=True))
        distance = np.full((len(z), len(y), len(x)), np.inf)
        for point in points:
            squares = [(axis - at) ** 2 for axis, at in zip((z, y, x), point, strict=True)]
            distance = np.minimum(distance, squares[0][:, None, None] + squares[1][:, None] + squares[2])
        inside[np.ix_(*near)] = distance < radius**2
    return inside


def smooth_field(rng: np.random.Generator, shape: Shape3, spacing: Spacing, period_mm: float) -> Volume:
    """Return smooth noise (z, y, x) that varies over ``period_mm``, with mean about 0 and standard deviation 1."""
    knots = [max(2, round(n * edge / period_mm) + 1) for n, edge in zip(shape, spacing, strict=True)]
    field = rng.normal(size=knots)
    for axis, (n, k) in enumerate(zip(shape, knots, strict=True)):
        field = np.moveaxis(np.tensordot(_interpolation(n, k), field, axes=(1, axis)), 0, axis)
    return np.asarray(field / field.std())


def _interpolation(n: int, n_knots: int) -> Volume:
    """Return the matrix (n, n_knots) of smooth interpolation between equidistant knots."""
    at = np.linspace(0, n_knots - 1, n)
    low = np.minimum(at.astype(int), n_knots - 2)
    rest = at - low
    weight = rest * rest * (3 - 2 * rest)
    matrix = np.zeros((n, n_knots))
    matrix[np.arange(n), low] = 1 - weight
    matrix[np.arange(n), low + 1] += weight
    return matrix
