"""What the command makes of little memory and of workers that are killed."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from toy import write_toy_dataset

from autoseg.cli import plan_and_preprocess as command
from autoseg.core import resources

DRIVER = """
import os, signal
from autoseg.cli import plan_and_preprocess as command
from autoseg.preprocessing import runner

whole = runner.preprocess

def preprocess(case, *arguments, **options):
    if case.name == "toy_001":
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(case, *arguments, **options)

runner.preprocess = preprocess  # in the workers too, which import this script

if __name__ == "__main__":
    command.main()
"""


def test_a_killed_worker_costs_its_case_which_is_named_at_the_end(tmp_path):
    raw = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=4)
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    arguments = [sys.executable, str(script), str(raw), "--root", str(tmp_path / "root"), "-j", "2", "-c", "3d_fullres"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "3d_fullres: 3 cases preprocessed, 0 were up to date" in done.stderr
    *_, summary, missing = done.stderr.splitlines()
    assert summary == "failed: 1 cases could not be preprocessed; another run does only what is missing."
    assert "'toy_001': found its worker process dead, expected a result. It was killed, most often for" in missing
    cache = tmp_path / "root" / "preprocessed" / "Dataset900_Toy" / "3d_fullres"
    assert sorted(path.stem for path in cache.glob("*.json")) == ["toy_000", "toy_002", "toy_003"]
    assert not list(cache.glob("toy_001*")) and not list(cache.glob(".*"))


@pytest.fixture
def three_gb_free(monkeypatch):
    """A machine of 8 cores and 3 GB beside the reserve."""
    monkeypatch.setattr(resources, "free_memory", lambda: 3_000_000_000 + resources.RESERVE)
    monkeypatch.setattr("autoseg.core.parallel.available_cores", lambda: 8)


def test_as_many_processes_as_memory_holds(three_gb_free, caplog):
    with caplog.at_level(logging.INFO):
        assert command.fitting_workers(None, 1_000_000_000, n_cases=20) == 3
        assert command.fitting_workers(None, 1_000_000_000, n_cases=2) == 2
        assert command.fitting_workers(None, 1_000_000, n_cases=20) == 8
    assert caplog.messages == ["3 processes on 8 cores: the largest case needs about 1.0 GB"]


def test_more_processes_than_memory_holds_are_the_users_wish_with_a_warning(three_gb_free, caplog):
    assert command.fitting_workers(6, 1_000_000_000, n_cases=20) == 6
    assert command.fitting_workers(6, 1_000_000_000, n_cases=3) == 3, "no more processes than cases"
    (warning,) = caplog.messages
    assert warning.startswith("6 processes, each of which needs about 1.0 GB for the largest case")
