"""Scribble curves in the region of a class in a slice: one through its middle, and one along its border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import route_through_array
from skimage.measure import find_contours

from autoseg.core.arrays import BoolArray

Curve = NDArray[np.float64]
"""(n, 2) positions (y, x) in pixels. Adjacent positions are less than one pixel apart."""

CONTROL_POINTS = 4
BORDER_SHARE = (0.07, 0.15)
"""Range of the share of the border that a border curve follows; drawn uniformly."""
BORDER_DEPTH = (1.0, 4.0)
"""Range of the distance of a border curve from the border, pixels; drawn uniformly. Less in thin regions."""

_STEP = 0.7
_ATTEMPTS = 6
_SHORT = 0.1
"""Share of the region's diagonal below which a curve counts as short. The region is then a net of thin parts."""
_THIN = 0.6
"""Largest distance of a border curve from the border, as a share of the greatest depth of the region."""
_BERNSTEIN = np.array([[1, 0, 0, 0], [-3, 3, 0, 0], [3, -6, 3, 0], [-1, 3, -3, 1]], dtype=float)
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def largest_component(region: BoolArray) -> BoolArray:
    """Return a mask (y, x) of the largest 8-connected component of ``region`` (y, x), the first of equal ones.

    Empty if the region is empty.
    """
    pieces, n = ndimage.label(region, structure=_EIGHT_NEIGHBOURS)
    if n <= 1:
        return region
    largest: BoolArray = pieces == 1 + int(np.argmax(np.bincount(pieces.reshape(-1))[1:]))
    return largest


def depth_inside(region: BoolArray) -> NDArray[np.float64] | None:
    """Return (y, x) float64: distance of every pixel of ``region`` (y, x) from the next pixel outside it, in pixels.

    0 outside the region. The edge of the image does not count as a border. None if the region fills the image.
    """
    if region.all():
        return None
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(region)
    return depth


def interior_curve(rng: np.random.Generator, region: BoolArray, margin: BoolArray | None = None) -> Curve:
    """Return a smooth random curve (n, 2) inside ``region``.

    It is a Bézier curve with four control points, drawn uniformly from ``margin`` and ordered along their longest
    extent. Of several attempts, the first curve that lies completely inside is taken, otherwise the longest part that
    does. If that is short (in nets of thin parts), the curve is a path in the net from one pixel to another.
    Source: ScribbleBench ``scribble_conf.yml`` (a NURBS of four control points inside the component). Differs in nets.

    Parameters
    ----------
    region
        (y, x) mask, not empty.
    margin
        (y, x) mask of the part of the region that holds the control points, not empty. None: the whole region.
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
    """Return a random curve (n, 2) along the border of a region, some pixels inside it.

    Source: ScribbleBench ``scribble_conf.yml`` (7 to 15 % of the contour, 1 to 4 pixels inside). Differs: the edge of
    the image is not a border, so that the curve always lies next to another class.

    Parameters
    ----------
    depth
        (y, x), the result of :func:`depth_inside`, in pixels; at least one value above 0.
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
    """Return a mask (y, x) of the pixels of ``region`` (y, x) within ``thickness / 2`` pixels of ``curve`` (n, 2)."""
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
    """Return a smooth path (n, 2) in ``region`` (y, x) between two of its pixels ``ends`` (2, 2).

    It prefers pixels of ``margin`` (y, x).
    """
    cost = np.where(region, 3.0, -1.0)  # negative is impassable
    cost[region if margin is None else margin] = 1.0
    steps, _ = route_through_array(cost, *ends.astype(int))
    path = np.array(steps, dtype=float)
    if len(path) < 3:
        return path
    return np.concatenate([path[:1], (path[:-2] + path[1:-1] + path[2:]) / 3, path[-1:]])


def _in_order(points: Curve) -> Curve:
    """Return the points (n, 2), sorted along the line through the two points with the largest distance."""
    between = points[:, None] - points[None]
    first, last = np.unravel_index(int(np.argmax((between**2).sum(axis=2))), between.shape[:2])
    ordered: Curve = points[np.argsort(points @ (points[last] - points[first]), kind="stable")]
    return ordered


def _bezier(points: Curve) -> Curve:
    """Return the cubic Bézier curve (n, 2) of four control points (4, 2), in steps below one pixel."""
    length = float(np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=1)).sum())
    t = np.linspace(0, 1, 2 + int(3 * length / _STEP / 2))
    curve: Curve = t[:, None] ** np.arange(CONTROL_POINTS) @ (_BERNSTEIN @ points)
    return curve


def _longest_run(inside: BoolArray) -> tuple[int, int]:
    """Return start and stop of the longest run of True in a mask (n,); (0, 0) if there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    best = int(np.argmax(stops - starts))
    return int(starts[best]), int(stops[best])
