"""Charts: points lie where their numbers say, and what has no value is not drawn."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from html_reader import Reader

from autoseg.report.charts import Curve, Pair, boxes, curves, scatter

POINT = re.compile(r'<circle cx="([-\d.]+)" cy="([-\d.]+)"')


def places(svg: str) -> np.ndarray:
    return np.array([[float(x), float(y)] for x, y in POINT.findall(svg)])


def test_points_of_a_curve_lie_in_proportion():
    points = places(curves("loss", [Curve("a", [(0, 0.0), (10, 1.0), (30, 4.0)], 0)], x_label="step"))
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x2 - x0) / (x1 - x0) == pytest.approx(3, rel=1e-2) and (y2 - y0) / (y1 - y0) == pytest.approx(4, rel=1e-2)
    assert y2 < y0, "larger values are higher"


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_missing_value_interrupts_a_curve(missing):
    svg = curves("loss", [Curve("a", [(0, 1.0), (1, 2.0), (2, missing), (3, 1.0), (4, 2.0)], 0)], x_label="step")
    path = re.search(r'<path d="([^"]*)" fill="none" stroke="#0072b2"', svg)[1]
    assert [letter for letter in path if letter.isalpha()] == ["M", "L", "M", "L"]


def test_without_values_there_is_no_chart():
    assert curves("loss", [Curve("a", [(0, None)], 0)], x_label="step") == boxes("Dice", {"a": []}) == ""
    assert scatter("quality", [], x_label="x", y_label="y") == ""


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e-7])
def test_equal_values_have_a_chart(value):
    svg = curves("rate", [Curve("a", [(5, value)], 0)], x_label="step") + boxes("R2", {"a": [("c", value)] * 2})
    assert np.isfinite(places(svg)).all() and "nan" not in svg


def test_a_box_shows_median_quartiles_and_every_value():
    values = [0.1, 0.2, 0.4, 0.6, 0.9]
    svg = boxes("Dice", {"liver": [(f"case {value}", value) for value in values]}, limits=(0.0, 1.0))
    assert "median 0.4, quartiles 0.2 and 0.6" in svg
    assert [f"case {value}, liver" in svg for value in values] == [True] * 5
    x = places(svg)[:, 0]
    np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), (np.array(values) - 0.1) / 0.8, atol=1e-3)


def test_ticks_differ_however_close_the_values():
    reader = Reader(boxes("R2", {"a": [("x", 0.99986), ("y", 0.99989)]}))
    ticks = [text for text in reader.text_of("text") if text[0].isdigit()]
    assert len(ticks) > 2 and len({*ticks}) == len(ticks)


def test_pairs_that_are_equal_lie_on_the_diagonal():
    pairs = [Pair("c", "a", 0.2, 0.2, (0.1, 0.4)), Pair("d", "a", 0.7, 0.7)]
    svg = scatter("quality", pairs, x_label="predicted", y_label="true")
    (x0, y0), (x1, y1) = places(svg)[:2]
    assert x1 - x0 == pytest.approx(y0 - y1, abs=0.15) and svg.count('stroke-opacity="0.35"') == 1
