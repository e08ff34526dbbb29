"""Distances are exact although only a box is processed, and stray annotation is named."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from autoseg.annotation.distance import Stray, find_strays, within

TOUCHED = np.array([[1, 0], [0, 1], [0, 0], [0, 1]], bool)
"""Background, class 1, nothing known, and a set with class 1."""


@pytest.mark.parametrize(
    ("shape", "spacing"), [((13, 17), (1.0, 2.5)), ((7, 9, 11), (5.0, 1.0, 0.7))], ids=["2d", "3d"]
)
@pytest.mark.parametrize("reach_mm", [0.5, 3.0, 5.0, 100.0])
def test_within_is_the_distance_transform_of_the_whole_array(shape, spacing, reach_mm):
    own = np.random.default_rng(0).random(shape) < 0.01
    own[tuple(n // 2 for n in shape)] = True
    expected = ndimage.distance_transform_edt(~own, sampling=spacing) <= reach_mm
    np.testing.assert_array_equal(within(own, spacing, reach_mm), expected)


def test_a_tiny_piece_far_from_its_class_is_a_stray():
    codes = np.full((2, 20, 40), 2, np.uint8)
    codes[0, 3, 2:22] = 1
    codes[1, 15, 35:37] = 1
    stray = Stray(1, (1, 15, 35), 2)
    assert find_strays(codes, TOUCHED, (1.0, 1.0, 1.0), {1: 10.0}) == (stray,)
    assert find_strays(codes, TOUCHED, (1.0, 1.0, 1.0), {1: 20.0}) == ()
    codes[codes == 1] = 2
    codes[0, ::6, ::9] = 1  # points only: none of them is a slip
    assert find_strays(codes, TOUCHED, (1.0, 1.0, 1.0), {1: 2.0}) == ()


def test_a_piece_near_a_set_with_its_class_is_not_a_stray():
    codes = np.full((2, 20, 40), 2, np.uint8)
    codes[0, 3, 2:22] = 1
    codes[1, 15, 35:37] = 1
    codes[1, 12, 34] = 3
    assert find_strays(codes, TOUCHED, (1.0, 1.0, 1.0), {1: 10.0}) == ()
