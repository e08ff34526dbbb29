"""A summary is that of nnU-Net as valid JSON; nulls stay out of every mean."""

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
    cases = [
        scored("x", HeadCounts(4, 0, 0, 6), HeadCounts(0, 2, 0, 8)),
        scored("y", HeadCounts(4, 0, 0, 6), HeadCounts(2, 0, 0, 8)),
    ]
    summary = summarise(cases, NAMES)
    assert summary.metric_per_case[0].metrics["2"].Dice == 0
    assert summary.mean["2"]["Dice"] == 0.5
    assert summary.foreground_mean["Dice"] == 0.75


@pytest.mark.parametrize("b", [NOTHING, HeadCounts(0, 2, 0, 8)], ids=["not predicted", "predicted"])
def test_a_class_in_no_reference_is_not_scored_and_says_why(b: HeadCounts) -> None:
    summary = summarise([scored("x", HeadCounts(4, 0, 0, 6), b), scored("y", HeadCounts(1, 1, 1, 7), b)], NAMES)
    assert summary.mean["2"]["Dice"] is None
    assert summary.foreground_mean["Dice"] == summary.mean["1"]["Dice"] == 0.75
    assert summary.mean["2"]["FP"] == b.false_positive
    reason = summary.not_scored["2"]
    assert reason.startswith("b: no voxel of it in the references of the 2 cases")
    assert f"{2 * b.false_positive} of the 20 voxels" in reason


def test_a_class_of_which_nothing_is_known_is_not_scored() -> None:
    summary = summarise([scored("x", HeadCounts(4, 0, 0, 4), HeadCounts(0, 0, 0, 0))], NAMES)
    assert summary.not_scored == {"2": "b: the references of the 1 cases decide no voxel for it."}
    assert summary.scored_on == "annotated voxels"


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
    assert summarise([sparse], NAMES).scored_on == "annotated voxels"
    both = summarise([dense, sparse], NAMES)
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
    assert {row["Dice (annotated voxels)"] for row in rows} == {""}
    assert not list(tmp_path.glob(".*"))


def test_no_case_gives_nulls_and_zeros() -> None:
    summary = summarise([], NAMES)
    assert (summary.n_cases, summary.decided_fraction) == (0, 0)
    assert summary.foreground_mean["Dice"] is None


def mixed() -> Summary:
    """Two dense cases and two of which 4 voxels of 10 are annotated."""
    return summarise(
        [
            scored("dense_1", HeadCounts(4, 0, 0, 6), HeadCounts(1, 1, 1, 7)),
            scored("dense_2", HeadCounts(2, 1, 1, 6), HeadCounts(1, 0, 0, 9)),
            scored("sparse_1", HeadCounts(1, 3, 0, 0), HeadCounts(0, 0, 0, 4)),
            scored("sparse_2", HeadCounts(0, 3, 1, 0), HeadCounts(0, 0, 0, 4)),
        ],
        NAMES,
    )


def test_dense_and_sparse_scores_are_never_averaged() -> None:
    summary = mixed()
    assert summary.scored_on == "mixed"
    assert set(summary.foreground_mean.values()) == {None}
    assert {value for mean in summary.mean.values() for value in mean.values()} == {None}
    dense, sparse = summary.groups["dense"], summary.groups["annotated voxels"]
    assert dense.mean["1"]["Dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert dense.mean["2"]["Dice"] == pytest.approx((0.5 + 1) / 2)
    assert dense.foreground_mean["Dice"] == pytest.approx((5 / 6 + 0.75) / 2)
    assert sparse.mean["1"]["Dice"] == pytest.approx((0.4 + 0) / 2)
    assert sparse.mean["2"]["Dice"] is None
    assert sparse.foreground_mean["Dice"] == pytest.approx(0.2)
    assert (dense.n_cases, sparse.n_cases) == (2, 2)
    assert (dense.n_decided_per_head, sparse.n_decided_per_head) == ({"1": 20, "2": 20}, {"1": 8, "2": 0})
    assert (summary.n_cases_per_head, summary.n_decided_per_head) == ({"1": 4, "2": 2}, {"1": 28, "2": 20})
    assert summary.not_scored == {}


def test_one_kind_alone_is_the_summary(summary: Summary) -> None:
    (group,) = summary.groups.values()
    assert (group.foreground_mean, group.mean) == (summary.foreground_mean, summary.mean)
    assert group.mean_interval == summary.mean_interval


def test_every_mean_has_an_interval_if_two_cases_have_a_score(summary: Summary) -> None:
    assert summary.mean_interval["1"]["Dice"] == (0.5, 1)
    assert summary.mean_interval["1"]["IoU"] == (pytest.approx(1 / 3), 1)
    assert summary.mean_interval["2"] == {"Dice": None, "IoU": None}
    assert summary.foreground_mean_interval["Dice"] == (0.5, 1)
    one = summarise([scored("x", HeadCounts(4, 0, 0, 6), HeadCounts(1, 1, 0, 8))], NAMES)
    assert one.foreground_mean_interval == {"Dice": None, "IoU": None}


def test_the_csv_keeps_annotated_voxels_in_columns_of_their_own(tmp_path: Path) -> None:
    mixed().to_csv(tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["case"], row["key"]): row for row in csv.DictReader(file)}
    dense, sparse = rows["dense_1", "1"], rows["sparse_1", "1"]
    assert (dense["scored_on"], dense["Dice"], dense["Dice (annotated voxels)"]) == ("dense", "1.0", "")
    assert (sparse["scored_on"], sparse["Dice"], sparse["Dice (annotated voxels)"]) == ("annotated voxels", "", "0.4")


def test_the_means_have_a_csv_with_their_intervals(tmp_path: Path) -> None:
    mixed().to_csv(tmp_path / "s.csv")
    with (tmp_path / "s_means.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["scored_on"], row["name"]) for row in rows] == [
        (kind, name) for kind in ("dense", "annotated voxels") for name in ("a", "b", "foreground mean")
    ]
    low, high = mixed().groups["dense"].mean_interval["1"]["Dice"] or (None, None)
    assert (float(rows[0]["Dice low"]), float(rows[0]["Dice high"])) == (low, high)
    assert (rows[0]["n_cases"], rows[0]["n_decided"]) == ("2", "20")
    assert (rows[3]["Dice"], float(rows[3]["Dice (annotated voxels)"])) == ("", pytest.approx(0.2))


def test_a_summary_of_nothing_is_written(tmp_path: Path) -> None:
    summarise([], NAMES).to_csv(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text(encoding="utf-8").strip() == ""
