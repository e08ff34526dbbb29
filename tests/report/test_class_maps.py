"""Truth and prediction of a case: errors lie only where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.errors import DatasetError
from autoseg.dataset.labels import Head, Labels
from autoseg.report.class_maps import ADDED, CONFUSED, MISSED, ClassMaps, View

NAMES = ("background", "liver", "tumour")
LABELS = Labels(
    (0, 1, 2), NAMES, tuple(Head(name, (k,), (k,), is_background=k == 0) for k, name in enumerate(NAMES)),
    ignore=9, set_values={5: frozenset({1, 2})},
)  # fmt: skip


def row(*values):
    return np.array(values, dtype=np.uint16).reshape(1, 1, -1)


def test_each_error_has_its_kind():
    truth, predicted = row(0, 1, 1, 0, 2, 5, 5, 9, 9), row(0, 1, 0, 2, 1, 1, 0, 0, 2)
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
    first, second = (ClassMaps.of(item, truth, LABELS, case="a", valid=valid).errors() for item in (predicted, other))
    assert any(where.any() for where in first.values())
    for kind, where in first.items():
        np.testing.assert_array_equal(where, second[kind])
        assert not where[unknown].any()


def test_without_a_truth_there_are_no_errors():
    maps = ClassMaps.of(row(0, 2, 0), None, LABELS, case="a")
    assert not maps.errors() and maps.foreground().tolist() == [[[False, True, False]]]
    base = np.full((1, 3, 3), 0.5, dtype=np.float32)
    assert [name for name, _ in maps.panels(0, base, View((1, 1), 1))] == ["prediction"]


def test_background_of_a_prediction_shows_the_image():
    maps = ClassMaps.of(row(0, 2, 0), row(9, 9, 0), LABELS, case="a")
    base = np.full((1, 3, 3), 0.5, dtype=np.float32)
    panels = dict(maps.panels(0, base, View((1, 1), 1)))
    np.testing.assert_array_equal(panels["prediction"][0, [0, 2]], base[0, [0, 2]])
    assert (panels["truth"][0, 2] != base[0, 2]).any(), "annotated background has a colour in sparse annotation"


def test_values_that_are_no_classes_are_numbers_of_objects():
    maps = ClassMaps.of(row(0, 700, 3), row(0, 1, 2), LABELS, case="a")
    assert not maps.meanings and not maps.errors()
    assert maps.foreground().tolist() == [[[False, True, True]]]


def test_a_truth_with_undeclared_values_is_refused():
    with pytest.raises(DatasetError, match="7"):
        ClassMaps.of(row(0, 1, 2), row(0, 7, 2), LABELS, case="a")


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_thin_strokes_stay_in_reduced_pictures(step):
    codes = np.zeros((11, 13), dtype=np.intp)
    codes[np.arange(11), np.arange(11)] = 1
    shown = View((1, 1), step).of_first(codes, np.array([False, True]))
    assert shown.shape == (-(-11 // step), -(-13 // step)) and (np.diag(shown) == 1).all()
    assert View((1, 1), step).of(codes).shape == shown.shape
