from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import run_command
from toy import write_toy_dataset

from autoseg.cli import threads
from autoseg.cli.threads import THREADS, share_of_threads
from autoseg.core import parallel
from autoseg.core.parallel import available_cores, free_cores
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset

SHORT = (
    "1", "0", "--device", "cpu", "-j", "0", "--iterations", "2", "--set", "precision=float32",
    "validation_iterations=1", "batch_size=2",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, toy_preparation, monkeypatch) -> Path:
    """A prepared data set; threads are chosen by nobody before the test, and are as before after it."""
    toy_preparation(Dataset.load(write_toy_dataset(tmp_path / "raw" / "Dataset001_Toy")), Workspace(tmp_path))
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.setattr(threads, "use_threads", torch.set_num_threads)
    before = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(before)


def threads_of_run(root: Path) -> list[int]:
    path = root / "results" / "Dataset001_Toy" / "default__3d_fullres" / "fold_0" / "training.json"
    return [entry["threads"] for entry in json.loads(path.read_text())["environments"]]


@pytest.mark.parametrize(
    ("idle", "free"), [((100, 100), 2), ((95, 10), 1), ((90, 70), 2), ((3, 2), 1), ((0, 0), 1)], ids=str
)
def test_the_free_cores_are_those_that_had_nothing_to_do(monkeypatch, idle, free):
    ticks = iter([{0: (500, 1000), 1: (700, 900)}, {0: (500 + idle[0], 1100), 1: (700 + idle[1], 1000)}])
    monkeypatch.setattr(parallel, "_idle_ticks", lambda: next(ticks))
    assert free_cores(0) == free


def test_all_cores_count_as_free_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(parallel, "_idle_ticks", lambda: None)
    assert free_cores(0) == available_cores()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc/stat")
def test_the_system_tells_of_every_core_that_may_be_used():
    ticks = parallel._idle_ticks()
    assert ticks is not None and len(ticks) == available_cores()
    assert all(0 <= idle <= whole for idle, whole in ticks.values())


@pytest.mark.slow
def test_a_new_run_takes_the_free_cores_and_keeps_their_number_when_it_goes_on(root, monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 4)
    monkeypatch.setattr(threads, "free_cores", lambda: 3)
    begun = run_command("train", *SHORT, root=root)
    assert begun.returncode == 0 and "computing with 3 of 4 threads" in begun.stderr
    assert threads_of_run(root) == [3]
    torch.set_num_threads(1)
    monkeypatch.setattr(threads, "free_cores", lambda: 1)
    later = run_command("train", *SHORT, "--resume", root=root)
    assert later.returncode == 0 and "threads" not in later.stderr
    assert threads_of_run(root) == [3]
    assert run_command("train", *SHORT, "--resume", "--threads", "2", root=root).returncode == 0
    assert threads_of_run(root) == [3, 2]


@pytest.mark.slow
@pytest.mark.parametrize("said", ["OMP_NUM_THREADS", "--deterministic"])
def test_a_run_does_not_look_at_other_programs_where_its_threads_are_said(root, monkeypatch, said):
    def look():
        raise AssertionError

    monkeypatch.setattr(threads, "free_cores", look)
    if said == THREADS:
        monkeypatch.setenv(THREADS, "1")
    assert run_command("train", *SHORT, *([said] if said != THREADS else []), root=root).returncode == 0


def test_processes_share_the_threads_that_are_given_and_otherwise_the_cores(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    assert [share_of_threads(size)[THREADS] for size in (1, 3, 16)] == ["8", "2", "1"]
    assert share_of_threads(2, 6) == {THREADS: "3"}
    monkeypatch.setenv(THREADS, "5")
    assert share_of_threads(2) == {} and share_of_threads(2, 6) == {THREADS: "3"}


def test_every_library_computes_with_the_threads_that_are_set():
    script = """
import json, scipy.linalg, torch
from threadpoolctl import threadpool_info
from autoseg.cli.threads import use_threads
use_threads(3)
print(json.dumps([library["num_threads"] for library in threadpool_info()] + [torch.get_num_threads()]))
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    numbers = json.loads(done.stdout)
    assert len(numbers) > 1 and set(numbers) == {3}
