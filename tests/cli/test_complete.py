"""autoseg_complete and its review on a toy that was trained on a wrong scribble, through the entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import write_toy_dataset

from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels, write_labels
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_config import RunOptions

SCRIPT = Path(sys.executable).parent / "autoseg_complete"
CASE = "toy_002"
WRONG = (slice(5, 6), slice(0, 3), slice(1, 7))
"""A stroke of foreground over background, in an annotated slice."""
IGNORE = 2
SETTINGS = (
    "precision=float32", "iterations_per_epoch=50", "validation_iterations=1", "batch_size=2", "augmentation=none",
    "learning_rate=0.01",
)  # fmt: skip


def complete(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT)] if SCRIPT.is_file() else [sys.executable, "-m", "autoseg.cli.complete"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "160", "AUTOSEG_ROOT": str(root)}
    line = [*command, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, encoding="utf-8", check=False, env=environment, timeout=300)


def merge_foreground(raw: Path) -> None:
    """Make one class of the two, which a network of a few steps does not tell apart reliably."""
    for path in sorted(raw.glob("labelsTr*/*.nii.gz")):
        values, geometry = read_labels(path)
        write_labels(path, np.array([0, 1, 1, IGNORE], dtype=np.uint8)[values], geometry)
    content = json.loads((raw / "dataset.json").read_text())
    content["labels"] = {"background": 0, "bright": 1, "ignore": IGNORE}
    (raw / "dataset.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def root(tmp_path_factory, toy_preparation) -> Path:
    """Workspace with four toy cases, one of them scribbled wrongly, and a network trained on each half."""
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("complete"))
    raw = write_toy_dataset(workspace.raw("Dataset007_Toy"), n_cases=4)
    merge_foreground(raw)
    path = raw / "labelsTr" / f"{CASE}.nii.gz"
    truth = read_labels(raw / "labelsTr_dense" / path.name)[0]
    drawn, geometry = read_labels(path)
    assert not truth[WRONG].any()
    assert (drawn[WRONG] == 0).all()
    scribbled = drawn.copy()
    scribbled[WRONG] = 1
    write_labels(path, scribbled, geometry)
    names = [f"toy_{index:03d}" for index in range(4)]
    halves = [{"train": names[2:], "val": names[:2]}, {"train": names[:2], "val": names[2:]}]
    (raw / "splits_final.json").write_text(json.dumps(halves))
    dataset = Dataset.load(raw)
    toy_preparation(dataset, workspace)
    for fold in ("0", "1"):
        options = RunOptions(fold, iterations=60, settings=SETTINGS, workers=0, device="cpu")
        train_fold(prepare_fold(workspace, dataset, options))
    return workspace.root


@pytest.mark.slow
def test_a_wrong_scribble_is_the_first_that_the_review_shows(root, tmp_path):
    output = tmp_path / "dense"
    result = complete(root, "7", "-o", output, "--review", "--no-tta", "--json", "-j", "1")
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert content["folds"] == {"toy_000": "0", "toy_001": "0", "toy_002": "1", "toy_003": "1"}
    first = content["disagreements"][0]
    assert first["case"] == CASE
    assert (first["drawn"], first["predicted"]) == ("bright", "background")
    assert first["z"] == 5
    assert 0 <= first["y"] < 3
    assert 1 <= first["x"] < 7
    assert first["n_voxels"] >= 14  # of 18
    assert first["mean_probability"] > 0.5
    assert (output / "review.csv").read_text().splitlines()[1].startswith(f"1,{CASE},5,")
    assert (output / "review.png").is_file()

    raw = root / "raw" / "Dataset007_Toy"
    completed = Dataset.load(output)
    assert completed.labels.is_dense
    for files in completed.cases:
        drawn, truth = (read_labels(raw / folder / files.label.name)[0] for folder in ("labelsTr", "labelsTr_dense"))
        made = read_labels(files.label)[0]
        np.testing.assert_array_equal(made[drawn != IGNORE], drawn[drawn != IGNORE])
        assert (made == truth).mean() > 0.9

    table = complete(root, raw, "-c", "3d_fullres", "-o", output, "--review", "--no-tta")
    assert table.returncode == 0, table.stderr
    assert "0 cases completed, 4 were complete already" in table.stderr
    row = next(line for line in table.stdout.splitlines() if "bright" in line)
    assert CASE in row


@pytest.mark.slow
def test_a_fold_that_is_missing_is_the_users_mistake(root):
    final = root / "results" / "Dataset007_Toy" / "default__3d_fullres" / "fold_1"
    hidden = final.rename(final.with_name("hidden_1"))
    try:
        result = complete(root, "Dataset007_Toy", "--no-tta")
    finally:
        hidden.rename(final)
    assert result.returncode == 2
    assert "toy_002, toy_003" in result.stderr
    assert "autoseg_train Dataset007_Toy 1 -c 3d_fullres" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (root / "raw" / "completed_Dataset007_Toy").exists()


@pytest.mark.slow
def test_an_untrained_data_set_is_the_users_mistake(toy_folder, tmp_path):
    result = complete(tmp_path, toy_folder)
    assert result.returncode == 2
    assert "found no training under the name 'default', expected one. Train first: autoseg_train" in result.stderr
