"""Predictions come with quality.csv, worst first, whatever was predicted when."""

from __future__ import annotations

import csv
import logging
from dataclasses import replace

import numpy as np
import pytest

from autoseg.core.geometry import Geometry
from autoseg.evaluation import evaluate_folder
from autoseg.evaluation.likeness import CaseFeatures, fit_likeness
from autoseg.evaluation.predicted_dice import DiceCurve
from autoseg.evaluation.quality import Quality, read_records
from autoseg.inference import Predictor
from autoseg.inference.calibration import Calibration
from autoseg.inference.quality_output import conclude_quality
from autoseg.io.images import read_labels, write_labels

CURVE = DiceCurve(
    name="organ", scored_on="annotated voxels", n_pairs=20, confidence=(0.0, 1.0), dice=(0.2, 0.8), half_width=0.1,
    occurrence=0.75,
)  # fmt: skip


def write_images(folder, seeds="abc", shape=(9, 14, 12), spacing=(2.0, 1.0, 1.0), **change):
    ending = ".png" if shape[0] == 1 else ".nii.gz"
    for name in seeds:
        rng = np.random.default_rng(ord(name))
        image = rng.integers(1, 120 + 20 * (ord(name) % 5), shape).astype(np.uint8)
        geometry = Geometry(spacing=spacing, ndim=2 if shape[0] == 1 else 3)
        write_labels(folder / f"{name}_0000{ending}", change.get(name, image), geometry)
    return folder


