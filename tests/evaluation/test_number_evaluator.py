"""Predicted numbers are scored on the voxels whose number is known, in cases and over all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from regression import DEPTH, NO_NUMBER

from autoseg.core.errors import EvaluationError
from autoseg.core.geometry import Geometry
from autoseg.evaluation import NumberSummary, evaluate_folder, evaluate_numbers, score_folder
from autoseg.evaluation.number_metrics import CONSTANT, CONSTANT_PREDICTION, NO_VOXEL, ErrorSums
from autoseg.io.images import write_labels, write_values

GEOMETRY = Geometry(spacing=(2.0, 1.0, 1.0))
DATASET = {
    "channel_names": {"0": "em"}, "file_ending": ".nii.gz", "task": "regression", "targets": ["depth"],
    "unlabelled": NO_NUMBER,
}  # fmt: skip


def write(folder: Path, case: str, numbers: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{case}.nii.gz"
    write_values(path, numbers[None].astype(np.float32), GEOMETRY)
    return path


def example(seed: int, offset: float = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = (rng.normal(size=(3, 4, 5)) + offset).astype(np.float32)
    prediction = (reference + 0.3 * rng.normal(size=reference.shape) + 0.1).astype(np.float32)
    reference[rng.random(reference.shape) < 0.3] = np.nan
    return reference, prediction


def expected(reference: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    known = np.isfinite(reference)
    true, predicted = reference[known].astype(np.float64), prediction[known].astype(np.float64)
    error = predicted - true
    return {
        "RMSE": np.sqrt((error**2).mean()), "MAE": np.abs(error).mean(), "Pearson": np.corrcoef(true, predicted)[0, 1],
        "R2": 1 - (error**2).sum() / ((true - true.mean()) ** 2).sum(), "n_known": known.sum(),
    }  # fmt: skip


def test_metrics_are_those_of_their_definitions_in_cases_and_over_all(tmp_path):
    cases = {"a": example(0), "b": example(1, offset=20)}
    for name, (reference, prediction) in cases.items():
        write(tmp_path / "true", name, reference), write(tmp_path / "guess", name, prediction)
    summary = score_folder(tmp_path / "true", tmp_path / "guess", DATASET)
    assert isinstance(summary, NumberSummary) and [case.case for case in summary.metric_per_case] == ["a", "b"]
    for case in summary.metric_per_case:
        assert case.metrics["depth"].model_dump() == pytest.approx(expected(*cases[case.case]), rel=1e-6)
    joined = tuple(np.concatenate([cases[name][part] for name in cases]) for part in (0, 1))
    assert summary.all_voxels["depth"].model_dump() == pytest.approx(expected(*joined), rel=1e-6)
    means = [expected(*case)["R2"] for case in cases.values()]
    assert summary.mean["depth"]["R2"] == pytest.approx(np.mean(means)) == summary.foreground_mean["R2"]


def test_nothing_depends_on_what_is_predicted_where_nothing_is_known(tmp_path):
    reference, prediction = example(2)
    changed = np.where(np.isnan(reference), np.nan, prediction)
    marked = np.where(np.isnan(reference), NO_NUMBER, reference)
    results = []
    for index, (true, guess) in enumerate([(reference, prediction), (reference, changed), (marked, prediction)]):
        pair = write(tmp_path / f"true{index}", "a", true), write(tmp_path / f"guess{index}", "a", guess)
        results.append(evaluate_numbers({"a": pair}, DEPTH).all_voxels)
    assert results[0] == results[1] == results[2]


def test_voxels_outside_the_valid_mask_do_not_count(tmp_path):
    reference, prediction = example(3)
    mask = np.zeros(reference.shape, dtype=np.uint8)
    mask[1] = 1
    write_labels(tmp_path / "mask.nii.gz", mask, GEOMETRY)
    pairs = {"a": (write(tmp_path / "true", "a", reference), write(tmp_path / "guess", "a", prediction))}
    summary = evaluate_numbers(pairs, replace(DEPTH, has_masks=True), masks={"a": tmp_path / "mask.nii.gz"})
    inside = expected(reference[1], prediction[1])
    assert summary.all_voxels["depth"].model_dump() == pytest.approx(inside, rel=1e-6)


def test_a_case_without_a_known_voxel_has_null_with_the_reason_and_leaves_the_mean(tmp_path):
    reference, prediction = example(4)
    write(tmp_path / "true", "a", reference), write(tmp_path / "guess", "a", prediction)
    write(tmp_path / "true", "b", np.full_like(reference, np.nan)), write(tmp_path / "guess", "b", prediction)
    summary = score_folder(tmp_path / "true", tmp_path / "guess", DATASET)
    content = json.loads(json.dumps(summary.as_json(), allow_nan=False))
    unknown = content["metric_per_case"][1]
    assert unknown["not_scored"] == {"depth": NO_VOXEL} and content["n_cases_per_head"] == {"depth": 1}
    assert unknown["metrics"]["depth"] == {"RMSE": None, "MAE": None, "Pearson": None, "R2": None, "n_known": 0}
    assert content["mean"]["depth"]["RMSE"] == pytest.approx(expected(reference, prediction)["RMSE"])


@pytest.mark.parametrize(
    ("true", "guess", "reason", "pearson", "r2"),
    [
        ([0.1] * 7, [1, 2, 3, 4, 5, 6, 7], CONSTANT, None, None),
        ([1, 2, 3, 4, 5, 6, 7], [4.0] * 7, CONSTANT_PREDICTION, None, 0),
        ([1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1], None, -1, -3),
    ],
)
def test_what_does_not_vary_has_no_correlation(true, guess, reason, pearson, r2):
    sums = ErrorSums.of(np.array(true, dtype=np.float32), np.array(guess, dtype=np.float32))
    assert sums.reason == reason
    assert sums.metrics.Pearson == (None if pearson is None else pytest.approx(pearson))
    assert (None if r2 is None else pytest.approx(r2)) == sums.metrics.R2


def test_a_prediction_without_a_number_where_one_is_known_is_a_fault(tmp_path):
    reference, prediction = example(5)
    prediction[:, 0] = np.nan
    write(tmp_path / "true", "a", reference), write(tmp_path / "guess", "a", prediction)
    with pytest.raises(EvaluationError, match=r"case 'a'.*found no number in \d+ voxels that are known"):
        score_folder(tmp_path / "true", tmp_path / "guess", DATASET)


def test_missing_and_extra_predictions_are_named(tmp_path):
    reference, prediction = example(6)
    for name in "ab":
        write(tmp_path / "true", name, reference)
    for name in "bc":
        write(tmp_path / "guess", name, prediction)
    summary = score_folder(tmp_path / "true", tmp_path / "guess", DATASET)
    assert (summary.missing, summary.extra, summary.n_cases) == (("a",), ("c",), 1)
    with pytest.raises(EvaluationError, match="missing predictions"):
        score_folder(tmp_path / "true", tmp_path / "guess", DATASET, strict=True)


def test_what_compares_dice_refuses_numbers_by_name(tmp_path):
    reference, prediction = example(7)
    write(tmp_path / "true", "a", reference), write(tmp_path / "guess", "a", prediction)
    with pytest.raises(EvaluationError, match=r"--against.*regression"):
        score_folder(tmp_path / "true", tmp_path / "guess", DATASET, against=tmp_path / "guess")
    with pytest.raises(EvaluationError, match=r"regression.*evaluate_numbers_folder"):
        evaluate_folder(tmp_path / "true", tmp_path / "guess", DATASET)


def test_tables_have_a_row_per_case_and_target(tmp_path):
    reference, prediction = example(8)
    write(tmp_path / "true", "a", reference), write(tmp_path / "guess", "a", prediction)
    score_folder(tmp_path / "true", tmp_path / "guess", DATASET).to_csv(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[0] == "case,target,RMSE,MAE,Pearson,R2,n_known"
    assert len((tmp_path / "scores_means.csv").read_text().splitlines()) == 2
