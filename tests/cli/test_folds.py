"""``autoseg_train DATASET 0 1 2``: the queue of folds, on the CPU with processes of a user's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import run_command
from toy import write_toy_dataset

from autoseg.cli.folds import VISIBLE, device_slots
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.inference import Predictor
from autoseg.inference.members import member_kind
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_config import RunOptions

SETTINGS = ("--set", "precision=float32", "validation_iterations=1", "batch_size=2", "iterations_per_epoch=2")
SHORT = ("--device", "cpu", "-j", "0", "--iterations", "2", *SETTINGS)
ENDLESS = ("--device", "cpu", "-j", "0", "--iterations", "1000000", *SETTINGS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, toy_preparation) -> Path:
    root = tmp_path_factory.mktemp("folds")
    toy_preparation(Dataset.load(write_toy_dataset(root / "raw" / "Dataset001_Toy")), Workspace(root))
    return root


def run_of(root: Path, name: str) -> Path:
    return root / "results" / "Dataset001_Toy" / f"{name}__3d_fullres"


@pytest.mark.parametrize(
    ("device", "gpus", "jobs", "slots"),
    [
        ("auto", None, None, ["0", "1", "2", "3", "4"]),
        ("cuda", 2, None, ["0,1", "2,3"]),
        ("auto", None, 2, ["0", "1"]),
        ("auto", 4, 2, ["0,1,2,3", "0,1,2,3"]),
        ("cuda:3", None, None, [None]),
        ("cpu", None, None, [None]),
        ("cpu", None, 3, [None, None, None]),
    ],
)
def test_each_fold_that_runs_at_a_time_has_gpus_of_its_own(monkeypatch, device, gpus, jobs, slots):
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    assert [slot.get(VISIBLE) for slot in device_slots(device, gpus, jobs)] == slots


def test_gpus_that_the_user_hides_stay_hidden(monkeypatch):
    monkeypatch.setenv(VISIBLE, "GPU-a,GPU-b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [slot[VISIBLE] for slot in device_slots("auto", None, None)] == ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    ("folds", "reason"),
    [
        (("0", "00"), "more than once"),
        (("0", "9"), "fold 9 does not exist"),
        (("0", "1", "--show-config"), "expected one"),
        (("0_seed1", "--seeds", "2"), "found the fold 0_seed1, which is one seed of 0"),
        (("0", "1", "--gpus", "3"), "--set batch_size=3"),
    ],
)
def test_what_is_wrong_with_a_fold_is_said_before_any_begins(root, folds, reason):
    done = run_command("train", "1", *folds, "--name", "wrong", *SHORT, root=root)
    assert done.returncode == 2 and reason in done.stderr
    assert not run_of(root, "wrong").exists()


@pytest.fixture(scope="module")
def members(root) -> dict[str, Path]:
    """Folds 0 and all with two seeds each, of which ``0_seed1`` fails at first: name -> folder."""
    folders = {name: run_of(root, "some") / f"fold_{name}" for name in ("0", "0_seed1", "all", "all_seed1")}
    folders["0_seed1"].parent.mkdir(parents=True)
    folders["0_seed1"].write_text("a file where a folder belongs")
    return folders


@pytest.mark.slow
def test_a_fold_that_fails_does_not_stop_the_others_and_resume_does_the_rest(root, members):
    line = ("train", "1", "0", "all", "--seeds", "2", "--name", "some")
    done = run_command(*line, "--seed", "5", "--jobs", "2", *SHORT, root=root)
    assert done.returncode == 1, done.stderr
    assert "1 of 4 folds not finished: fold 0_seed1. Go on" in done.stderr
    rows = {cells[1].strip(): cells[2:] for row in done.stdout.splitlines() if len(cells := row.split("│")) > 4}
    results = [rows[name][0].split()[0] for name in members]
    assert results == ["finished", "error:", "finished", "finished"], done.stdout
    assert "trained 2 iterations" in members["0"].with_suffix(".log").read_text(encoding="utf-8")
    command = done.stderr.strip().rpartition("Go on with what is not finished: autoseg_train ")[2].split()
    assert command[:2] == ["1", "0_seed1"] and "--resume" in command and "--seeds" not in command

    members["0_seed1"].unlink()
    stamp = (members["0"] / "checkpoint_final.pt").stat().st_mtime_ns
    again = run_command(*line, "--seed", "5", "--resume", "--json", *SHORT, root=root)
    assert again.returncode == 0, again.stderr
    assert (members["0"] / "checkpoint_final.pt").stat().st_mtime_ns == stamp
    scores = json.loads(again.stdout)
    assert list(scores) == [*members] and all("foreground_mean" in value for value in scores.values())
    nothing = run_command("train", "1", "0", "all", "--name", "some", "--resume", *SHORT, root=root)
    assert nothing.returncode == 0 and nothing.stdout.count("was finished") == 2

    loaded = {name: load_checkpoint(folder / "checkpoint_final.pt") for name, folder in members.items()}
    assert {name: item.training["seed"] for name, item in loaded.items()} == {
        "0": 5, "0_seed1": 6, "all": 5, "all_seed1": 6
    }  # fmt: skip
    for fold in ("0", "all"):
        first, second = loaded[fold], loaded[f"{fold}_seed1"]
        assert first.plan == second.plan and first.trained_on == second.trained_on
        assert any(not torch.equal(value, second.weights[name]) for name, value in first.weights.items())
    assert Predictor.load(run_of(root, "some"), device="cpu").model.folds == ("0", "0_seed1")
    model = Predictor.load(run_of(root, "some"), ["all"], "cpu").model
    assert model.folds == ("all", "all_seed1") and member_kind([model.folds]) == "seeds"
    space = Workspace(root)
    data = Dataset.load(space.find_dataset("1"))
    for seed in (None, 5):  # of the checkpoint, or given again
        options = RunOptions("all_seed1", name="some", resume=True, seed=seed, settings=SETTINGS[1:])
        assert prepare_fold(space, data, options).config.seed == 6


def test_a_further_seed_is_added_to_that_which_is_given(root):
    space = Workspace(root)
    new = prepare_fold(space, Dataset.load(space.find_dataset("1")), RunOptions("00_seed3", settings=["seed=4"]))
    assert (new.config.seed, new.folder.name, new.fold) == (7, "fold_0_seed3", "0_seed3")
    assert new.origins["seed"] == "fold 0_seed3"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_all_folds_that_run_and_begins_no_other(root, number):
    name = number.name
    command = [sys.executable, "-m", "autoseg.cli.train", "1", "0", "1", "2", "--jobs", "2", "--name", name]
    process = subprocess.Popen(
        [*command, *ENDLESS, "--root", str(root)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True,
    )  # fmt: skip
    latest = [run_of(root, name) / f"fold_{fold}" / "checkpoint_latest.pt" for fold in (0, 1)]
    end = time.monotonic() + 120
    while not all(path.is_file() for path in latest):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    os.killpg(process.pid, number)  # as Ctrl-C does
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert out.count("stopped") == 2 and out.count("not begun") == 1
    assert "Not finished: folds 0, 1, 2" in errors and "Traceback" not in errors
    for path in latest:
        text = path.parent.with_suffix(".log").read_text(encoding="utf-8")
        assert text.count("Saved after iteration") == 1
        assert f"Saved after iteration {load_checkpoint(path).state['progress']['iteration']} " in text
