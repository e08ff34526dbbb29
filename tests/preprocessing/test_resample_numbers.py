"""Numbers are resampled from known voxels alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.cases.layers import Kind, Layer, LayerInfo
from autoseg.preprocessing.resample_image import resample_image
from autoseg.preprocessing.resample_layers import resample_layer
from autoseg.preprocessing.resample_numbers import resample_numbers

LENGTHS = st.tuples(*[st.integers(1, 9)] * 3)


def field(shape: tuple[int, ...], seed: int, share: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(2, *shape)).astype(np.float32) * 5 + 100
    numbers[rng.random(numbers.shape) < share] = np.nan
    return numbers


@given(LENGTHS, LENGTHS, st.integers(0, 99), st.sampled_from([None, 0, 1, 2]))
def test_results_lie_in_the_range_of_the_known_numbers(before, after, seed, separate_axis):
    numbers = field(before, seed)
    for values, result in zip(numbers, resample_numbers(numbers, after, separate_axis=separate_axis), strict=True):
        known = result[np.isfinite(result)]
        if np.isnan(values).all():
            assert not known.size
        elif known.size:
            assert known.min() >= np.nanmin(values) - 1e-3 and known.max() <= np.nanmax(values) + 1e-3


@given(LENGTHS, LENGTHS, st.integers(0, 99))
def test_known_everywhere_is_known_everywhere_and_plainly_linear(before, after, seed):
    numbers = field(before, seed, share=0)
    linear = resample_image(numbers, after, order=1)
    np.testing.assert_allclose(resample_numbers(numbers, after), linear, atol=1e-3)


@given(LENGTHS, LENGTHS, st.integers(0, 99))
def test_one_number_stays_the_same_wherever_it_is_known(before, after, seed):
    numbers = np.where(np.isnan(field(before, seed)), np.nan, np.float32(1234.5)).astype(np.float32)
    result = resample_numbers(numbers, after)
    np.testing.assert_allclose(result[np.isfinite(result)], 1234.5, rtol=1e-6)


def test_a_voxel_is_known_where_half_of_the_weight_is():
    row = np.array([1, 3, np.nan, np.nan, 7], dtype=np.float32).reshape(1, 1, 1, 5)
    finer = resample_numbers(row, (1, 1, 10))[0, 0, 0]  # weights 3/4 and 1/4 of the two nearest
    np.testing.assert_allclose(finer, [1, 1.5, 2.5, 3, np.nan, np.nan, np.nan, np.nan, 7, 7], rtol=1e-6)
    middles = resample_numbers(row[..., 1:], (1, 1, 2))[0, 0, 0]  # half of each of two
    np.testing.assert_allclose(middles, [3, 7], rtol=1e-6)


def test_the_source_is_not_changed_and_the_same_shape_gives_the_same_numbers():
    numbers = field((3, 4, 5), 0)
    before = numbers.copy()
    info = LayerInfo(name="targets", kind=Kind.NUMBERS, dtype="float32", channels=2)
    same = resample_layer(Layer(info, numbers), (3, 4, 5), None).array
    resample_layer(Layer(info, numbers), (6, 4, 7), None)
    np.testing.assert_array_equal(same, before)
    np.testing.assert_array_equal(numbers, before)


@pytest.mark.parametrize("separate_axis", [0, 1, 2])
def test_slices_along_a_separate_axis_are_not_mixed(separate_axis):
    shape = [4, 4, 4]
    numbers = np.full((1, *shape), np.nan, dtype=np.float32)
    index = [slice(None)] * 3
    for plane in (0, 2, 3):
        index[separate_axis] = plane
        numbers[(0, *index)] = plane
    after = [6, 6, 6]
    after[separate_axis] = 8
    result = np.moveaxis(resample_numbers(numbers, tuple(after), separate_axis=separate_axis)[0], separate_axis, 0)
    for plane, expected in enumerate([0, 0, np.nan, np.nan, 2, 2, 3, 3]):
        np.testing.assert_allclose(result[plane], expected, atol=1e-6)
