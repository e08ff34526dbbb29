"""Matrix products give what skimage and nnU-Net give voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import resize

from autoseg.preprocessing import resample_image
from autoseg.preprocessing.axes import nearest_indices, operator

SHAPES = [
    ((23,), (31,)),
    ((20, 13), (9, 40)),
    ((12, 13, 14), (20, 7, 14)),
    ((12, 13, 14), (5, 27, 33)),
    ((12, 13, 14), (19, 13, 14)),
    ((30, 9, 8), (11, 12, 12)),
    ((1, 30, 30), (1, 50, 17)),
    ((30, 2, 1), (7, 9, 4)),
    ((3, 70, 5), (3, 150, 1)),
]
IDS = [f"{before}->{after}" for before, after in SHAPES]


def _reference(channel, shape, order):
    return resize(channel.astype(np.float64), shape, order, mode="edge", anti_aliasing=False, clip=True)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("before", "after"), SHAPES, ids=IDS)
def test_it_equals_skimage_within_1e_5_of_the_range(before, after, order):
    image = np.random.default_rng(0).normal(size=(2, *before)).astype(np.float32)
    result = resample_image(image, after, order=order)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    for channel, resampled in zip(image, result, strict=True):
        np.testing.assert_allclose(resampled, _reference(channel, after, order), atol=1e-5 * np.ptp(channel))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float16, np.float64, bool])
def test_every_real_type_is_taken(dtype):
    image = (np.random.default_rng(0).random((1, 9, 10)) * 2).astype(dtype)
    expected = _reference(image[0].astype(np.float64), (14, 6), 3)
    np.testing.assert_allclose(resample_image(image, (14, 6))[0], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_a_large_offset_costs_no_more_than_the_rounding_of_the_result(dtype):
    image = (np.random.default_rng(0).random((1, 8, 9, 10)) * 4000 + 1e6).astype(dtype)
    expected = _reference(image[0], (12, 5, 13), 3)
    np.testing.assert_allclose(resample_image(image, (12, 5, 13))[0], expected, atol=0.0626)  # 1 ulp at 1e6


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("after", [(12, 20, 9), (5, 7, 33), (9, 11, 26)], ids=str)
def test_the_separate_axis_takes_nearest_slices_each_clipped_to_its_own_range(axis, after):
    image = np.random.default_rng(0).normal(size=(1, 9, 11, 13)).astype(np.float32)
    image[0, 4] *= 100
    before = image.shape[1:]
    in_plane = tuple(length for index, length in enumerate(after) if index != axis)
    slices = np.stack([_reference(plane, in_plane, 3) for plane in np.moveaxis(image[0], axis, 0)])
    where = before[axis] / after[axis] * (np.arange(after[axis]) + 0.5) - 0.5
    coordinates = np.meshgrid(where, *(np.arange(length) for length in in_plane), indexing="ij")
    expected = np.moveaxis(ndimage.map_coordinates(slices, coordinates, order=0, mode="nearest"), 0, axis)
    result = resample_image(image, after, separate_axis=axis)[0]
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.ptp(image))


def test_a_constant_stays_exactly_constant():
    image = np.full((1, 5, 6, 7), 0.1, np.float32)
    np.testing.assert_array_equal(resample_image(image, (9, 3, 8)), np.full((1, 9, 3, 8), 0.1, np.float32))


def test_the_same_shape_gives_a_copy_and_the_image_is_never_changed():
    image = np.random.default_rng(0).normal(size=(1, 5, 6)).astype(np.float32)
    before = image.copy()
    same = resample_image(image, (5, 6))
    same[...] = 0
    resample_image(image, (7, 3))
    np.testing.assert_array_equal(image, before)


def test_views_in_any_axis_order_are_taken():
    image = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    view = image.transpose(0, 3, 1, 2)[..., ::-1]
    np.testing.assert_array_equal(resample_image(view, (9, 9, 9)), resample_image(view.copy(), (9, 9, 9)))


def test_an_image_without_voxels_gives_zeros():
    np.testing.assert_array_equal(resample_image(np.zeros((2, 0, 3), np.float32), (4, 5)), np.zeros((2, 4, 5)))


def test_a_shape_that_does_not_fit_is_refused():
    image = np.zeros((1, 4, 4), np.float32)
    with pytest.raises(ValueError, match=r"\(4, 4, 4\) .*spatial shape \(4, 4\)"):
        resample_image(image, (4, 4, 4))
    with pytest.raises(ValueError, match="one length of at least 1"):
        resample_image(image, (0, 4))
    with pytest.raises(ValueError, match="separate_axis is 2, expected None"):
        resample_image(image, (5, 5), separate_axis=2)
    with pytest.raises(ValueError, match=r"spline order 2 .*expected one of"):
        resample_image(image, (5, 5), order=2)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (7, 7), (10, 25), (300, 130), (64, 65)])
def test_the_rows_of_an_operator_sum_to_1(n, m):
    for order in (0, 1, 3):
        sums = np.concatenate([block.weights.sum(axis=1) for block in operator(n, m, order)])
        assert sums.shape == (m,)
        np.testing.assert_allclose(sums, 1, atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(1, 4), (10, 5), (10, 7), (13, 29), (6, 12)])
def test_nearest_indices_are_those_of_skimage(n, m):
    expected = resize(np.arange(n, dtype=np.float64), (m,), 0, mode="edge", anti_aliasing=False)
    np.testing.assert_array_equal(nearest_indices(n, m), expected)
