"""What can go wrong in a training, caused from outside while the command runs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import run_command
from toy import write_toy_dataset

from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.training.run_checkpoints import FINAL, LATEST, PREVIOUS

resource = pytest.importorskip("resource")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(resource, "prlimit") or not Path("/proc/self").exists(), reason="not Linux"),
]
SETTINGS = ("--set", "precision=float32", "iterations_per_epoch=5", "validation_iterations=1", "batch_picture=0")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, toy_preparation) -> Path:
    root = tmp_path_factory.mktemp("causes")
    toy_preparation(Dataset.load(write_toy_dataset(root / "raw" / "Dataset001_Toy")), Workspace(root))
    return root


def start(root: Path, name: str, iterations: int, *options: str) -> subprocess.Popen[str]:
    line = ["1", "0", "--root", str(root), "--name", name, "--device", "cpu", "--iterations", str(iterations)]
    return subprocess.Popen(
        [sys.executable, "-m", "autoseg.cli.train", *line, *options, *SETTINGS],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return exit code and what was printed to stderr."""
    _, errors = process.communicate(timeout=400)
    assert "Traceback" not in errors, errors
    return process.returncode, errors


def fold(root: Path, name: str) -> Path:
    return root / "results" / "Dataset001_Toy" / f"{name}__3d_fullres" / "fold_0"


def wait_for(is_there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 200
    while not is_there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def children(process: int) -> list[int]:
    ids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            ids.append(int(folder.name))
    return ids


def workers(process: int) -> list[int]:
    """Return the processes that the server of a training has started."""
    return [worker for child in children(process) for worker in children(child)]


def iteration(folder: Path) -> int:
    return int(load_checkpoint(folder / LATEST).state["progress"]["iteration"])


def test_a_second_training_in_the_same_folder_is_refused(root):
    process = start(root, "held", 100_000, "-j", "0")
    wait_for((fold(root, "held") / LATEST).is_file, process)
    second = run_command("train", "1", "0", "--name", "held", "--resume", "--device", "cpu", "-j", "0", root=root)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 130
    assert second.returncode == 2 and f"process {process.pid} on" in second.stderr


def test_a_killed_worker_is_replaced(root):
    process = start(root, "hurt", 60, "-j", "2")
    wait_for(lambda: workers(process.pid), process)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    code, errors = finish(process)
    assert code == 0, errors
    assert "a worker process died" in errors and "toy_00" in errors and "The workers are started again" in errors
    code, errors = finish(start(root, "whole", 60, "-j", "0"))
    assert code == 0, errors
    one, other = (load_checkpoint(fold(root, name) / FINAL).weights for name in ("hurt", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_full_disk_ends_the_run_and_keeps_what_was_saved(root):
    process = start(root, "full", 100_000, "-j", "0")
    folder = fold(root, "full")
    wait_for((folder / PREVIOUS).is_file, process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    code, errors = finish(process)
    assert code == 1, errors
    assert "cannot be written" in errors and "Existing files are unchanged" in errors
    assert "Once there is room, go on from there: autoseg_train" in errors and "--resume" in errors
    assert not list(folder.glob(".*.tmp.*"))
    assert max(int(load_checkpoint(folder / PREVIOUS).state["progress"]["iteration"]), iteration(folder)) >= 5


def test_a_damaged_latest_checkpoint_is_passed_over(root):
    process = start(root, "latest", 100_000, "-j", "0")
    folder = fold(root, "latest")
    wait_for((folder / PREVIOUS).is_file, process)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 130
    before = int(load_checkpoint(folder / PREVIOUS).state["progress"]["iteration"])
    content = bytearray((folder / LATEST).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / LATEST).write_bytes(content)
    code, errors = finish(start(root, "latest", 100_000, "-j", "0", "--resume", "--max-runtime", "1s"))
    assert code == 0, errors
    assert (
        "wrong checksum in its part" in errors and errors.count(f". Going on from {PREVIOUS}, iteration {before}") == 1
    )
    assert load_checkpoint(folder / PREVIOUS).weights and iteration(folder) >= before


@pytest.mark.parametrize(("kind", "damage"), [("image", "cut"), ("image", "flipped"), ("target", "flipped")])
def test_a_damaged_file_of_the_cache_is_named_and_what_is_said_helps(root, kind, damage):
    cache = root / "preprocessed" / "Dataset001_Toy" / "3d_fullres"
    for name in ("toy_000", "toy_001", "toy_002", "toy_003", "toy_004"):  # whichever are drawn first
        path = cache / f"{name}.{kind}.npy"
        content = bytearray(path.read_bytes())
        if damage == "cut":
            content = content[: len(content) // 2]
        else:
            content[256:] = b"\xff" * (len(content) - 256)
        path.write_bytes(content)
    process = start(root, f"{kind}_{damage}", 10, "-j", "1")
    code, errors = finish(process)
    assert code == 2, errors
    assert "toy_00" in errors
    for text in errors.split("Remove ")[1:]:
        Path(text.split(", so that")[0]).unlink()
    command = errors.strip().rpartition("Type: " if damage == "flipped" else "Run ")[2]
    assert shlex.split(command)[0] == "autoseg_plan_and_preprocess"
    for name in ("toy_000", "toy_001", "toy_002", "toy_003", "toy_004"):
        (cache / f"{name}.json").unlink(missing_ok=True)  # the others of this test
    made = run_command("plan_and_preprocess", *shlex.split(command)[1:], "-j", "1")
    assert made.returncode == 0, made.stderr
    assert finish(start(root, f"{kind}_{damage}", 10, "-j", "0", "--overwrite"))[0] == 0
