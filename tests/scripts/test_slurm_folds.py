"""The script of the SLURM array, with SLURM's own programs and signals played by the test."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import write_toy_dataset

from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.nn.checkpoint import load_checkpoint

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_folds.sh"
OBEDIENT = "trap 'exit 130' TERM; echo \"$@\" >> arguments; while true; do sleep 0.05; done"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the programs that the script calls."""
    write_program(tmp_path / "scontrol", 'echo "$@" >> requeued')
    return tmp_path


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def start(place: Path, task: int, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "PATH": f"{place}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": "77",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8",
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "queued_again"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)], ids=["time limit", "cancelled"]
)
def test_the_time_limit_queues_again_and_a_cancellation_does_not(place, number, queued_again):
    write_program(place / "autoseg_train", OBEDIENT)
    process = start(place, 3, "Dataset001_Heart", "--name", "two words")
    wait_for(place / "arguments", process)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert (place / "arguments").read_text() == "Dataset001_Heart 3 --name two words --resume\n"
    assert (place / "requeued").exists() == queued_again
    if queued_again:
        assert (place / "requeued").read_text() == "requeue 77\n"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_fold_that_ends_by_itself_is_not_queued_again(place, code):
    write_program(place / "autoseg_train", f'echo "$@" >> arguments; exit {code}')
    process = start(place, 5, "1")
    process.communicate(timeout=60)
    assert process.returncode == code
    assert (place / "arguments").read_text() == "1 all --resume\n"
    assert not (place / "requeued").exists()


@pytest.mark.slow
def test_a_training_goes_on_after_the_time_limit(place, toy_preparation):
    toy_preparation(Dataset.load(write_toy_dataset(place / "raw" / "Dataset001_Toy")), Workspace(place))
    write_program(place / "autoseg_train", f'exec {shlex.quote(sys.executable)} -m autoseg.cli.train "$@"')
    settings = ["--set", "iterations_per_epoch=5", "validation_iterations=1", "precision=float32"]
    options = ["1", "--root", str(place), "--device", "cpu", "-j", "0", "--iterations", "1000000", *settings]
    latest = place / "results" / "Dataset001_Toy" / "default__3d_fullres" / "fold_0" / "checkpoint_latest.pt"
    process = start(place, 0, *options)
    wait_for(latest, process)
    process.send_signal(signal.SIGUSR1)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Saved after iteration" in text
    assert (place / "requeued").exists()
    before = load_checkpoint(latest).state["progress"]["seconds"]
    again = start(place, 0, *options, "--max-runtime", f"{before + 0.5:.3f}s")
    text, _ = again.communicate(timeout=200)
    assert again.returncode == 0, text
    assert (latest.parent / "validation" / "summary.json").is_file()
