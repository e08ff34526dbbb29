"""The data set that the quickstart makes is a valid one, and its picture can be drawn."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.cli.quickstart import draw_median_case, write_dataset
from autoseg.evaluation import evaluate_folder
from autoseg.io.images import read_image, read_labels
from autoseg.simulation.phantom import phantom_case


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