def rows_of(folder):
    with (folder / "quality.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def knowing(predictor, quality):
    return replace(predictor, model=replace(predictor.model, calibration=Calibration(quality=quality)))


def like(records):
    """Return the likeness to cases that differ a little from those of ``records``."""
    rng = np.random.default_rng(0)
    cases = {}
    for index, record in enumerate([*records] * 4):
        values = record.features.model_dump()
        for name in ("intensity", "texture"):
            values[name] = (np.array(values[name]) + rng.normal(0, 0.3, np.shape(values[name]))).tolist()
        cases[str(index)] = CaseFeatures.model_validate(values)
    return fit_likeness(cases, ["channel0"])


def test_confidence_is_that_of_the_saved_probabilities_and_labels(model_folder, tmp_path):
    predictor = Predictor.load(model_folder, device="cpu", mirror=False)
    predictor.predict_files(write_images(tmp_path / "in"), tmp_path / "out", save_probabilities=True)
    rows = rows_of(tmp_path / "out")
    assert sorted(row["case"] for row in rows) == ["a", "b", "c"]
    confidences = [float(row["soft_dice_confidence"]) for row in rows]
    assert confidences == sorted(confidences)
    for row in rows:
        organ = np.load(tmp_path / "out" / f"{row['case']}.npz")["probabilities"][1]
        mask = read_labels(tmp_path / "out" / f"{row['case']}.nii.gz")[0] == 1
        assert float(row["soft_dice_confidence"]) == pytest.approx(
            2 * organ[mask].sum() / (organ.sum() + mask.sum()), abs=1e-4
        )
        assert float(row["volume"]) == pytest.approx(mask.sum() * 2.0 / 1000)
        assert (row["unit"], row["predicted_dice"], row["is_unlike"]) == ("ml", "", "")
        assert 0 <= float(row["pairwise_dice"]) <= 1


def test_the_model_adds_the_predicted_dice_and_the_flag_with_its_reason(threshold_predictor, tmp_path, caplog):
    predictor = threshold_predictor()
    predictor.predict_files(write_images(tmp_path / "in", "abcde"), tmp_path / "first")
    quality = Quality(curves=(CURVE,), likeness=like(read_records(tmp_path / "first")), folds=("0",), n_cases=20)
    odd = np.kron(np.eye(3, dtype=np.uint8) * 250, np.ones((9, 5, 4), np.uint8))[:9, :14, :12]
    odd = np.ascontiguousarray(odd + 1)
    write_images(tmp_path / "in", "z", z=odd)
    logger = logging.getLogger("autoseg.inference.quality_output")
    logger.addHandler(caplog.handler)
    try:
        knowing(predictor, quality).predict_files(tmp_path / "in", tmp_path / "out")
    finally:
        logger.removeHandler(caplog.handler)
    rows = {row["case"]: row for row in rows_of(tmp_path / "out")}
    for row in rows.values():
        confidence = float(row["soft_dice_confidence"])
        dice = 0.2 + 0.6 * confidence
        expected = [dice, max(0, dice - 0.1), min(1, dice + 0.1)]
        assert [float(row[name]) for name in ("predicted_dice", "low", "high")] == pytest.approx(expected, abs=2e-4)
        assert row["target"] == "Dice on annotated voxels"
    assert (rows["z"]["is_unlike"], rows["a"]["is_unlike"]) == ("yes", "no")
    assert float(rows["z"]["unlike_training"]) > 1 > float(rows["a"]["unlike_training"])
    assert "of channel channel0 is" in rows["z"]["reason"]
    assert "1 of 6 cases are unlike the training images" in caplog.text


def test_cases_of_earlier_runs_keep_their_rows_until_their_predictions_are_gone(threshold_predictor, tmp_path):
    predictor = threshold_predictor()
    inputs = write_images(tmp_path / "in", "ab")
    predictor.predict_files(inputs, tmp_path / "out")
    write_images(inputs, "c")
    report = predictor.predict_files(inputs, tmp_path / "out")
    assert report.skipped == ("a", "b")
    assert sorted(row["case"] for row in rows_of(tmp_path / "out")) == ["a", "b", "c"]
    (tmp_path / "out" / "b.nii.gz").unlink()
    (tmp_path / "out" / "quality" / "c.json").write_text("{")
    conclude_quality(tmp_path / "out", ())
    assert [row["case"] for row in rows_of(tmp_path / "out")] == ["a"]


def test_quality_is_no_prediction_and_can_be_left_out(threshold_predictor, tmp_path):
    predictor = threshold_predictor()
    inputs = write_images(tmp_path / "in", "ab")
    predictor.predict_files(inputs, tmp_path / "out")
    for name in "ab":
        labels, geometry = read_labels(tmp_path / "out" / f"{name}.nii.gz")
        write_labels(tmp_path / "truth" / f"{name}.nii.gz", labels, geometry)
    summary = evaluate_folder(tmp_path / "truth", tmp_path / "out")
    assert (summary.n_cases, summary.extra, summary.foreground_mean["Dice"]) == (2, (), 1.0)
    predictor.predict_files(inputs, tmp_path / "plain", predict_quality=False)
    assert not list((tmp_path / "plain").glob("quality*"))
    for name in "ab":
        assert (tmp_path / "plain" / f"{name}.nii.gz").read_bytes() == (
            tmp_path / "out" / f"{name}.nii.gz"
        ).read_bytes()


def test_a_prediction_without_quality_leaves_no_record_of_the_map_that_it_replaces(threshold_predictor, tmp_path):
    predictor, output = threshold_predictor(), tmp_path / "out"
    both, one = write_images(tmp_path / "both", "ab"), write_images(tmp_path / "one", "a")
    predictor.predict_files(both, output)
    predictor.predict_files(one, output, predict_quality=False)  # skipped: the map stays, and so does its record
    assert sorted(row["case"] for row in rows_of(output)) == ["a", "b"]
    predictor.predict_files(one, output, predict_quality=False, overwrite=True)
    assert [row["case"] for row in rows_of(output)] == ["b"]
    predictor.predict_files(both, output, predict_quality=False, overwrite=True)
    assert not (output / "quality.csv").exists() and not list((output / "quality").glob("*.json"))


def test_empty_predictions_have_no_predicted_dice_and_come_where_absence_is_likely(threshold_predictor, tmp_path):
    predictor = threshold_predictor()
    dark = np.full((9, 14, 12), 20, np.uint8)
    inputs = write_images(tmp_path / "in", "abe", e=dark)
    quality = Quality(curves=(CURVE,), likeness=fit_likeness({}, ["channel0"]), folds=("0",), n_cases=20)
    knowing(predictor, quality).predict_files(inputs, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert rows[0]["case"] == "e"  # the class occurs in 3 of 4 cases, so that 0.25 is expected
    assert (rows[0]["predicted_dice"], rows[0]["volume"]) == ("", "0")
    assert all(row["is_unlike"] == "" for row in rows)


def test_two_dimensional_images_have_their_size_in_pixels(threshold_predictor, tmp_path):
    predictor = threshold_predictor(n_dims=2, ending=".png", spacing=(999.0, 1.0, 1.0))
    inputs = write_images(tmp_path / "in", "a", (1, 24, 30), (999.0, 1.0, 1.0))
    predictor.predict_files(inputs, tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert row["unit"] == "pixels"
    assert float(row["volume"]) == (read_labels(tmp_path / "out" / "a.png")[0] == 1).sum()
