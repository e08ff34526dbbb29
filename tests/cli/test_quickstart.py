"""The data set that the quickstart makes is a valid one, and its picture can be drawn."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.cli import quickstart as module
from autoseg.cli.pace import Pace
from autoseg.cli.quickstart import draw_median_case, write_dataset
from autoseg.evaluation import evaluate_folder
from autoseg.io.images import read_image, read_labels
from autoseg.simulation.phantom import phantom_case


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "Dataset999_Phantom"
    write_dataset(folder, n_training=1, n_test=1)
    return folder


@pytest.mark.slow
def test_training_cases_carry_scribbles_and_test_cases_dense_labels(folder: Path) -> None:
    dataset = Dataset.load(folder)
    assert dataset.case_names == ("phantom_000",)
    scribbles, geometry = read_labels(dataset.case("phantom_000").label or "")
    assert dataset.labels.ignore in scribbles
    truth, _ = read_labels(folder / "labelsTs" / "phantom_001.nii.gz")
    assert np.array_equal(truth, phantom_case(1).truth)
    image, image_geometry = read_image(dataset.case("phantom_000").images)
    assert np.abs(image - phantom_case(0).image.clip(0)).max() <= 0.5
    assert not geometry.differs_from(image_geometry)
    assert image_geometry.spacing == pytest.approx(phantom_case(0).spacing)


@pytest.mark.slow
def test_the_picture_shows_the_median_case(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "labelsTs", tmp_path / "predictions")
    summary = evaluate_folder(folder / "labelsTs", tmp_path / "predictions", folder / "dataset.json")
    draw_median_case(folder, tmp_path / "predictions", summary.as_json(), tmp_path / "overlay.png")
    picture, _ = read_image([tmp_path / "overlay.png"])
    assert len(picture) == 3
    assert min(picture.shape[2:]) > 500


@pytest.mark.parametrize(
    ("given", "pace", "iterations", "threads"),
    [(7, None, "7", None), (None, Pace(0.75), "240", None), (None, Pace(0.75, 3), "240", 3)],
)
def test_only_a_length_that_is_not_given_is_measured_and_said_before_training(
    monkeypatch, capsys, tmp_path, given, pace, iterations, threads
):
    ran = {}

    class EndError(Exception):
        """Ends the quickstart once training would begin."""

    def run(name, arguments, threads=None):
        ran[name] = arguments, threads
        if name == "train":
            raise EndError

    monkeypatch.setattr(module, "_run_command", run)
    monkeypatch.setattr(module, "measure_pace", lambda *run: pace)
    monkeypatch.setattr(module, "write_dataset", lambda folder, progress: None)
    with pytest.raises(EndError):
        module.quickstart(given, "cpu", tmp_path)
    assert list(ran) == ["plan_and_preprocess", "train"]
    arguments, taken = ran["train"]
    assert arguments[arguments.index("--iterations") + 1] == iterations
    assert taken == threads
    assert ("training will take about 3 min on this machine: 240 iter" in capsys.readouterr().out) == (given is None)


def test_threads_are_set_for_the_command_and_shown(monkeypatch, capsys):
    calls = []

    def call(line, check, env):
        calls.append((line[2], env.get("OMP_NUM_THREADS")))
        return subprocess.CompletedProcess(line, 0)

    monkeypatch.setattr(module.subprocess, "run", call)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    module._run_command("train", ["D", "0"])
    module._run_command("train", ["D", "0"], 2)
    assert calls == [("autoseg.cli.train", None), ("autoseg.cli.train", "2")]
    assert capsys.readouterr().out.splitlines() == ["$ autoseg_train D 0", "$ OMP_NUM_THREADS=2 autoseg_train D 0"]
