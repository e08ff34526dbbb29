"""Truth and prediction of a case: errors lie only where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.errors import DatasetError
from autoseg.dataset.labels import Head, Labels
from autoseg.report.class_maps import ADDED, CONFUSED, MISSED, UNMATCHED, ClassMaps, View

NAMES = ("background", "liver", "tumour")
LABELS = Labels(
    (0, 1, 2), NAMES, tuple(Head(name, (k,), (k,), is_background=k == 0) for k, name in enumerate(NAMES)),
    ignore=9, set_values={5: frozenset({1, 2})},
)  # fmt: skip


def row(*values):
    return np.array(values, dtype=np.uint16).reshape(1, 1, -1)


def classes(*values):
    return row(*values), None


def test_each_error_has_its_kind():
    truth, predicted = classes(0, 1, 1, 0, 2, 5, 5, 9, 9), classes(0, 1, 0, 2, 1, 1, 0, 0, 2)
    errors = ClassMaps.of(predicted, truth, LABELS, case="a").errors()
    assert {kind: np.flatnonzero(where).tolist() for kind, where in errors.items()} == {
        MISSED: [2, 6], ADDED: [3], CONFUSED: [4],
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 8, 9), (4, 8, 9)], ids=["2d", "3d"])
def test_nothing_depends_on_the_prediction_where_nothing_is_known(shape):
    generator = np.random.default_rng(0)
    truth = generator.choice(np.array([0, 1, 2, 5, 9], dtype=np.uint8), shape)
    valid = generator.random(shape) < 0.5
    predicted = generator.integers(0, 3, shape).astype(np.uint8)
    unknown = (truth == 9) | ~valid
    other = np.where(unknown, generator.integers(0, 3, shape), predicted).astype(np.uint8)
    first, second = (
        ClassMaps.of((item, None), (truth, None), LABELS, case="a", valid=valid).errors() for item in (predicted, other)
    )
    assert any(where.any() for where in first.values())
    for kind, where in first.items():
        np.testing.assert_array_equal(where, second[kind])
        assert not where[unknown].any()


def test_without_a_truth_there_are_no_errors():
    maps = ClassMaps.of(classes(0, 2, 0), None, LABELS, case="a")
    assert not maps.errors() and maps.foreground().tolist() == [[[False, True, False]]]
    base = np.full((1, 3, 3), 0.5, dtype=np.float32)
    assert [name for name, _ in maps.panels(0, base, View((1, 1), 1))] == ["prediction"]


def test_background_of_a_prediction_shows_the_image():
    maps = ClassMaps.of(classes(0, 2, 0), classes(9, 9, 0), LABELS, case="a")
    base = np.full((1, 3, 3), 0.5, dtype=np.float32)
    panels = dict(maps.panels(0, base, View((1, 1), 1)))
    np.testing.assert_array_equal(panels["prediction"][0, [0, 2]], base[0, [0, 2]])
    assert (panels["truth"][0, 2] != base[0, 2]).any(), "annotated background has a colour in sparse annotation"


def test_values_that_are_no_classes_are_numbers_of_objects():
    maps = ClassMaps.of(classes(0, 700, 3), classes(0, 1, 2), LABELS, case="a")
    assert not maps.meanings and not maps.errors()
    assert maps.foreground().tolist() == [[[False, True, True]]]


def test_a_truth_with_undeclared_values_is_refused():
    with pytest.raises(DatasetError, match="7"):
        ClassMaps.of(classes(0, 1, 2), classes(0, 7, 2), LABELS, case="a")


def test_a_merged_object_matches_none_although_each_voxel_has_its_class():
    truth = row(1, 1, 1, 2, 2, 2, 1, 9), row(11, 11, 11, 21, 21, 21, 12, 0)
    predicted = row(1, 1, 1, 2, 2, 2, 1, 1), row(11, 11, 11, 21, 22, 23, 11, 13)
    errors = ClassMaps.of(predicted, truth, LABELS, case="a").errors()
    where = {kind: np.flatnonzero(voxels).tolist() for kind, voxels in errors.items()}
    assert where == {UNMATCHED: [3, 4, 5, 6], MISSED: [], ADDED: [], CONFUSED: []}
    valid = np.array([True, True, True, False, False, False, True, True]).reshape(1, 1, -1)
    errors = ClassMaps.of(predicted, truth, LABELS, case="a", valid=valid).errors()
    assert np.flatnonzero(errors[UNMATCHED]).tolist() == [6]


def test_objects_that_touch_differ_in_pictures_and_one_object_does_not():
    base = np.full((1, 6, 3), 0.5, dtype=np.float32)
    maps = ClassMaps.of((row(1, 1, 1, 1, 1, 1), row(5, 5, 5, 8, 8, 8)), None, LABELS, case="a")
    (_, pixels), *_ = maps.panels(0, base, View((1, 1), 1))
    left, right = pixels[0, 1], pixels[0, 4]
    assert (left != right).any() and (pixels[0, 0] == left).all() and (pixels[0, 5] == right).all()
    assert (pixels[0, 2] == pixels[0, 3]).all() and (pixels[0, 2] != left).any(), "the line between both"


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_thin_strokes_stay_in_reduced_pictures(step):
    codes = np.zeros((11, 13), dtype=np.intp)
    codes[np.arange(11), np.arange(11)] = 1
    shown = View((1, 1), step).of_first(codes, np.array([False, True]))
    assert shown.shape == (-(-11 // step), -(-13 // step)) and (np.diag(shown) == 1).all()
    assert View((1, 1), step).of(codes).shape == shown.shape
