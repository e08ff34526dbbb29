"""Two systems on the same cases: the difference of what the tables show, and no win without a clear interval."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.evaluation.cases import CaseMetrics, case_metrics
from autoseg.evaluation.comparison import Difference, compare
from autoseg.evaluation.metrics import HeadCounts
from autoseg.evaluation.summary import summarise

LABELS = Dataset.from_json(
    {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".png"},
    name="test", folder=None,
).labels  # fmt: skip
NAMES = {"1": "a", "2": "b"}


def cases_with(hits: list[int], false_alarms: int = 0, n_voxels: int = 100) -> list[CaseMetrics]:
    """Cases of 10 voxels of a, of which so many are found; b is in no reference."""
    nothing, b = HeadCounts(0, 0, 0, 100), HeadCounts(0, false_alarms, 0, 100 - false_alarms)
    return [
        case_metrics(
            f"case_{index}", "r", "p", LABELS,
            [nothing, HeadCounts(hit, 0, 10 - hit, 90), b],
            n_voxels=n_voxels, voxel_volume=1.0,
        )
        for index, hit in enumerate(hits)
    ]  # fmt: skip


def test_the_difference_is_that_of_the_means() -> None:
    ours, theirs = cases_with([9, 7, 8, 9, 8, 7]), cases_with([5, 4, 6, 5, 5, 5], false_alarms=3)
    actual = compare(ours, theirs, list(NAMES), "other")
    group = actual.groups["dense"]
    means = [summarise(cases, NAMES).mean["1"]["Dice"] or 0 for cases in (ours, theirs)]
    assert group.mean["1"].mean == pytest.approx(means[0] - means[1])
    assert group.foreground_mean == group.mean["1"]
    assert group.mean["1"].n_cases == 6
    assert group.mean["2"] == Difference(mean=None, interval=None, n_cases=0)
    assert (actual.against, actual.n_cases, actual.left_out) == ("other", 6, ())


def test_only_an_interval_without_0_is_clear() -> None:
    better = (
        compare(cases_with([9, 7, 8, 9, 8, 7]), cases_with([5, 4, 6, 5, 5, 5]), list(NAMES), "x")
        .groups["dense"]
        .mean["1"]
    )
    mixed = (
        compare(cases_with([9, 3, 8, 2, 5, 6]), cases_with([5, 6, 4, 7, 5, 6]), list(NAMES), "x")
        .groups["dense"]
        .mean["1"]
    )
    assert (better.is_clear, mixed.is_clear) == (True, False)
    low, high = mixed.interval or (0, 0)
    assert low < 0 < high
    assert not Difference(mean=0.1, interval=None, n_cases=1).is_clear
    assert not Difference(mean=0.0, interval=(0.0, 0.0), n_cases=9).is_clear
    assert not Difference(mean=-0.1, interval=(-0.2, -0.1), n_cases=5).is_clear
    assert Difference(mean=-0.1, interval=(-0.2, -0.1), n_cases=6).is_clear


def test_only_common_cases_are_compared_and_the_others_named() -> None:
    ours, theirs = cases_with([9, 7, 8]), cases_with([1, 7, 8, 2])[1:]
    actual = compare(ours, theirs, list(NAMES), "x")
    assert (actual.n_cases, actual.left_out) == (2, ("case_0", "case_3"))
    assert actual.groups["dense"].mean["1"].mean == 0
    assert compare(ours[:1], theirs, list(NAMES), "x").groups == {}


def test_dense_and_sparse_cases_are_compared_apart() -> None:
    def both(dense: list[int], sparse: list[int]) -> list[CaseMetrics]:
        renamed = [case.model_copy(update={"case": f"s{case.case}"}) for case in cases_with(sparse, n_voxels=200)]
        return [*cases_with(dense), *renamed]

    groups = compare(both([9, 8], [3, 2]), both([8, 7], [4, 3]), list(NAMES), "x").groups
    assert np.sign([groups[kind].mean["1"].mean for kind in ("dense", "annotated voxels")]).tolist() == [1, -1]
