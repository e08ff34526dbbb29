"""Cropping looks at the image alone and finds the tight box of what is not zero."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from autoseg.preprocessing.crop import any_nonzero, box_slices, content_box, nonzero_mask


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
    assert content_box(image) == ((0, 1, 2), (1, 2, 3))


@pytest.mark.parametrize("voxels_at_once", [1, 150, 10**6])
@pytest.mark.parametrize("density", [0.02, 0.9])
@pytest.mark.parametrize("shape", [(9, 11, 10), (1, 12, 13)], ids=["3d", "2d"])
def test_the_box_is_tight_however_many_voxels_are_read_at_once(shape, density, voxels_at_once, monkeypatch):
    monkeypatch.setattr("autoseg.core.chunks.VOXELS", voxels_at_once)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        image = rng.integers(-5, 5, (2, *shape)).astype(np.int16) * (rng.random((2, *shape)) < density)
        image[:, :2] *= seed % 2  # an empty border in z of some
        image[(0, *(length // 2 for length in shape))] = 1
        where = np.argwhere(image.any(axis=0))
        expected = tuple(where.min(axis=0)), tuple(where.max(axis=0) + 1)
        assert content_box(image) == expected
        filled = ndimage.binary_fill_holes(image.any(axis=0))
        assert content_box(filled[None]) == expected
        assert image[(slice(None), *box_slices(*expected))].any(axis=0).sum() == len(where)


def test_an_empty_image_gives_the_full_box():
    assert content_box(np.zeros((1, 3, 4, 5), np.float32)) == ((0, 0, 0), (3, 4, 5))
