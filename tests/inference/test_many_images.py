"""Predictions of many images cost time and memory in proportion to their number, and little memory each."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from tiny_models import make_checkpoint

from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.evaluation import quality
from autoseg.inference import uncertainty_files
from autoseg.inference.predict_images import predict_images
from autoseg.inference.predictor import Predictor
from autoseg.io.images import write_labels
from autoseg.nn.checkpoint import save_checkpoint

FEW, MANY = 5, 60
BYTES_PER_CASE = 3000
"""Names, paths and results of a case, and its row of quality.csv."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    for fold in ("0", "1"):
        made = make_checkpoint(fold, n_dims=2, ending=".png", spacing=(FLAT_SPACING, 1.0, 1.0))
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pt", made)
    return Predictor.load(folder, device="cpu", mirror=False)


def write_list(folder, number):
    values = np.random.default_rng(0).integers(1, 99, (1, 9, 8)).astype(np.uint8)
    for index in range(number):
        write_labels(folder / f"picture{index:03d}.png", values, Geometry(spacing=(FLAT_SPACING, 1.0, 1.0), ndim=2))
    path = folder / "list.txt"
    path.write_text("".join(f"picture{index:03d}.png\n" for index in range(number)), encoding="utf-8")
    return path


def test_memory_grows_by_little_more_than_the_names(model, tmp_path):
    peaks = []
    for number in (FEW, FEW, MANY):  # the first fills caches
        path = write_list(tmp_path / f"in{len(peaks)}", number)
        tracemalloc.start()
        report = predict_images(path, tmp_path / f"out{len(peaks)}", [model], save_uncertainty=True, workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(report.done) == number
    assert peaks[2] - peaks[1] < (MANY - FEW) * BYTES_PER_CASE


def test_records_are_read_once_and_tables_written_once(model, tmp_path, monkeypatch):
    """A table that is written again for each case costs time in proportion to the square of their number."""
    read, written = [], []
    original = uncertainty_files._read_means
    monkeypatch.setattr(uncertainty_files, "_read_means", lambda path: read.append(path) or original(path))
    for module in (uncertainty_files, quality):
        opened = module.atomic_path
        monkeypatch.setattr(
            module, "atomic_path", lambda path, opened=opened: written.append(path.name) or opened(path)
        )
    path, out = write_list(tmp_path / "in", FEW), tmp_path / "out"
    predict_images(path, out, [model], save_uncertainty=True, workers=0)
    assert len(read) == FEW and written == ["quality.csv", "uncertainty.json"]
    content = json.loads((out / "uncertainty" / "uncertainty.json").read_text())["cases"]
    assert list(content) == [f"picture{index:03d}" for index in range(FEW)]
    assert len((out / "quality.csv").read_text().splitlines()) == 1 + FEW
