"""Transpose, crop, normalise, resample; and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autoseg.cases.case import Case, Target
from autoseg.core.geometry import Geometry
from autoseg.preprocessing import anisotropic_axis, preprocess, resample_codes, resample_image, restore
from autoseg.preprocessing.label_set_unions import LabelSetUnions
from autoseg.preprocessing.pipeline import resampled_shape

LABEL_SETS = np.array([[1, 0], [0, 1], [1, 1]], bool)


def _case(shape=(9, 10, 12), spacing=(3.0, 1.0, 2.0), ndim=3):
    rng = np.random.default_rng(0)
    image = np.zeros((1, *shape), np.float32)
    box = (slice(0, 1), slice(2, 8), slice(3, 10)) if shape[0] == 1 else (slice(1, 8), slice(2, 9), slice(3, 10))
    image[(0, *box)] = rng.normal(10, 3, image[(0, *box)].shape)
    codes = rng.integers(0, 3, shape).astype(np.uint8)
    return Case("toy", image, Geometry(spacing=spacing, ndim=ndim), Target(codes, LABEL_SETS, 2)), box


@pytest.mark.parametrize("transpose", list(itertools.permutations(range(3))), ids=str)
def test_it_is_the_steps_in_their_order(make_plan, transpose):
    case, box = _case()
    plan = make_plan(transpose=transpose, spacing=(2.5, 1.5, 1.5), masked=False)
    prepared = preprocess(case, plan, plan.configuration("3d_fullres"), unknown=2)
    cropped = case.image[0][box].transpose(transpose)
    spacing = [case.geometry.spacing[axis] for axis in transpose]
    shape = tuple(
        round(edge / target * n) for edge, target, n in zip(spacing, (2.5, 1.5, 1.5), cropped.shape, strict=True)
    )
    expected = resample_image(((cropped - cropped.mean()) / cropped.std())[None], shape)
    np.testing.assert_allclose(prepared.image, expected, atol=1e-4)
    unions = LabelSetUnions(case.target.label_sets)
    codes = resample_codes(case.target.codes[box].transpose(transpose), shape, unknown=2, unions=unions)
    np.testing.assert_array_equal(prepared.label_sets, unions.label_sets)
    np.testing.assert_array_equal(prepared.codes, codes)
    assert prepared.record.shape == shape
    assert prepared.record.shape_after_crop == cropped.shape
    assert prepared.record.spacing_before == tuple(spacing)
    assert prepared.image.flags.c_contiguous


@pytest.mark.parametrize("transpose", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("shape", [(9, 10, 12), (1, 11, 13)], ids=["3d", "2d"])
def test_restore_inverts_transpose_and_crop(make_plan, transpose, shape):
    case, box = _case(shape)
    plan = make_plan(transpose=transpose)
    record = preprocess(case, plan, plan.configuration("3d_fullres"), unknown=2).record
    cropped = case.image[0][box].transpose(transpose)
    np.testing.assert_array_equal(restore(cropped, record), case.image[0])
    stack = np.stack([cropped, cropped + 1])
    expected = np.full((2, *shape), 7, np.float32)
    expected[(slice(None), *box)] = np.stack([case.image[0][box], case.image[0][box] + 1])
    np.testing.assert_array_equal(restore(stack, record, fill=7), expected)
    assert restore(cropped.astype(np.uint8), record).dtype == np.uint8


def test_restore_refuses_another_grid(make_plan):
    case, _ = _case()
    plan = make_plan()
    record = preprocess(case, plan, plan.configuration("3d_fullres"), unknown=2).record
    with pytest.raises(ValueError, match=r"'toy': .*\(2, 2, 2\).*\(7, 7, 7\)"):
        restore(np.zeros((2, 2, 2)), record)


def test_a_2d_configuration_keeps_the_slices(make_plan):
    case, _ = _case(spacing=(5.0, 1.0, 1.0))
    plan = make_plan(spacing=(2.0, 0.5, 0.7))
    prepared = preprocess(case, plan, plan.configuration("2d"), unknown=2)
    assert prepared.record.spacing == (5.0, 0.5, 0.7)
    assert prepared.record.shape == (7, 14, 10)


def test_prediction_and_training_see_the_same_image(make_plan):
    case, _ = _case()
    plan = make_plan(masked=True)
    configuration = plan.configuration("3d_fullres")
    without = Case(case.name, case.image, case.geometry)
    prepared = preprocess(without, plan, configuration, unknown=None)
    assert prepared.codes is None
    np.testing.assert_array_equal(prepared.image, preprocess(case, plan, configuration, unknown=2).image)


def test_the_case_is_not_changed(make_plan):
    case, _ = _case()
    image, codes = case.image.copy(), case.target.codes.copy()
    plan = make_plan(spacing=(3.0, 1.0, 2.0))
    prepared = preprocess(case, plan, plan.configuration("3d_fullres"), unknown=2)
    prepared.image[...] = 0
    prepared.codes[...] = 0
    np.testing.assert_array_equal(case.image, image)
    np.testing.assert_array_equal(case.target.codes, codes)


def test_an_all_zero_image_is_kept_whole(make_plan):
    case = Case("empty", np.zeros((1, 4, 5, 6), np.float32), Geometry(spacing=(2.0, 1.0, 1.0)))
    plan = make_plan()
    prepared = preprocess(case, plan, plan.configuration("3d_fullres"), unknown=None)
    assert prepared.record.shape == (4, 5, 6)
    assert not prepared.image.any()


@pytest.mark.parametrize(
    ("before", "after", "axis"),
    [
        ((5.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
        ((1.0, 1.0, 5.0), (1.0, 1.0, 1.0), 2),
        ((1.0, 1.0, 1.0), (1.0, 4.0, 1.0), 1),
        ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), None),
        ((0.24, 1.25, 1.25), (1.0, 1.0, 1.0), None),
        ((0.2, 1.0, 1.0), (5.0, 1.0, 1.0), None),
        ((999.0, 1.0, 1.0), (999.0, 2.0, 2.0), 0),
    ],
)
def test_the_anisotropic_axis_is_the_one_coarsest_axis_beyond_3(before, after, axis):
    assert anisotropic_axis(before, after) == axis


def test_a_shape_is_rounded_half_to_even_and_never_0():
    assert resampled_shape((5, 7, 1), (1.0, 1.0, 1.0), (2.0, 2.0, 100.0)) == (2, 4, 1)
