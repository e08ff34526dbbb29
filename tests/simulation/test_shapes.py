"""Shapes lie where they are told to, in millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.simulation.shapes import blob, millimetres, smooth_field, tube

SHAPE, SPACING = (20, 30, 40), (2.0, 1.0, 0.5)


def test_millimetres_are_measured_from_the_centre():
    z, y, x = millimetres(SHAPE, SPACING)
    assert (z.shape, y.shape, x.shape) == ((20, 1, 1), (1, 30, 1), (1, 1, 40))
    assert (z.min(), z.max()) == (-19, 19)
    assert x[0, 0, 1] - x[0, 0, 0] == 0.5


def test_a_tube_is_where_its_path_is():
    position = millimetres(SHAPE, SPACING)
    inside = tube(position, [(-10, 0, 0), (0, 0, 0), (10, 0, 0)], 3.0)
    z, y, x = position
    expected = (y**2 + x**2 < 9) & (abs(z) <= 10)
    assert np.array_equal(inside & (abs(z) <= 10), expected)
    assert inside.any(axis=(1, 2)).sum() == 12  # 20 mm and the round ends


def test_a_tube_beyond_the_volume_is_empty():
    assert not tube(millimetres(SHAPE, SPACING), [(500, 0, 0), (600, 0, 0)], 3.0).any()


def test_a_bent_tube_starts_and_ends_at_the_ends_of_its_path():
    position = millimetres((1, 60, 60), (1.0, 1.0, 1.0))
    inside = tube(position, [(0, -20.5, -20.5), (0, 20, -20), (0, 20.5, 20.5)], 2.0)[0]
    assert inside[9, 9]
    assert inside[50, 50]
    assert not inside[30, 30]


def test_a_blob_has_about_the_volume_of_its_ellipsoid():
    rng = np.random.default_rng(0)
    position = millimetres((40, 40, 40), (1.0, 1.0, 1.0))
    volumes = [blob(rng, position, (0, 0, 0), (8, 10, 12), (40, 40, 40), (1.0, 1.0, 1.0)).sum() for _ in range(10)]
    assert np.mean(volumes) == pytest.approx(4 / 3 * np.pi * 8 * 10 * 12, rel=0.2)


def test_a_smooth_field_is_standardised_and_smooth():
    field = smooth_field(np.random.default_rng(0), (40, 40, 40), (1.0, 1.0, 1.0), 10.0)
    assert field.std() == pytest.approx(1)
    assert abs(field.mean()) < 0.3
    assert abs(np.diff(field, axis=0)).max() < 1
