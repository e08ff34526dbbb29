"""Settings in levels, as a user writes them: files, options, and where each value came from."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import run_command

from autoseg.planning.files import PLAN_FILE, load_plan

CPU = ("--device", "cpu", "-j", "0", "-q")


@pytest.fixture
def no_user_file(monkeypatch, tmp_path):
    monkeypatch.delenv("AUTOSEG_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))


def shown(toy_folder: Path, root: Path, *options: object) -> dict[str, dict[str, object]]:
    done = run_command("train", toy_folder, "0", "--show-config", "--json", *options, root=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_setting_is_printed_with_the_level_that_it_came_from(
    toy_folder, toy_workspace, tmp_path, monkeypatch, no_user_file
):
    user, run = tmp_path / "user.toml", tmp_path / "run.toml"
    user.write_text("seed = 1\niterations = 50\n[sampling]\nmax_attempts = 5\n[optimizer]\nname = 'adamw'\n")
    run.write_text("iterations = 60\n[optimizer]\nname = 'sgd'\n")
    monkeypatch.setenv("AUTOSEG_CONFIG", str(user))
    settings = shown(toy_folder, toy_workspace.root, "--config", run, "--set", "iterations=70", "--deterministic")
    assert settings["sampling.max_attempts"] == {"value": 5, "level": str(user)}
    assert settings["optimizer.name"] == {"value": "sgd", "level": str(run)}
    assert settings["iterations"] == {"value": 70, "level": "--set"}
    assert settings["deterministic"] == {"value": True, "level": "--deterministic"}
    assert settings["loss"] == {"value": "label_sets", "level": "default"}
    table = run_command("train", toy_folder, "0", "--show-config", "--config", run, root=toy_workspace.root).stdout
    assert any(line.split() == ["optimizer.name", "sgd", str(run)] for line in table.splitlines())
    assert not (toy_workspace.root / "results").exists()


@pytest.mark.slow
def test_a_run_goes_on_as_it_was_begun_whatever_its_file_says(toy_folder, toy_workspace, tmp_path, no_user_file):
    run = tmp_path / "run.toml"
    run.write_text("iterations = 50\nseed = 3\n[monitoring]\nbatch_picture = 0\n")
    options = ("--config", run, "--name", "goes_on", "--set", "precision=float32", *CPU)
    begun = run_command("train", toy_folder, "0", "--iterations", "2", *options, root=toy_workspace.root)
    assert begun.returncode == 0, begun.stderr
    again = run_command("train", toy_folder, "0", "--resume", *options, root=toy_workspace.root)
    assert again.returncode == 0, again.stderr
    assert f"{run}: iterations=50 not taken" in again.stderr


def test_an_unknown_key_is_refused_with_its_file_and_the_nearest_name(
    toy_folder, toy_workspace, tmp_path, no_user_file
):
    run = tmp_path / "run.toml"
    run.write_text("[optimizer]\nlearning_rat = 0.1\n")
    for command, fold in (("train", ["0", "--show-config"]), ("preview_batches", [])):
        done = run_command(command, toy_folder, *fold, "--config", run, root=toy_workspace.root)
        assert done.returncode == 2
        assert f"{run}: optimizer.learning_rat" in done.stderr and "optimizer.learning_rate" in done.stderr


@pytest.mark.slow
def test_a_folder_of_cubes_is_trained_with_one_file(tmp_path, no_user_file):
    rng = np.random.default_rng(0)
    for index in range(3):
        with h5py.File(tmp_path / f"raw_{index}.h5", "w") as file:
            file["raw"] = rng.integers(0, 255, (24, 24, 16), dtype=np.uint8)
        with h5py.File(tmp_path / f"lab_{index}.h5", "w") as file:
            file["labels"] = rng.integers(-1, 2, (20, 20, 12)).astype(np.int16)
    run, root = tmp_path / "run.toml", tmp_path / "root"
    run.write_text(
        'iterations = 2\nbatch_size = 1\nprecision = "float32"\nvalidation_iterations = 1\n[augmentation]\n'
        'mirror = false\n[data]\nimages = ["raw_*.h5:raw"]\nlabels = ["lab_*.h5:labels"]\nvalidation = [0]\n'
        "[network]\nfeatures = [4, 8]\n"
    )
    planned = run_command("plan_and_preprocess", run, "--planner", "small", "-c", "2d", "-j", "1", "-q", root=root)
    assert planned.returncode == 0, planned.stderr
    plan = load_plan(root / "preprocessed" / "run" / PLAN_FILE)
    assert plan.configurations["2d"].topology.features == (4, 8)
    trained = run_command("train", run, "0", *CPU, root=root)
    assert trained.returncode == 0, trained.stderr
    assert "the plan was made without" not in trained.stderr
    fold = root / "results" / "run" / "default__2d" / "fold_0"
    content = json.loads((fold / "training.json").read_text())
    assert content["val_cases"] == ["raw_0"] and content["origins"]["batch_size"] == str(run)
    again = run_command("train", run, "0", *CPU, root=root)
    assert again.returncode == 2 and f"--config {run} --root" in again.stderr
    by_name = run_command("train", "run", "0", "--config", run, "--overwrite", *CPU, root=root)
    assert by_name.returncode == 0, by_name.stderr
    both = run_command("train", run, "0", "--config", run, *CPU, root=root)
    assert both.returncode == 2 and "Leave one out" in both.stderr
