"""The five schemes, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.errors import FileFormatError, PlanError
from autoseg.preprocessing.normalize import mean_and_std, normalize


@pytest.fixture
def normalised(make_plan):
    def apply(image, scheme, *, masked=False):
        plan = make_plan(normalization=(scheme,) * len(image), masked=masked)
        return normalize(image, plan, plan.configuration("3d_fullres"))

    return apply


@pytest.fixture(params=[(5, 6, 7), (1, 8, 9)], ids=["3d", "2d"])
def image(request):
    rng = np.random.default_rng(0)
    return rng.normal(100, 50, size=(1, *request.param)).astype(np.float32)


def test_ct_clips_to_the_training_percentiles_and_uses_the_training_mean(normalised, image):
    expected = (np.clip(image, 20, 180) - 90) / 40
    np.testing.assert_allclose(normalised(image, "ct"), expected, rtol=1e-5)


def test_zscore_has_mean_0_and_std_1(normalised, image):
    result = normalised(image + np.float32(1e6), "zscore")
    assert abs(result.mean(dtype=np.float64)) < 2e-3  # float32 resolves 0.06 at 1e6
    assert abs(result.std(dtype=np.float64) - 1) < 1e-5


def test_masked_zscore_sees_and_changes_only_the_filled_nonzero_part(normalised):
    rng = np.random.default_rng(0)
    image = np.zeros((1, 8, 8, 8), np.float32)
    image[0, 2:7, 2:7, 2:7] = rng.normal(50, 10, (5, 5, 5))
    image[0, 4, 4, 4] = 0  # a hole, which belongs to the object
    result = normalised(image, "zscore", masked=True)
    inside = image[0, 2:7, 2:7, 2:7]
    np.testing.assert_allclose(result[0, 2:7, 2:7, 2:7], (inside - inside.mean()) / inside.std(), atol=1e-5)
    result[0, 2:7, 2:7, 2:7] = 0
    assert not result.any()


def test_none_leaves_the_values(normalised, image):
    np.testing.assert_array_equal(normalised(image, "none"), image)


def test_rescale_reaches_0_and_1(normalised, image):
    result = normalised(image, "rescale_to_0_1")
    assert (result.min(), result.max()) == (0, 1)
    np.testing.assert_allclose(result, (image - image.min()) / (image.max() - image.min()), atol=1e-6)


def test_rgb_divides_by_255(normalised):
    image = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16)
    np.testing.assert_allclose(normalised(image, "rgb_to_0_1"), image / 255, rtol=1e-6)


def test_rgb_refuses_values_outside_0_to_255(normalised):
    with pytest.raises(FileFormatError, match=r"RGB .* 256, expected 0 to 255"):
        normalised(np.full((1, 1, 4, 4), 256, np.float32), "rgb_to_0_1")


@pytest.mark.parametrize("scheme", ["zscore", "rescale_to_0_1"])
def test_a_constant_channel_becomes_0(normalised, scheme):
    assert not normalised(np.full((1, 3, 3, 3), 7, np.float32), scheme).any()


def test_a_wrong_number_of_channels_names_the_channels(make_plan, image):
    plan = make_plan(normalization=("ct", "ct"))
    with pytest.raises(PlanError, match=r"'3d_fullres': .*1 channels, expected 2"):
        normalize(image, plan, plan.configuration("3d_fullres"))


def test_the_image_is_not_changed_and_may_be_a_view(normalised, image):
    before = image.copy()
    view = image.transpose(0, 3, 2, 1)
    result = normalised(view, "zscore")
    np.testing.assert_array_equal(image, before)
    np.testing.assert_allclose(result, normalised(np.ascontiguousarray(view), "zscore"), atol=1e-5)
    assert result.flags.c_contiguous


def test_mean_and_std_are_exact_for_large_offsets_and_many_pieces():
    values = (np.arange(3_000_000) % 3 + 1e6).astype(np.float32)
    assert mean_and_std(values) == pytest.approx((1e6 + 1, np.sqrt(2 / 3)), rel=1e-9)
    assert mean_and_std(values[:0]) == (0.0, 0.0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scheme", ["ct", "zscore", "none", "rescale_to_0_1", "rgb_to_0_1"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_integers_give_what_the_same_floats_give(normalised, dtype, scheme, masked):
    integers = np.random.default_rng(0).integers(0, 250, (2, 5, 9, 8)).astype(dtype)
    expected = normalised(integers.astype(np.float32), scheme, masked=masked)
    result = normalised(integers, scheme, masked=masked)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
