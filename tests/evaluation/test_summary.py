"""What is written is nnU-Net's summary as valid JSON; nulls stay out of every mean."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from autoseg import Dataset
from autoseg.evaluation.metrics import HeadCounts
from autoseg.evaluation.summary import CaseMetrics, Summary, case_metrics, summarise

LABELS = Dataset.from_json(
    {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".png"},
    name="test", folder=None,
).labels  # fmt: skip
NAMES = {"1": "a", "2": "b"}
NOTHING = HeadCounts(0, 0, 0, 10)


def scored(case: str, a: HeadCounts, b: HeadCounts, n_voxels: int = 10) -> CaseMetrics:
    return case_metrics(
        case, f"ref/{case}.png", f"pred/{case}.png", LABELS, [NOTHING, a, b], n_voxels=n_voxels, voxel_volume=2.5
    )


@pytest.fixture
def summary() -> Summary:
    cases = [scored("two", HeadCounts(4, 0, 0, 6), NOTHING), scored("one", HeadCounts(1, 1, 1, 7), NOTHING)]
    return summarise(cases, NAMES, missing=["three"], extra=["four"])


def test_means_leave_out_what_is_null(summary: Summary) -> None:
    assert summary.mean["1"]["Dice"] == pytest.approx((1.0 + 0.5) / 2)
    assert summary.mean["1"]["IoU"] == pytest.approx((1.0 + 1 / 3) / 2)
    assert summary.mean["2"]["Dice"] is None
    assert summary.foreground_mean["Dice"] == summary.mean["1"]["Dice"]
    assert summary.n_cases_per_head == {"1": 2, "2": 0}
    assert summary.mean["2"]["TN"] == 10
    assert summary.foreground_mean["TP"] == pytest.approx((2.5 + 0) / 2)


def test_a_false_alarm_counts_as_zero() -> None:
    summary = summarise([scored("x", HeadCounts(4, 0, 0, 6), HeadCounts(0, 2, 0, 8))], NAMES)
    assert summary.mean["2"]["Dice"] == 0
    assert summary.foreground_mean["Dice"] == 0.5


def test_volumes_are_voxels_times_their_size() -> None:
    metrics = scored("x", HeadCounts(4, 2, 1, 3), NOTHING).metrics["1"]
    assert (metrics.n_ref, metrics.ref_volume_mm3) == (5, 12.5)
    assert (metrics.n_pred, metrics.pred_volume_mm3) == (6, 15.0)
    assert metrics.n_decided == 10


def test_background_is_no_row() -> None:
    assert list(scored("x", NOTHING, NOTHING).metrics) == ["1", "2"]


def test_scored_on_says_whether_everything_was_decided() -> None:
    dense = scored("x", NOTHING, NOTHING)
    sparse = scored("y", HeadCounts(1, 0, 0, 1), HeadCounts(0, 0, 0, 3))
    assert (summarise([dense], NAMES).scored_on, summarise([dense], NAMES).decided_fraction) == ("dense", 1)
    both = summarise([dense, sparse], NAMES)
    assert both.scored_on == "annotated voxels"
    assert sparse.decided_fraction == pytest.approx(5 / 20)
    assert both.decided_fraction == pytest.approx((1 + 0.25) / 2)


def test_the_file_has_nnunets_keys_and_is_valid_json(summary: Summary, tmp_path: Path) -> None:
    summary.write(tmp_path / "new" / "summary.json")
    text = (tmp_path / "new" / "summary.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(content)[:3] == ["foreground_mean", "mean", "metric_per_case"]
    nnunet = {"Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"}
    assert nnunet <= set(content["foreground_mean"]) == set(content["mean"]["1"])
    case = content["metric_per_case"][0]
    assert (case["reference_file"], case["prediction_file"]) == ("ref/one.png", "pred/one.png")
    assert nnunet <= set(case["metrics"]["2"])
    assert case["metrics"]["2"]["Dice"] is None
    assert (content["missing"], content["extra"]) == (["three"], ["four"])
    assert Summary.model_validate_json(text) == summary


def test_the_csv_has_one_row_per_case_and_head(summary: Summary, tmp_path: Path) -> None:
    summary.to_csv(tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["key"], row["name"]) for row in rows] == [
        ("one", "1", "a"), ("one", "2", "b"), ("two", "1", "a"), ("two", "2", "b"),
    ]  # fmt: skip
    assert float(rows[0]["Dice"]) == 0.5
    assert rows[1]["Dice"] == ""
    assert not list(tmp_path.glob(".*"))


def test_no_case_gives_nulls_and_zeros() -> None:
    summary = summarise([], NAMES)
    assert (summary.n_cases, summary.decided_fraction) == (0, 0)
    assert summary.foreground_mean["Dice"] is None
