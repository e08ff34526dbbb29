"""Curves stay where they are told to, are connected, and are as long and as thick as they should be."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from autoseg.simulation.curves import (
    BORDER_SHARE,
    border_curve,
    depth_inside,
    interior_curve,
    largest_component,
    paint,
)

SEEDS = pytest.mark.parametrize("seed", range(5))


def disc() -> np.ndarray:
    y, x = np.mgrid[:60, :70]
    return (y - 30) ** 2 + (x - 40) ** 2 < 20**2


def moon() -> np.ndarray:
    y, x = np.mgrid[:60, :70]
    return disc() & ((y - 30) ** 2 + (x - 48) ** 2 > 18**2)


def ring() -> np.ndarray:
    y, x = np.mgrid[:60, :70]
    return disc() & ((y - 30) ** 2 + (x - 40) ** 2 > 16**2)


def net() -> np.ndarray:
    y, x = np.mgrid[:90, :90]
    return ((y % 22 < 2) | (x % 22 < 2)) & (y < 88) & (x < 88)


REGIONS = pytest.mark.parametrize("region", [disc(), moon(), ring()], ids=["disc", "moon", "ring"])


@SEEDS
@REGIONS
def test_an_interior_curve_is_one_piece_inside_its_region(region: np.ndarray, seed: int) -> None:
    drawn = paint(interior_curve(np.random.default_rng(seed), region), region, 1)
    assert not (drawn & ~region).any()
    assert label(drawn, connectivity=2).max() == 1
    assert 3 < drawn.sum() < 0.2 * region.sum()


@SEEDS
def test_an_interior_curve_follows_a_net(seed: int) -> None:
    drawn = paint(interior_curve(np.random.default_rng(seed), net()), net(), 1)
    assert label(drawn, connectivity=2).max() == 1
    assert np.hypot(*np.ptp(np.argwhere(drawn), axis=0)) >= 9


@SEEDS
@REGIONS
def test_a_border_curve_is_one_piece_along_the_border(region: np.ndarray, seed: int) -> None:
    depth = depth_inside(region)
    assert depth is not None
    drawn = paint(border_curve(np.random.default_rng(seed), depth), region, 1)
    assert label(drawn, connectivity=2).max() == 1
    assert depth[drawn].max() <= 5
    assert depth[drawn].max() - depth[drawn].min() <= 2


def test_a_border_curve_follows_7_to_15_percent_of_the_contour() -> None:
    depth = depth_inside(disc())
    assert depth is not None
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(50):
        curve = border_curve(rng, depth)
        radius = np.hypot(curve[:, 0] - 30, curve[:, 1] - 40).mean()
        length = np.hypot(*np.diff(curve, axis=0).T).sum()
        shares.append(length / (2 * np.pi * radius))
        assert 15 < radius < 19.5
    assert BORDER_SHARE[0] - 0.02 < min(shares) < 0.09
    assert 0.13 < max(shares) < BORDER_SHARE[1] + 0.02


@pytest.mark.parametrize(("thickness", "expected"), [(1, 1), (2, 1), (3, 3), (5, 5)])
def test_a_scribble_has_the_given_thickness(thickness: int, expected: int) -> None:
    line = np.stack([np.full(30, 10.0), np.linspace(5, 25, 30)], axis=1)
    drawn = paint(line, np.ones((20, 30), dtype=bool), thickness)
    widths = drawn[:, 8:22].sum(axis=0)
    assert (widths >= expected).all()
    assert (widths <= thickness + 1).all()


def test_paint_beyond_the_region_or_the_picture_is_lost() -> None:
    region = np.zeros((6, 6), dtype=bool)
    region[:, :2] = True
    drawn = paint(np.array([[0.0, 0.0], [5.0, 1.0]]), region, 3)
    assert np.array_equal(drawn, region & drawn)
    assert drawn[0, 0]


def test_the_largest_component_counts_diagonal_neighbours() -> None:
    region = np.zeros((6, 6), dtype=bool)
    region[[0, 1, 2], [0, 1, 2]] = True
    region[5, 4:] = True
    assert np.argwhere(largest_component(region)).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert not largest_component(np.zeros((3, 3), dtype=bool)).any()


def test_the_rim_of_the_picture_is_no_border() -> None:
    region = np.ones((5, 5), dtype=bool)
    assert depth_inside(region) is None
    region[:, 4] = False
    depth = depth_inside(region)
    assert depth is not None
    assert depth[2].tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 3)])
def test_the_smallest_regions_can_be_drawn(shape: tuple[int, int]) -> None:
    region = np.zeros((7, 7), dtype=bool)
    region[2 : 2 + shape[0], 2 : 2 + shape[1]] = True
    rng = np.random.default_rng(0)
    depth = depth_inside(region)
    assert depth is not None
    for curve in (interior_curve(rng, region), border_curve(rng, depth)):
        drawn = paint(curve, region, 3)
        assert drawn.any()
        assert not (drawn & ~region).any()
