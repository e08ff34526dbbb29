"""A reach is estimated once per data set, and only from cases in which it is known how large a class is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.annotation.reach import (
    MARGIN,
    ClassExtents,
    estimate_reach,
    estimated_classes,
    is_estimated,
    measure_reach,
    resolve_reach,
)
from autoseg.dataset.estimates import ReachEstimate
from autoseg.dataset.labels import CaseStatement
from autoseg.dataset.protocol import AnnotationProtocol

SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], bool)
ISO = (1.0, 1.0, 1.0)
ESTIMATE = ReachEstimate(reach_mm=7.5, diameter_mm=6, n_cases=3)


@pytest.mark.parametrize(
    ("promised", "expected"),
    [
        (None, {}),
        (4, {1: 4.0, 2: 4.0}),
        ("auto", {2: 7.5}),
        ({1: 3.0}, {1: 3.0}),
        ({1: "auto", 2: "auto"}, {2: 7.5}),
        ({1: 3.0, 2: "auto"}, {1: 3.0, 2: 7.5}),
    ],
)
def test_the_reach_of_each_class(promised, expected):
    protocol = AnnotationProtocol(reach_mm=promised)
    assert resolve_reach(protocol, 3, {2: ESTIMATE}) == expected
    assert is_estimated(protocol) == bool(estimated_classes(protocol, 3))
    if not is_estimated(protocol):
        assert resolve_reach(protocol, 3) == expected


def ball(radius: float, edge: int = 48) -> np.ndarray:
    grid = np.indices((edge,) * 3) - edge / 2
    return (np.sqrt((grid**2).sum(0)) < radius).astype(np.uint8)


def estimated(*cases: np.ndarray) -> dict[int, float]:
    evidence = [measure_reach(codes, SETS, ISO) for codes in cases]
    return {index: estimate.reach_mm for index, estimate in estimate_reach(evidence).items()}


def test_lines_along_a_border_give_no_extent():
    truth = ball(18)
    codes = np.full_like(truth, 3)
    inside, outside = np.argwhere(ball(17) & ~ball(16)), np.argwhere(ball(21) & ~ball(20))
    codes[tuple(inside[:12].T)], codes[tuple(outside[:12].T)] = 1, 0
    assert estimated(*[codes] * 5) == {}


def test_a_patch_gives_no_extent():
    codes = np.full((48, 48, 48), 3, np.uint8)
    codes[20:28, 20:28, 20:28] = ball(18)[20:28, 20:28, 20:28]
    assert estimated(*[codes] * 5) == {}


def test_complete_slices_give_no_extent():
    codes = np.full((48, 48, 48), 3, np.uint8)
    codes[20:28] = ball(18)[20:28]
    assert estimated(*[codes] * 5) == {}


def test_dense_cases_give_the_reach_of_all_cases():
    radii = (9, 14, 18)
    reach = estimated(*(ball(radius) for radius in radii))[1]
    assert MARGIN * 2 * 17 <= reach <= MARGIN * 2 * 18 * math.sqrt(3)
    inside = np.argwhere(ball(18))
    assert np.linalg.norm(inside - inside[0], axis=1).max() <= reach  # a single voxel at its end
    assert estimated(ball(9), ball(14)) == {}  # too few


def test_annotation_of_larger_objects_counts_too():
    large = np.full((48, 48, 48), 3, np.uint8)
    large[4, 4, 4], large[44, 44, 44] = 1, 1
    assert estimated(*[ball(5)] * 3, large)[1] == pytest.approx(MARGIN * 40 * math.sqrt(3), abs=0.1)


def test_classes_that_are_not_annotated_in_a_case_have_no_extent():
    codes = ball(9)
    looked = CaseStatement(annotated=frozenset({2}))
    assert measure_reach(codes, SETS, ISO, looked) == ClassExtents()
    codes[codes == 0] = 3
    assert measure_reach(codes, SETS, ISO) == ClassExtents({}, {1: math.sqrt(3) * 16})
    assert measure_reach(np.zeros_like(codes), SETS, ISO) == ClassExtents()
    assert estimate_reach([]) == {}


def test_spacing_counts():
    actual = measure_reach(np.pad(np.ones((1, 3, 4), np.uint8), 1), SETS, (5.0, 1.0, 2.0))
    assert actual.known == {1: pytest.approx(math.hypot(2, 6))}
