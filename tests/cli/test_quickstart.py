"""The data set that the quickstart makes is a valid one, and its picture can be drawn."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.annotation.phantom import phantom_case
from autoseg.cli import quickstart as module
from autoseg.cli.quickstart import choose_iterations, draw_median_case, length_text, measured_length, write_dataset
from autoseg.core.workspace import Workspace
from autoseg.evaluation import evaluate_folder
from autoseg.io.images import read_image, read_labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "Dataset999_Phantom"
    write_dataset(folder, n_training=1, n_test=1)
    return folder


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


def test_the_picture_shows_the_median_case(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "labelsTs", tmp_path / "predictions")
    summary = evaluate_folder(folder / "labelsTs", tmp_path / "predictions", folder / "dataset.json")
    draw_median_case(folder, tmp_path / "predictions", summary.as_json(), tmp_path / "overlay.png")
    picture, _ = read_image([tmp_path / "overlay.png"])
    assert len(picture) == 3
    assert min(picture.shape[2:]) > 500


@pytest.mark.parametrize(
    ("step", "expected"), [(1e-9, 300), (0.6, 300), (0.62, 290), (0.9, 200), (1.0, 180), (1.2, 150), (60.0, 150)]
)
def test_as_many_iterations_as_fit_three_minutes_from_150_to_300(step, expected):
    assert choose_iterations(step) == expected
    assert expected in (150, 300) or expected * step <= 180


def test_the_length_is_measured_and_said_before_training(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "_step_seconds", lambda root, device: 0.75)
    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda n, context: ThreadPoolExecutor(n))
    assert measured_length(Workspace(tmp_path), "cpu") == 240
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("training will take about 3 min on this machine: 240 iterations, what fits 3 min (")
    assert "150 iterations, the fewest that make a good model" in length_text(150, 1.4)
    assert length_text(300, 0.2).startswith("training will take about 60 s on this machine: 300 iterations, more would")


@pytest.mark.parametrize("given", [None, 7])
def test_only_a_length_that_is_not_given_is_measured(monkeypatch, tmp_path, given):
    ran = {}

    class EndError(Exception):
        """Ends the quickstart once training would begin."""

    def run(name, arguments):
        ran[name] = arguments
        if name == "train":
            raise EndError

    monkeypatch.setattr(module, "_run_command", run)
    monkeypatch.setattr(module, "measured_length", lambda space, device: 190)
    monkeypatch.setattr(module, "write_dataset", lambda folder, progress: None)
    with pytest.raises(EndError):
        module.quickstart(given, "cpu", tmp_path)
    assert list(ran) == ["plan_and_preprocess", "train"]
    assert ran["train"][ran["train"].index("--iterations") + 1] == str(given or 190)
