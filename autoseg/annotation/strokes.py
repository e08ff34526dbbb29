"""Strokes as a person draws them: thin, smooth curves inside a region of a slice."""

from __future__ import annotations

import numpy as np

from autoseg.core.case import BoolArray

_STEP = 0.7
"""Pixels per step of a curve; below 1, so that it leaves no gap."""


def draw_strokes(rng: np.random.Generator, region: BoolArray, *, n: int, length: float) -> BoolArray:
    """Draw ``n`` curves, one pixel wide, that start in ``region`` and stay there.

    Parameters
    ----------
    rng
        Source of all randomness.
    region
        (y, x). An empty region gives an empty drawing.
    n
        Number of curves, each from a random start.
    length
        Of a curve, as a multiple of the square root of its region's area times two.

    Returns
    -------
    drawn
        (y, x), a subset of ``region``.
    """
    drawn = np.zeros_like(region)
    pixels = np.argwhere(region)
    if len(pixels) == 0:
        return drawn
    n_steps = max(4, int(2 * length * np.sqrt(len(pixels)) / _STEP))
    for start in rng.integers(len(pixels), size=n):
        _walk(rng, region, drawn, pixels[start], n_steps)
    return drawn


def erode(region: BoolArray) -> BoolArray:
    """Return ``region`` (y, x) without its border pixels (4-neighbourhood), or itself if nothing would be left."""
    padded = np.pad(region, 1)
    inner = region & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return inner if inner.any() else region


def dilate(region: BoolArray, n: int) -> BoolArray:
    """Return ``region`` (y, x) grown by ``n`` pixels (4-neighbourhood)."""
    grown = region
    for _ in range(n):
        padded = np.pad(grown, 1)
        grown = grown | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
    return grown


def ring(region: BoolArray, distance: int) -> BoolArray:
    """Return the band two pixels wide around ``region`` (y, x) at ``distance`` pixels; empty if the region is."""
    return dilate(region, distance + 2) & ~dilate(region, distance)


def _walk(rng: np.random.Generator, region: BoolArray, drawn: BoolArray, start: np.ndarray, n_steps: int) -> None:
    """Mark a curve in ``drawn``: it bends slowly, and turns where it would leave the region."""
    position = start.astype(float)
    heading = rng.uniform(0, 2 * np.pi)
    drawn[tuple(start)] = True
    bends = rng.normal(0.0, 0.15, n_steps)
    for bend in bends:
        heading += bend
        for turn in _TURNS:
            ahead = position + _STEP * np.array([np.sin(heading + turn), np.cos(heading + turn)])
            pixel = tuple(np.rint(ahead).astype(int))
            if _inside(pixel, region):
                break
        else:
            return
        heading += turn
        position = ahead
        drawn[pixel] = True


_TURNS = tuple(sign * angle for angle in np.linspace(0, np.pi, 9) for sign in (1, -1))


def _inside(pixel: tuple[int, ...], region: BoolArray) -> bool:
    return all(0 <= index < n for index, n in zip(pixel, region.shape, strict=True)) and bool(region[pixel])
