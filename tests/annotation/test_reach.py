"""A reach is estimated from extents, background and gaps, once per data set, and only where there is evidence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from autoseg.core.reach import ReachEstimate

from autoseg.annotation.reach import (
    MARGIN,
    ReachEvidence,
    estimate_reach,
    estimated_classes,
    is_estimated,
    measure_reach,
    resolve_reach,
)
from autoseg.annotation.simulation import Style, annotate
from autoseg.core.protocol import AnnotationProtocol

SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], bool)
SLICE = AnnotationProtocol(classes_complete_in="slice", reach_mm="auto")
AUTO = AnnotationProtocol(reach_mm="auto")
ESTIMATE = ReachEstimate(reach_mm=7.5, extent_mm=6, background_mm=None, gap_mm=0, n_cases=2)


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


def drawing() -> np.ndarray:
    codes = np.full((3, 10, 30), 3, np.uint8)
    codes[0, 2, 2:12] = 1
    codes[2, 5, 2:8] = 1
    codes[0, 2, 20] = 0
    return codes


def test_evidence_is_measured_slice_by_slice_where_slices_count_alone():
    found = measure_reach(drawing(), SETS, (10.0, 1.0, 2.0), SLICE)
    assert found.extent_mm == {1: 9.0}  # nine steps of 2 mm, half of it
    assert found.background_mm == {1: 18.0}
    assert found.gap_mm == 20.0
    whole = measure_reach(drawing(), SETS, (10.0, 1.0, 2.0), AUTO)
    assert whole.extent_mm[1] == pytest.approx(math.sqrt(20**2 + 3**2 + 18**2) / 2)
    assert measure_reach(np.full((2, 3, 3), 3, np.uint8), SETS, (1.0, 1.0, 1.0), AUTO) == ReachEvidence()


def test_neighbouring_slices_leave_no_gap():
    codes = drawing()
    codes[1, 0, 0] = 0
    assert measure_reach(codes, SETS, (10.0, 1.0, 2.0), SLICE).gap_mm == 0


def test_background_of_dense_slices_says_nothing_about_distances():
    codes = np.zeros((1, 20, 20), np.uint8)
    codes[0, 8:12, 8:12] = 1
    found = measure_reach(codes, SETS, (999.0, 1.0, 1.0), AUTO)
    assert found.background_mm == {}
    assert found.extent_mm[1] == pytest.approx(math.hypot(3, 3) / 2)


def test_the_estimate_takes_the_largest_evidence_with_a_margin():
    cases = [ReachEvidence({1: 10.0, 2: 0.0}, {1: 4.0, 2: 8.0}), ReachEvidence({1: 10.0}, {1: 6.0})]
    estimates = estimate_reach(cases)
    assert estimates[1] == ReachEstimate(reach_mm=MARGIN * 10, extent_mm=10, background_mm=5, gap_mm=0, n_cases=2)
    assert estimates[2].reach_mm == MARGIN * 8  # single points: background is farther than the object reaches


def test_the_gap_between_slices_is_always_bridged():
    assert estimate_reach([ReachEvidence({1: 4.0}, {}, gap_mm=30.0)])[1].reach_mm == 30


def test_single_points_without_background_give_no_estimate():
    assert estimate_reach([ReachEvidence({1: 0.0})]) == {}
    assert estimate_reach([]) == {}


def test_a_slip_in_one_case_of_many_does_not_widen_the_reach():
    cases = [ReachEvidence({1: 10.0})] * 60 + [ReachEvidence({1: 500.0})]
    assert estimate_reach(cases)[1].reach_mm == MARGIN * 10


@pytest.mark.parametrize("protocol", [SLICE, AUTO], ids=["complete slices", "reach alone"])
def test_the_estimate_reaches_all_of_simulated_scribbles(protocol):
    _, y, x = np.indices((6, 48, 48))
    cases = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        middle, radius = rng.uniform(18, 30, 2), rng.uniform(5, 9)
        dense = (np.hypot(y - middle[0], x - middle[1]) < radius).astype(np.uint8)
        drawn = annotate(dense, (5.0, 1.0, 1.0), Style(scribbles=True, thickness=1), seed=seed, case=str(seed))
        cases.append((dense, np.where(drawn, dense, 3).astype(np.uint8)))
    reach = estimate_reach([measure_reach(codes, SETS, (5.0, 1.0, 1.0), protocol) for _, codes in cases])[1].reach_mm
    for dense, codes in cases:
        for number in range(6):
            points = np.argwhere(codes[number] == 1)
            inside = np.argwhere(dense[number] == 1)
            nearest = np.linalg.norm(inside[:, None] - points, axis=2).min(axis=1)
            assert nearest.max() <= reach
    assert reach < 48


def test_strokes_of_background_count_whatever_their_direction():
    codes = np.full((1, 64, 64), 3, np.uint8)
    codes[0, 32, 28:36] = 1
    codes[0, 12] = codes[0, 52] = 0
    across = measure_reach(codes, SETS, (5.0, 1.0, 1.0), SLICE)
    along = measure_reach(codes.transpose(0, 2, 1), SETS, (5.0, 1.0, 1.0), SLICE)
    assert across == along
    assert across.background_mm[1] > 20
