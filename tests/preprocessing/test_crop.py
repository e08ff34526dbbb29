"""Cropping looks at the image alone and finds the tight box of what is not zero."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from autoseg.preprocessing.crop import any_nonzero, bounding_box, box_slices, nonzero_mask


@pytest.mark.parametrize("shape", [(9, 11, 10), (1, 12, 13), (2, 7, 8)], ids=["3d", "2d", "two slices"])
@pytest.mark.parametrize("seed", range(5))
def test_nonzero_mask_equals_binary_fill_holes_of_the_union_of_channels(shape, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, *shape)).astype(np.float32) * (rng.random((2, *shape)) < 0.35)
    expected = ndimage.binary_fill_holes((image != 0).any(axis=0))
    np.testing.assert_array_equal(nonzero_mask(image), expected)


def test_a_hole_inside_a_shell_is_filled():
    image = np.zeros((1, 7, 7, 7), np.float32)
    image[0, 1:6, 1:6, 1:6] = 3
    image[0, 3, 3, 3] = 0
    assert nonzero_mask(image).sum() == 125
    assert any_nonzero(image).sum() == 124


def test_nan_counts_as_not_zero():
    image = np.zeros((1, 1, 4, 4), np.float32)
    image[0, 0, 1, 2] = np.nan
    assert bounding_box(nonzero_mask(image)) == ((0, 1, 2), (1, 2, 3))


@pytest.mark.parametrize("shape", [(9, 11, 10), (1, 12, 13)], ids=["3d", "2d"])
@pytest.mark.parametrize("seed", range(5))
def test_bounding_box_is_tight_and_filling_holes_does_not_change_it(shape, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.02
    mask[tuple(length // 2 for length in shape)] = True
    low, high = bounding_box(mask)
    where = np.argwhere(mask)
    assert low == tuple(where.min(axis=0))
    assert high == tuple(where.max(axis=0) + 1)
    assert mask[box_slices(low, high)].sum() == mask.sum()
    assert bounding_box(ndimage.binary_fill_holes(mask)) == (low, high)


def test_an_empty_mask_gives_the_full_box():
    assert bounding_box(np.zeros((3, 4, 5), bool)) == ((0, 0, 0), (3, 4, 5))
