"""``autoseg_train`` as several processes, started as users do: what stops, kills and restarts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from command_line import run_command
from toy import write_toy_dataset

from autoseg.cli.processes import Place
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset

SETTINGS = ("--set", "precision=float32", "validation_iterations=1", "batch_size=2")
ENDLESS = ("--iterations", "1000000", "-j", "0", *SETTINGS, "iterations_per_epoch=5")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, toy_preparation: Callable[[Dataset, Workspace], None]) -> Path:
    """A workspace with a small planned and preprocessed data set."""
    root = tmp_path_factory.mktemp("processes")
    folder = write_toy_dataset(root / "raw" / "Dataset001_Toy")
    toy_preparation(Dataset.load(folder), Workspace(root))
    return root


def line(root: Path, name: str, *arguments: str, starter: Sequence[str] = (sys.executable,)) -> list[str]:
    command = [*starter, "-m", "autoseg.cli.train", "1", "0", "--root", str(root), "--name", name, "--device", "cpu"]
    return [*command, *arguments]


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        start_new_session=True,
    )  # fmt: skip


def run_folder(root: Path, name: str) -> Path:
    return root / "results" / "Dataset001_Toy" / f"{name}__3d_fullres" / "fold_0"


def wait_for(is_there: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not is_there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def ranks_of(process: subprocess.Popen[str], rank: int) -> list[int]:
    """Return the ids of the processes below ``process`` that are told to be ``rank``."""
    ids = []
    for folder in Path("/proc").iterdir():
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if f"RANK={rank}".encode() in environment and parent == str(process.pid):
            ids.append(int(folder.name))
    return ids


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_environment_says_which_process_this_is(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert Place.from_environment() == Place()
    assert Place().device("cuda:1") == "cuda:1" and Place().workers(3) == 3
    for name, value in (("RANK", 5), ("WORLD_SIZE", 8), ("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 4)):
        monkeypatch.setenv(name, str(value))
    place = Place.from_environment()
    assert (place.rank, place.local_rank, place.is_first, place.is_started) == (5, 1, False, True)
    assert place.device("cpu") == "cpu"
    assert [place.workers(n) for n in (0, 1, 4, 9)] == [0, 1, 1, 2]


def test_more_gpus_than_there_are_are_refused(root):
    done = run_command("train", "1", "0", "--gpus", "99", root=root)
    assert done.returncode == 2
    assert "--gpus 99" in done.stderr and "--device cpu" in done.stderr


def test_fewer_patches_than_processes_are_refused(root):
    done = run_command("train", "1", "0", "--gpus", "3", "--device", "cpu", "--set", "batch_size=2", root=root)
    assert done.returncode == 2
    assert "--set batch_size=3" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("by", ["gpus", "torchrun"])
def test_two_processes_train_validate_and_speak_once(root, by):
    starter = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    arguments = ["--iterations", "6", "-j", "1", "--json", *SETTINGS, "iterations_per_epoch=3"]
    arguments = [*(["--gpus", "2"] if by == "gpus" else []), *arguments]
    process = start(line(root, by, *arguments, starter=[sys.executable] if by == "gpus" else starter))
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "foreground_mean" in json.loads(out)
    assert errors.count("trained 6 iterations") == 1
    training = json.loads((run_folder(root, by) / "training.json").read_text(encoding="utf-8"))
    assert training["ranks"] == 2
    assert (run_folder(root, by) / "validation" / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_a_signal_saves_once_and_the_run_goes_on(root):
    process = start(line(root, "signal", "--gpus", "2", *ENDLESS))
    folder = run_folder(root, "signal")
    wait_for((folder / "checkpoint_latest.pt").is_file, process)
    children = [*ranks_of(process, 0), *ranks_of(process, 1)]
    assert len(children) == 2
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.count("Saved after iteration") == 1 and "--gpus 2 --device cpu --resume" in errors
    assert "Traceback" not in errors
    assert not any(map(is_alive, children))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_a_process_that_dies_ends_all_with_a_message(root):
    process = start(line(root, "dies", "--gpus", "2", *ENDLESS))
    wait_for((run_folder(root, "dies") / "checkpoint_latest.pt").is_file, process)
    first, second = *ranks_of(process, 0), *ranks_of(process, 1)
    os.kill(second, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "process 1 of 2 was killed by SIGKILL" in errors
    assert "another process of this training has ended" in errors and "--resume" in errors
    assert "Traceback" not in errors
    assert not is_alive(first)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_processes_save_and_end_when_their_starter_is_killed(root):
    process = start(line(root, "orphans", "--gpus", "2", *ENDLESS))
    wait_for((run_folder(root, "orphans") / "checkpoint_latest.pt").is_file, process)
    children = [*ranks_of(process, 0), *ranks_of(process, 1)]
    process.kill()
    process.communicate()  # until the last of them has closed its output
    end = time.monotonic() + 60
    while any(map(is_alive, children)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(is_alive, children))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_processes_that_torchrun_starts_again_go_on(root):
    starter = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    arguments = ["--overwrite", "--iterations", "40", "-j", "0", *SETTINGS, "iterations_per_epoch=5"]
    process = start(line(root, "elastic", *arguments, starter=starter))
    folder = run_folder(root, "elastic")
    wait_for((folder / "checkpoint_latest.pt").is_file, process)
    os.kill(ranks_of(process, 1)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    records = [json.loads(text) for text in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["iteration"] for record in records] == list(range(5, 41, 5))
