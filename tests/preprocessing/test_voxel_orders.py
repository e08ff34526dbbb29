"""The same anatomy gives the same network input whatever the order of its file, and goes back to that order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autoseg.cases.case import Case, Target
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import VoxelOrder
from autoseg.preprocessing import preprocess, restore

LABEL_SETS = np.array([[1, 0], [0, 1], [1, 1]], bool)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
LPS = (1, 0, 0, 0, 1, 0, 0, 0, 1)
EVERY_ORDER = pytest.mark.parametrize(
    "order",
    [
        VoxelOrder(axes, flips)
        for axes in itertools.permutations(range(3))
        for flips in itertools.product((False, True), repeat=3)
    ],
    ids=str,
)


def as_trained(shape, direction) -> Case:
    rng = np.random.default_rng(0)
    image = np.zeros((2, *shape), np.float32)
    image[:, :, 2:8, 3:10] = rng.normal(10, 3, image[:, :, 2:8, 3:10].shape)
    codes = rng.integers(0, 3, shape).astype(np.uint8)
    geometry = Geometry(spacing=(2.5, 1.0, 1.3), origin=(3.0, -4.0, 5.0), direction=direction)
    return Case("toy", image, geometry, Target(codes, LABEL_SETS, 2))


def stored(case: Case, order: VoxelOrder) -> Case:
    image, codes = order.apply(case.image).copy(), order.apply(case.target.codes).copy()
    geometry = order.turned(case.geometry, case.image.shape[1:])
    return Case(case.name, image, geometry, Target(codes, LABEL_SETS, 2))


@EVERY_ORDER
@pytest.mark.parametrize("direction", [LPS, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("shape", [(6, 11, 12), (1, 11, 13)], ids=["3d", "one slice"])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_every_order_gives_the_same_arrays_and_goes_back(make_plan, order, direction, shape, transpose):
    case = as_trained(shape, direction)
    plan = make_plan(normalization=("zscore", "rescale_to_0_1"), transpose=transpose, spacing=(2.0, 1.2, 1.2))
    plan = plan.model_copy(update={"direction": direction})
    expected = preprocess(case, plan, plan.configuration("3d_fullres"), unknown=2, inferred=case.target.codes)
    other = stored(case, order)
    found = preprocess(other, plan, plan.configuration("3d_fullres"), unknown=2, inferred=other.target.codes)
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.inferred, expected.inferred)
    assert found.record.geometry == other.geometry
    low, high = found.record.crop_low, found.record.crop_high
    box = tuple(map(slice, low, high))
    turned = found.record.voxel_order.apply(other.image)[(slice(None), *box)]
    np.testing.assert_array_equal(restore(turned, found.record), other.image)
    np.testing.assert_array_equal(restore(turned[0], found.record), other.image[0])


@pytest.mark.parametrize("shape", [(6, 11, 12), (1, 11, 13)], ids=["3d", "2d"])
def test_the_order_of_the_training_data_and_files_without_directions_are_left_alone(make_plan, shape):
    case = as_trained(shape, OBLIQUE)
    silent = Case("toy", case.image, Geometry(spacing=case.geometry.spacing, ndim=2 if shape[0] == 1 else 3))
    old = make_plan(normalization=("zscore",) * 2)
    new = old.model_copy(update={"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)})
    for item, plan in ((case, new.model_copy(update={"direction": OBLIQUE})), (silent, new)):
        before = preprocess(item, old, old.configuration("3d_fullres"), unknown=2)
        after = preprocess(item, plan, plan.configuration("3d_fullres"), unknown=2)
        np.testing.assert_array_equal(after.image, before.image)
        assert after.record == before.record
    assert preprocess(case, new, new.configuration("3d_fullres"), unknown=2).record.flipped == (False, True, True)


@pytest.mark.parametrize("shape", [(6, 11, 12), (1, 11, 13)], ids=["3d", "2d"])
def test_a_plan_that_does_not_crop_keeps_every_voxel(make_plan, shape):
    case = as_trained(shape, LPS)
    plan = make_plan(normalization=("none",) * 2, spacing=case.geometry.spacing).model_copy(update={"crop": False})
    prepared = preprocess(case, plan, plan.configuration("3d_fullres"), unknown=2)
    np.testing.assert_array_equal(prepared.image, case.image)
    np.testing.assert_array_equal(prepared.codes, case.target.codes)
    np.testing.assert_array_equal(restore(prepared.codes, prepared.record, fill=9), case.target.codes)
