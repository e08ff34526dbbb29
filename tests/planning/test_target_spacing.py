"""Target spacing, axis order and resampled shapes."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.planning.target_spacing import median_resampled_shape, target_spacing, transpose_axes


def test_median_spacing_where_axes_are_alike():
    spacings = np.array([[1, 1, 1], [2, 1, 1], [3, 1, 1.2]])
    np.testing.assert_allclose(target_spacing(spacings, np.full((3, 3), 100.0)), (2, 1, 1))


def test_coarse_and_short_axis_gets_its_tenth_percentile():
    spacings = np.array([[10, 1.5, 1.5], [5, 1.56, 1.56], [8, 1.5, 1.5]])
    shapes = np.array([[9, 256, 216], [18, 256, 216], [11, 240, 200]])
    np.testing.assert_allclose(target_spacing(spacings, shapes), (5.6, 1.5, 1.5))


def test_coarse_axis_never_gets_finer_than_the_others():
    spacings = np.array([[0.5, 1, 1], [4, 1, 1], [4, 1, 1], [4, 1, 1]])
    spacings[0, 0] = 0.1
    shapes = np.full((4, 3), (10, 200, 200))
    spacings[1, 0] = 0.1
    spacings = np.vstack([spacings, [[4, 1, 1]] * 2])
    assert target_spacing(spacings, np.vstack([shapes, shapes[:2]]))[0] == 1 + 1e-5


def test_coarse_but_long_axis_keeps_its_median():
    spacings = np.array([[4, 1, 1], [8, 1, 1], [9, 1, 1]])
    assert target_spacing(spacings, np.full((3, 3), 100.0))[0] == 8


@pytest.mark.parametrize(
    ("target", "forward", "backward"),
    [((3, 1, 1), (0, 1, 2), (0, 1, 2)), ((1, 1, 3), (2, 0, 1), (1, 2, 0)), ((1, 3, 1), (1, 0, 2), (1, 0, 2))],
)
def test_coarsest_axis_comes_first(target, forward, backward):
    assert transpose_axes(target) == (forward, backward)


def test_resampled_shapes_round_halves_to_even():
    spacings, shapes = np.full((2, 3), 0.5), np.array([[5, 7, 9], [5, 7, 9]])
    np.testing.assert_array_equal(median_resampled_shape(spacings, shapes, np.ones(3)), (2, 4, 4))


def test_resampled_shape_has_at_least_one_voxel():
    assert median_resampled_shape(np.ones((1, 3)), np.ones((1, 3)), np.full(3, 10.0)).tolist() == [1, 1, 1]
