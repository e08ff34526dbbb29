"""Curves as a person draws them into a class of a slice: one through its middle, one along its border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import route_through_array
from skimage.measure import find_contours

from autoseg.core.arrays import BoolArray

Curve = NDArray[np.float64]
"""(n, 2) positions (y, x) in pixels, less than a pixel from one to the next."""

CONTROL_POINTS = 4
BORDER_SHARE = (0.07, 0.15)
"""Share of the border that a border curve follows, drawn uniformly."""
BORDER_DEPTH = (1.0, 4.0)
"""How far inside the border it runs, pixels, drawn uniformly; less in regions that are too thin."""

_STEP = 0.7
_ATTEMPTS = 6
_SHORT = 0.1
"""A curve shorter than this share of its region's diagonal means that the region is a net of thin parts."""
_THIN = 0.6
"""A border curve runs at most this share of the greatest depth inside."""
_BERNSTEIN = np.array([[1, 0, 0, 0], [-3, 3, 0, 0], [3, -6, 3, 0], [-1, 3, -3, 1]], dtype=float)
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def largest_component(region: BoolArray) -> BoolArray:
    """Return the largest 8-connected piece of ``region`` (y, x); the first of equals; empty if the region is."""
    pieces, n = ndimage.label(region, structure=_EIGHT_NEIGHBOURS)
    if n <= 1:
        return region
    largest: BoolArray = pieces == 1 + int(np.argmax(np.bincount(pieces.reshape(-1))[1:]))
    return largest


def depth_inside(region: BoolArray) -> NDArray[np.float64] | None:
    """Return the distance (y, x) of every pixel of ``region`` from what is not region, pixels; 0 outside.

    The rim of the picture is no border. None if the region fills the picture.
    """
    if region.all():
        return None
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(region)
    return depth


def interior_curve(rng: np.random.Generator, region: BoolArray, margin: BoolArray | None = None) -> Curve:
    """Return a smooth curve that stays in ``region``.

    A Bézier curve of four control points drawn uniformly from ``margin``, in order along their longest extent.
    Of several attempts the first that lies wholly inside, else the longest stretch inside. Where that is short, in
    nets of thin parts, the curve follows the net from one of its pixels towards another instead.
    Source: ScribbleBench ``scribble_conf.yml`` (a NURBS of four control points inside the component). Differs in what
    is drawn in nets.

    Parameters
    ----------
    region
        (y, x), not empty.
    margin
        Part of it from which the control points come, not empty; default: all of it.
    """
    pixels = np.argwhere(region if margin is None else margin).astype(float)
    best: Curve = pixels[:1]
    for _ in range(_ATTEMPTS):
        curve = _bezier(_in_order(pixels[rng.integers(len(pixels), size=CONTROL_POINTS)]))
        rounded = np.rint(curve).astype(int)
        inside = region[rounded[:, 0], rounded[:, 1]]
        if inside.all():
            return curve
        start, stop = _longest_run(inside)
        if stop - start > len(best):
            best = curve[start:stop]
    size = float(np.hypot(*np.ptp(np.argwhere(region), axis=0)))
    if float(np.hypot(*np.ptp(best, axis=0))) >= _SHORT * size:
        return best
    return _along(region, margin, pixels[rng.integers(len(pixels), size=2)])[: max(2, round(size))]


def border_curve(rng: np.random.Generator, depth: NDArray[np.float64]) -> Curve:
    """Return a stretch along the border of a region, some pixels inside it.

    Source: ScribbleBench ``scribble_conf.yml`` (7 to 15 % of the contour, 1 to 4 pixels inside). Differs in that the
    rim of the picture is no border, so that the curve always runs beside another class.

    Parameters
    ----------
    depth
        (y, x) of :func:`depth_inside`, positive somewhere.
    """
    level = min(float(rng.uniform(*BORDER_DEPTH)), _THIN * float(depth.max()))
    contours = find_contours(depth, level)
    lengths = np.array([len(contour) for contour in contours])
    contour: Curve = contours[int(rng.choice(len(contours), p=lengths / lengths.sum()))]
    n = min(len(contour), max(2, round(float(rng.uniform(*BORDER_SHARE)) * int(lengths.sum()))))
    if np.array_equal(contour[0], contour[-1]):
        closed = contour[:-1]
        stretch: Curve = closed[(int(rng.integers(len(closed))) + np.arange(n)) % len(closed)]
        return stretch
    start = int(rng.integers(len(contour) - n + 1))
    return contour[start : start + n]


def paint(curve: Curve, region: BoolArray, thickness: int) -> BoolArray:
    """Return the pixels (y, x) of ``region`` that a pen ``thickness`` pixels wide marks along ``curve``."""
    drawn = np.zeros_like(region)
    reach = thickness // 2 + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    offsets = np.stack([y.reshape(-1), x.reshape(-1)], axis=1)
    nearest = np.rint(curve).astype(int)
    pixels = nearest[:, None] + offsets  # (n, offsets, 2)
    close = ((pixels - curve[:, None]) ** 2).sum(axis=2) <= (thickness / 2) ** 2
    close[:, len(offsets) // 2] = True  # the nearest pixel, so that a thin line has no gap
    pixels = pixels[close]
    inside = ((pixels >= 0) & (pixels < region.shape)).all(axis=1)
    drawn[tuple(pixels[inside].T)] = True
    marked: BoolArray = drawn & region
    return marked


def _along(region: BoolArray, margin: BoolArray | None, ends: Curve) -> Curve:
    """Return a smooth path in ``region`` between two of its pixels (2, 2), through ``margin`` where it can."""
    cost = np.where(region, 3.0, -1.0)  # negative is impassable
    cost[region if margin is None else margin] = 1.0
    steps, _ = route_through_array(cost, *ends.astype(int))
    path = np.array(steps, dtype=float)
    if len(path) < 3:
        return path
    return np.concatenate([path[:1], (path[:-2] + path[1:-1] + path[2:]) / 3, path[-1:]])


def _in_order(points: Curve) -> Curve:
    """Return points (n, 2) in order along the line through the two that lie farthest apart."""
    between = points[:, None] - points[None]
    first, last = np.unravel_index(int(np.argmax((between**2).sum(axis=2))), between.shape[:2])
    ordered: Curve = points[np.argsort(points @ (points[last] - points[first]), kind="stable")]
    return ordered


def _bezier(points: Curve) -> Curve:
    """Return the cubic Bézier curve of four points (4, 2) in steps below a pixel."""
    length = float(np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=1)).sum())
    t = np.linspace(0, 1, 2 + int(3 * length / _STEP / 2))
    curve: Curve = t[:, None] ** np.arange(CONTROL_POINTS) @ (_BERNSTEIN @ points)
    return curve


def _longest_run(inside: BoolArray) -> tuple[int, int]:
    """Return start and stop of the longest stretch of True; (0, 0) if there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    best = int(np.argmax(stops - starts))
    return int(starts[best]), int(stops[best])
