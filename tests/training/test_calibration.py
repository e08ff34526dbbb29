"""Calibration that follows from the validation of folds."""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from autoseg.core.errors import PlanError
from autoseg.dataset.dataset import Dataset
from autoseg.inference import Predictor
from autoseg.inference.calibration import CALIBRATION_FILE, Calibration, read_calibration
from autoseg.inference.calibration_sample import load_sample
from autoseg.io.images import read_image, read_labels
from autoseg.training.calibration import SAMPLES, refit_calibration
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_config import RunOptions
from autoseg.training.validation import validate_fold


@pytest.fixture(scope="module")
def trained(toy_folder, toy_workspace, tmp_path_factory):
    """Requests of two folds of one model folder, trained and validated; do not change what they wrote."""
    torch.set_num_threads(1)
    model = tmp_path_factory.mktemp("run") / "default__3d_fullres"
    requests = []
    for fold in ("0", "1"):
        settings = ("precision=float32", "validation_iterations=1", "mirror=false")
        options = RunOptions(fold, iterations=1, settings=settings, workers=0, device="cpu")
        request = prepare_fold(toy_workspace, Dataset.load(toy_folder), options)
        request = replace(request, folder=model / f"fold_{fold}")
        train_fold(request)
        validate_fold(request)
        requests.append(request)
    return requests


@pytest.fixture
def copy(trained, tmp_path):
    """The model folder, copied elsewhere."""
    folder = tmp_path / "copy"
    shutil.copytree(trained[0].folder.parent, folder)
    return folder


def samples_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npz"))


def test_each_validation_keeps_the_annotated_voxels_of_its_cases(trained):
    for request in trained:
        assert [path.stem for path in sorted((request.folder / SAMPLES).iterdir())] == sorted(request.val_cases)
        (case,) = request.val_cases
        files, labels = request.dataset.case(case), request.dataset.labels
        sample = load_sample(request.folder / SAMPLES / f"{case}.npz", labels)
        drawn, geometry = read_labels(files.label)
        predictor = Predictor.load(request.folder.parent, [request.fold], "cpu")
        _, probabilities = predictor.predict_probabilities(read_image(files.images)[0], geometry)
        known = drawn != labels.ignore
        expected = probabilities[:, known].T
        assert len(sample.weights) == known.sum() and (sample.weights == 1).all()
        np.testing.assert_array_equal(sample.states, np.where(drawn[known][:, None] == np.arange(3), 1, -1))
        np.testing.assert_allclose(np.exp(sample.scores.astype(float)), expected, atol=2e-3)


def test_calibration_of_all_folds_lies_in_the_model_folder(trained):
    labels = trained[0].dataset.labels
    temperature = read_calibration(trained[0].folder.parent).temperature
    assert [head.name for head in temperature.heads] == ["background", "bright", "brighter"]
    assert (temperature.folds, temperature.n_cases, temperature.basis) == (("0", "1"), 2, "annotated voxels")
    samples = [load_sample(path, labels) for request in trained for path in (request.folder / SAMPLES).iterdir()]
    assert temperature.n_voxels == sum(len(sample.weights) for sample in samples)
    background = temperature.heads[0]
    assert background.temperature != 1 and background.reason is None and background.n_cases == 2
    scores, states = (np.concatenate([getattr(sample, name) for sample in samples]) for name in ("scores", "states"))
    probabilities = softmax(scores.astype(float), axis=1)
    assert temperature.log_loss_before == pytest.approx(-np.log(probabilities[states > 0]).mean(), rel=1e-3)
    assert temperature.log_loss_after < temperature.log_loss_before
    for row, head in enumerate(temperature.heads):
        edges = np.clip((probabilities[:, row] * 15).astype(int), 0, 14)
        gaps = [(probabilities[edges == b, row] - (states[edges == b, row] > 0)).sum() for b in range(15)]
        assert head.ece_before == pytest.approx(np.abs(gaps).sum() / len(states), abs=1e-6)


def test_quality_of_all_folds_lies_there_too_and_says_that_two_cases_are_too_few(trained):
    quality = read_calibration(trained[0].folder.parent).quality
    assert (quality.folds, quality.n_cases, quality.likeness.n_cases) == (("0", "1"), 2, 2)
    assert [curve.name for curve in quality.curves] == ["bright", "brighter"]
    assert all(curve.half_width is None and "at least 10" in curve.reason for curve in quality.curves)
    assert not (trained[0].folder / "validation" / "quality.csv").exists()


def test_prediction_takes_the_calibration_along_and_a_damaged_one_is_named(copy, trained):
    expected = read_calibration(trained[0].folder.parent)
    assert Predictor.load(copy, device="cpu").model.calibration == expected
    (copy / CALIBRATION_FILE).write_text('{"temperature": ')
    with pytest.raises(PlanError, match=r"calibration\.json: found .*expected a calibration as autoseg writes it"):
        Predictor.load(copy, device="cpu")
    (copy / CALIBRATION_FILE).unlink()
    assert Predictor.load(copy, device="cpu").model.calibration == Calibration()


def test_labels_of_a_validation_do_not_depend_on_an_earlier_calibration(copy, trained):
    request = replace(trained[0], folder=copy / "fold_0")
    written = (copy / CALIBRATION_FILE).read_bytes()
    before = {path.name: path.read_bytes() for path in (copy / "fold_0" / SAMPLES).iterdir()}
    labels = {path.name: read_labels(path)[0] for path in (copy / "fold_0" / "validation").glob("*.nii.gz")}
    validate_fold(request)
    assert (copy / CALIBRATION_FILE).read_bytes() == written
    for name, array in labels.items():
        np.testing.assert_array_equal(read_labels(copy / "fold_0" / "validation" / name)[0], array)
    for name in before:
        old, new = (load_sample(folder / "fold_0" / SAMPLES / name, request.dataset.labels)
                    for folder in (trained[0].folder.parent, copy))  # fmt: skip
        np.testing.assert_array_equal(old.scores, new.scores)


def test_cases_that_the_weights_have_seen_and_damaged_samples_are_left_out(copy, trained, caplog):
    labels = trained[0].dataset.labels
    training = json.loads((copy / "fold_0" / "training.json").read_text())
    (copy / "fold_0" / "training.json").write_text(json.dumps({**training, "seen_cases": training["val_cases"]}))
    one = refit_calibration(copy, labels, ["MR"]).temperature
    assert (one.folds, one.n_cases) == (("1",), 1)
    assert all(head.temperature == 1 and "in 1 case, expected at least" in head.reason for head in one.heads)
    (path,) = (copy / "fold_1" / SAMPLES).iterdir()
    path.write_bytes(b"PK")
    logger = logging.getLogger("autoseg.training.calibration")
    logger.addHandler(caplog.handler)
    try:
        none = refit_calibration(copy, labels, ["MR"]).temperature
    finally:
        logger.removeHandler(caplog.handler)
    assert none.n_cases == 0 and none.ece_before is None
    assert f"{path}: found no sample that can be read" in caplog.text
    assert json.loads((copy / CALIBRATION_FILE).read_text())["temperature"]["n_cases"] == 0


def test_folds_that_end_together_leave_a_whole_calibration(copy, trained):
    labels = trained[0].dataset.labels
    expected = read_calibration(copy)
    (copy / CALIBRATION_FILE).unlink()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: refit_calibration(copy, labels, ["MR"]), range(4)))
    assert results == [expected] * 4 and read_calibration(copy) == expected
    assert not list(copy.glob(".*.tmp.*"))
