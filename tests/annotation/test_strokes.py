"""Strokes stay where they are told to, are connected, and cover little."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from autoseg.annotation.strokes import dilate, draw_strokes, erode, ring


@pytest.fixture
def disc() -> np.ndarray:
    y, x = np.mgrid[:40, :50]
    return (y - 20) ** 2 + (x - 30) ** 2 < 15**2


@pytest.mark.parametrize("seed", range(5))
def test_a_stroke_is_one_thin_piece_inside_its_region(disc: np.ndarray, seed: int) -> None:
    drawn = draw_strokes(np.random.default_rng(seed), disc, n=1, length=0.7)
    assert not (drawn & ~disc).any()
    assert label(drawn, connectivity=2).max() == 1
    assert 4 < drawn.sum() < 0.2 * disc.sum()


def test_a_longer_stroke_covers_more(disc: np.ndarray) -> None:
    short, long = (draw_strokes(np.random.default_rng(0), disc, n=2, length=length).sum() for length in (0.2, 1.5))
    assert short < long


def test_an_empty_region_gives_an_empty_drawing(disc: np.ndarray) -> None:
    nowhere = np.zeros_like(disc)
    assert not draw_strokes(np.random.default_rng(0), nowhere, n=3, length=1).any()
    assert not ring(nowhere, 3).any()


def test_a_single_pixel_is_drawn() -> None:
    pixel = np.zeros((5, 5), dtype=bool)
    pixel[4, 4] = True
    assert np.array_equal(draw_strokes(np.random.default_rng(0), pixel, n=1, length=1), pixel)


def test_erosion_takes_the_border_but_never_everything() -> None:
    square = np.zeros((6, 6), dtype=bool)
    square[1:4, 1:4] = True
    assert np.argwhere(erode(square)).tolist() == [[2, 2]]
    assert np.array_equal(erode(erode(square)), erode(square))
    full = np.ones((3, 3), dtype=bool)
    assert np.argwhere(erode(full)).tolist() == [[1, 1]]  # beyond the picture is outside


def test_a_ring_keeps_its_distance() -> None:
    point = np.zeros((15, 15), dtype=bool)
    point[7, 7] = True
    y, x = np.mgrid[:15, :15]
    distance = abs(y - 7) + abs(x - 7)
    assert np.array_equal(dilate(point, 3), distance <= 3)
    assert np.array_equal(ring(point, 3), (distance > 3) & (distance <= 5))
