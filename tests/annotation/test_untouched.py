"""A predicted object that nobody touched is none, where every object was promised to be touched."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.annotation.untouched import exclude_untouched, untouched_components
from autoseg.cases.case import Target
from autoseg.dataset.labels import CaseStatement

UNKNOWN, COARSE = 3, 4
SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1]], bool)  # background, 1, 2, unknown, "1 or 2"


def blank(*shape: int) -> np.ndarray:
    return np.full(shape, UNKNOWN, np.uint8)


@pytest.mark.parametrize("shape", [(1, 12, 12), (12, 12, 12)], ids=["2d", "3d"])
def test_components_without_annotation_are_untouched(shape):
    middle = shape[0] // 2
    prediction = np.zeros(shape, np.uint8)
    touched, beside, other, border = np.s_[2:4], np.s_[5:7], np.s_[8:10], np.s_[0:1]
    for rows in (touched, beside, other, border):
        prediction[middle, rows, 2:4] = 1
    prediction[middle, 8:10, 6:8] = 2
    codes = blank(*shape)
    codes[middle, 2, 2] = 1
    codes[middle, 5, 4] = COARSE  # next to it, and perhaps of its class
    codes[middle, 8, 2] = 2  # another class
    expected = np.zeros(shape, bool)
    expected[middle, other, 2:4] = True
    np.testing.assert_array_equal(untouched_components(prediction, codes, SETS) & (prediction == 1), expected)
    assert untouched_components(prediction, codes, SETS)[middle, 8, 6]
    assert not untouched_components(np.zeros(shape, np.uint8), codes, SETS).any()


def test_unannotated_voxels_do_not_touch_components():
    prediction = np.zeros((1, 5, 5), np.uint8)
    prediction[0, 2, 2] = 1
    assert untouched_components(prediction, blank(1, 5, 5), SETS)[0, 2, 2]


def test_nothing_lies_behind_the_border_of_a_whole_case():
    prediction = np.zeros((1, 5, 5), np.uint8)
    prediction[0, 0, 0] = 1
    assert not untouched_components(prediction, blank(1, 5, 5), SETS).any()
    assert untouched_components(prediction, blank(1, 5, 5), SETS, is_whole=True)[0, 0, 0]


@pytest.mark.parametrize("shape", [(1, 6, 9), (6, 6, 9)], ids=["2d", "3d"])
def test_an_untouched_object_may_be_every_class_but_the_one_predicted(shape):
    codes = blank(*shape)
    codes[0, 1, 1] = 1
    prediction = np.zeros(shape, np.uint8)
    prediction[0, 1, 1:3] = 1  # touched
    prediction[0, 4, 1:3] = 1
    prediction[0, 4, 7] = 2
    codes[0, 4, 2] = COARSE - 4  # drawn as background: certain, whatever is predicted
    drawn = Target(codes, SETS, 3)
    left = exclude_untouched(prediction, drawn, drawn)
    actual = left.label_sets[left.codes]
    expected = SETS[codes].copy()
    expected[0, 4, 1, 1] = expected[0, 4, 7, 2] = False
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(codes, drawn.codes)


def test_where_all_objects_are_touched_nothing_is_excluded():
    codes = blank(1, 4, 4)
    codes[0, 0, 0] = 1
    prediction = np.zeros((1, 4, 4), np.uint8)
    prediction[0, :2, :2] = 1
    drawn = Target(codes, SETS, 3)
    assert exclude_untouched(prediction, drawn, drawn) is None
    assert exclude_untouched(np.zeros_like(prediction), drawn, drawn) is None


def test_a_set_of_the_predicted_class_alone_stays():
    prediction = np.ones((1, 2, 2), np.uint8)
    only = Target(np.ones((1, 2, 2), np.uint8), SETS, 3)
    assert exclude_untouched(prediction, Target(blank(1, 2, 2), SETS, 3), only) is None


@pytest.mark.parametrize("shape", [(1, 12, 10), (5, 12, 10)], ids=["2d", "3d"])
def test_classes_that_are_not_annotated_in_a_case_stay(shape):
    sets = np.vstack([np.eye(4, dtype=bool), np.ones((1, 4), bool)])
    codes = np.full(shape, 4, np.uint8)
    prediction = np.zeros(shape, np.uint8)
    prediction[0, 1:3, 1:3], prediction[0, 5:7, 1:3], prediction[0, 9:11, 1:3] = 1, 2, 3
    drawn = Target(codes, sets, 4)
    for annotated in (frozenset({1}), frozenset({0, 2}), frozenset()):
        left = exclude_untouched(prediction, drawn, drawn, CaseStatement(annotated=annotated))
        remaining = drawn if left is None else left
        allowed = np.take_along_axis(remaining.label_sets[remaining.codes], prediction[..., None].astype(int), axis=3)[
            ..., 0
        ]
        np.testing.assert_array_equal(allowed, ~np.isin(prediction, sorted(annotated - {0})))


def test_a_set_with_background_touches_what_it_may_be():
    sets = np.vstack([SETS, [[True, True, False]]])
    codes = blank(1, 9, 9)
    prediction = np.zeros(codes.shape, np.uint8)
    prediction[0, 2:5, 2:5] = 1
    assert untouched_components(prediction, codes, sets, is_whole=True).any()
    codes[0, 3, 3] = len(SETS)
    assert not untouched_components(prediction, codes, sets, is_whole=True).any()
