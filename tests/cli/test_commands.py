"""Every command once through its real entry point, on files, with the ends that a user meets."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from toy import write_toy_dataset

from autoseg.io.images import read_labels
from autoseg.nn.checkpoint import load_checkpoint

SCRIPTS = Path(sys.executable).parent
COMMANDS = (
    "plan_and_preprocess",
    "train",
    "predict",
    "preview_batches",
    "evaluate_folder",
    "simulate_annotation",
    "complete",
    "suggest",
    "merge_datasets",
    "convert_elektronn",
)
LARGE = {"torch", "scipy", "SimpleITK"}
QUICK = ["--set", "validation_iterations=1", "batch_size=2", "precision=float32"]


def autoseg(command: str, *arguments: str | Path, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = (
        os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "160"} | ({"AUTOSEG_ROOT": str(root)} if root else {})
    )
    line = [str(SCRIPTS / f"autoseg_{command}"), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, encoding="utf-8", check=False, env=environment, timeout=300)


def test_commands_import_no_large_library_before_they_run():
    """All in one process: the first command after which one of them is loaded is named."""
    check = "importlib.import_module(f'autoseg.cli.{name}'); large & set(sys.modules) and sys.exit(name)"
    code = f"import importlib, sys\nlarge = {LARGE}\nfor name in {COMMANDS}: {check}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_flag_is_the_users_mistake(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"autoseg_{command}", "--no-such-flag"])
    with pytest.raises(SystemExit) as left:
        importlib.import_module(f"autoseg.cli.{command}").main()
    assert left.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_installed_program_is_the_command(command):
    result = autoseg(command, "--no-such-flag")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 40, 36), (12, 20, 18)], ids=["2d-png", "3d-nifti"])
def test_from_raw_files_to_evaluated_predictions(tmp_path, shape):
    raw = write_toy_dataset(tmp_path / "raw" / "Dataset007_Toy", shape=shape)
    configuration, ending = ("2d", ".png") if shape[0] == 1 else ("3d_fullres", ".nii.gz")
    planned = autoseg("plan_and_preprocess", "7", "-c", configuration, "--planner", "small", "-j", "1", root=tmp_path)
    assert planned.returncode == 0, planned.stderr
    again = autoseg("plan_and_preprocess", "7", "-c", configuration, "--planner", "small", "--json", root=tmp_path)
    assert json.loads(again.stdout)["preprocessed"] == [configuration]
    assert "0 cases preprocessed, 5 were up to date" in again.stderr

    flags = ["-c", configuration, "--iterations", "3", "-j", "0", *QUICK]
    trained = autoseg("train", "7", "0", *flags, root=tmp_path)
    assert trained.returncode == 0, trained.stderr
    fold = tmp_path / "results" / "Dataset007_Toy" / f"default__{configuration}" / "fold_0"
    assert json.loads((fold / "validation" / "summary.json").read_text())["scored_on"] == "annotated voxels"
    refused = autoseg("train", "7", "0", *flags, root=tmp_path)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr

    images, predictions = raw / "imagesTr", tmp_path / "predictions"
    moved = tmp_path / "moved"
    shutil.move(fold.parent, moved)  # a model folder stands alone
    predicted = autoseg("predict", "-i", images, "-o", predictions, "-m", moved, "-f", "0", "--no-tta", "--json")
    assert predicted.returncode == 0, predicted.stderr
    assert len(json.loads(predicted.stdout)["done"]) == 5
    for path in sorted(predictions.glob(f"*{ending}")):
        source = SimpleITK.ReadImage(str(images / path.name.replace(ending, f"_0000{ending}")))
        made = SimpleITK.ReadImage(str(path))
        assert made.GetSize() == source.GetSize()
        for name in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(made, name)(), getattr(source, name)(), atol=1e-4)
        assert read_labels(path)[0].max() <= 2

    scored = autoseg("evaluate_folder", raw / "labelsTr_dense", predictions, "--csv", tmp_path / "scores.csv", "--json")
    assert scored.returncode == 0, scored.stderr
    summary = json.loads(scored.stdout)
    assert summary["scored_on"] == "dense"
    assert set(summary["mean"]) == {"1", "2"}
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + 5 * 2


def start_training(root: Path, *flags: str) -> subprocess.Popen[str]:
    line = [str(SCRIPTS / "autoseg_train"), "Dataset007_Toy", "0", "-j", "1", "-q", *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "AUTOSEG_ROOT": str(root)}
    return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, encoding="utf-8")


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


ENDED = ["--iterations", "20", *QUICK, "iterations_per_epoch=2"]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workspace with a training that nothing ended."""
    root = tmp_path_factory.mktemp("ended")
    write_toy_dataset(root / "raw" / "Dataset007_Toy")
    made = autoseg("plan_and_preprocess", "7", "-c", "3d_fullres", "--planner", "small", "-j", "1", root=root)
    assert made.returncode == 0, made.stderr
    code, errors = finish(start_training(root, "--name", "whole", *ENDED))
    assert code == 0, errors
    return root


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_training_that_is_ended_from_outside_goes_on_to_the_same_weights(whole_run, number):
    results = whole_run / "results" / "Dataset007_Toy"
    name = f"ended_by_{number.name}"
    process = start_training(whole_run, "--name", name, *ENDED)
    latest = results / f"{name}__3d_fullres" / "fold_0" / "checkpoint_latest.pt"
    wait_for(latest, process)
    process.send_signal(number)
    code, errors = finish(process)  # which waits for the workers too: they hold the other end of stderr
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert not (latest.parent / "checkpoint_final.pt").exists()
    assert "Traceback" not in errors
    code, errors = finish(start_training(whole_run, "--name", name, "--resume", *ENDED))
    assert code == 0, errors

    expected, found = (
        load_checkpoint(results / f"{run}__3d_fullres" / "fold_0" / "checkpoint_final.pt").weights
        for run in ("whole", name)
    )
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not list(latest.parent.glob(".*.tmp.*")) or number == signal.SIGKILL


@pytest.mark.slow
def test_a_broken_data_set_is_named_line_by_line_without_a_traceback(tmp_path):
    raw = write_toy_dataset(tmp_path / "Dataset008_Broken", n_cases=3)
    content = json.loads((raw / "dataset.json").read_text())
    content["labels"] = {"background": 0, "bright": 1, "brighter": 2, "Ignore": 3}
    (raw / "dataset.json").write_text(json.dumps(content))
    (raw / "labelsTr" / "toy_001.nii.gz").unlink()
    result = autoseg("plan_and_preprocess", raw, root=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "labels.Ignore" in result.stderr
    assert "toy_001" in result.stderr
    assert not (tmp_path / "preprocessed").exists()


@pytest.mark.slow
def test_check_only_reports_what_is_annotated(toy_folder, tmp_path):
    result = autoseg("plan_and_preprocess", toy_folder, "--check-only", "-j", "1", root=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "toy_004" in result.stdout
    assert "labels of 5 cases read: no faults" in result.stdout
    as_json = autoseg("plan_and_preprocess", toy_folder, "--check-only", "--json", "-j", "1", root=tmp_path)
    cases = json.loads(as_json.stdout)["cases"]
    assert cases["toy_000"]["annotated_fraction"] == pytest.approx(1 / 3)
    assert not (tmp_path / "preprocessed").exists()
