"""Regression through the four commands: what is unknown is never learnt, and the numbers are learnt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command
from regression import write_regression

from autoseg.io.images import read_image
from autoseg.report.history import read_history

BAR = 0.6
"""Least R2 on whole new images after the few steps below; the mean of all numbers has 0."""
SMALL = ("--set", "network.levels=2", "network.features=12,24")
QUICK = (
    "-j", "0", "--device", "cpu", "--iterations", "40", "--set", "iterations_per_epoch=20", "validation_iterations=2",
    "precision=float32", "batch_size=2", "optimizer=adamw", "learning_rate=0.01",
)  # fmt: skip


def succeed(name: str, *arguments: object, root: Path | None = None) -> str:
    result = run_command(name, *arguments, root=root)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("is_flat", [True, False], ids=["2d", "3d"])
def test_the_four_commands_learn_partly_unknown_numbers(is_flat, tmp_path):
    folder = write_regression(tmp_path / "raw" / "Dataset001_Depth", is_flat=is_flat)
    name = "2d" if is_flat else "3d_fullres"
    succeed("plan_and_preprocess", 1, "-c", name, "--planner", "small", *SMALL, "-j", 1, root=tmp_path)
    succeed("train", 1, 0, "-c", name, *QUICK, root=tmp_path)
    model = tmp_path / "results" / folder.name / f"default__{name}"
    last = read_history(model / "fold_0" / "history.jsonl")[-1]
    assert last.score == "R2" and last.dice > BAR and last.dice_per_head == {"depth": last.dice}
    predict = ("predict", "-i", folder / "imagesTs", "-m", model, "-j", 0, "--device", "cpu")
    succeed(*predict, "-o", tmp_path / "out")
    succeed(*predict, "-o", tmp_path / "fast", "--fast")
    assert {path.name for path in (tmp_path / "fast").iterdir()} == {path.name for path in (tmp_path / "out").iterdir()}
    shown = succeed("evaluate_folder", folder / "labelsTs", tmp_path / "out", "-j", 1)
    assert "Pearson" in shown and "depth" in shown
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["n_cases"] == 2 and summary["all_voxels"]["depth"]["R2"] > BAR
    validated = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    assert validated["all_voxels"]["depth"]["R2"] > BAR
    ending = ".tif" if is_flat else ".nii.gz"
    numbers, geometry = read_image([tmp_path / "out" / f"c6{ending}"])
    image, own = read_image([folder / "imagesTs" / f"c6_0000{ending}"])
    assert numbers.dtype == np.float32 and numbers.shape == image.shape and not geometry.differs_from(own)
    assert 30 < numbers.mean() < 70  # the units of the files: 50 on average


def test_tools_of_classes_refuse_a_regression_before_they_read_a_file(tmp_path):
    folder = write_regression(tmp_path / "raw" / "Dataset001_Depth", is_flat=True, n_test=0)
    for path in (folder / "labelsTr").iterdir():
        path.write_bytes(b"")
    for line in (
        ("complete", folder, "-o", tmp_path / "new", "-c", "2d"),
        ("suggest", folder, "-c", "2d"),
        ("simulate_annotation", folder, "-o", tmp_path / "new", "--scribbles"),
        ("merge_datasets", folder, folder, "-o", tmp_path / "new"),
    ):
        result = run_command(*line, root=tmp_path)
        assert result.returncode == 2 and "the task regression (depth), expected classes" in result.stderr, line
    assert not (tmp_path / "new").exists()


def test_settings_for_unannotated_voxels_and_losses_of_classes_are_refused(tmp_path):
    folder = write_regression(tmp_path / "raw" / "Dataset001_Depth", is_flat=True, n_test=0)
    succeed("plan_and_preprocess", folder, "--planner", "small", *SMALL, "-j", 1, root=tmp_path)
    for setting, message in (
        ("background_prior=0.5", "evidence.background_prior = 0.5: the task of the data set is regression"),
        ("teacher_weight=1", "evidence.teacher_weight = 1: the task of the data set is regression"),
        ("loss=label_sets", "one of ['l1', 'l2']"),
    ):
        result = run_command("train", folder, 0, *QUICK, "--set", setting, root=tmp_path)
        assert result.returncode == 2 and message in result.stderr
    model = tmp_path / "results" / folder.name / "default__2d" / "fold_0"
    assert not list(model.glob("*.pt"))
    shown = json.loads(succeed("train", folder, 0, "--show-config", "--json", root=tmp_path))
    assert "l2" in json.dumps(shown) and "task regression" in json.dumps(shown)


def test_the_check_shows_the_share_of_known_voxels(tmp_path):
    folder = write_regression(tmp_path / "raw" / "Dataset001_Depth", is_flat=True, n_test=0)
    shown = json.loads(succeed("plan_and_preprocess", folder, "--check-only", "--json", "-j", 1, root=tmp_path))
    shares = [case["annotated_fraction"] for case in shown["cases"].values()]
    assert len(shares) == 6 and all(0.4 < share < 0.52 for share in shares)
