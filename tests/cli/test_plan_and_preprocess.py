"""What the command makes of little memory and of workers that are killed."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from toy import write_toy_dataset

from autoseg.cli import plan_and_preprocess as command
from autoseg.core import resources
from autoseg.io import images

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


@pytest.mark.slow
def test_a_killed_worker_costs_its_case_which_is_named_at_the_end(tmp_path):
    raw = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=4)
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    arguments = [sys.executable, str(script), str(raw), "--root", str(tmp_path / "root"), "-j", "2", "-c", "3d_fullres"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "3d_fullres: 3 cases preprocessed, 0 were up to date" in done.stderr
    *_, summary, missing = done.stderr.splitlines()
    assert summary == "failed: 1 case could not be preprocessed; another run does only what is missing."
    assert "'toy_001': found its worker process dead, expected a result. It was killed, most often for" in missing
    cache = tmp_path / "root" / "preprocessed" / "Dataset900_Toy" / "3d_fullres"
    assert sorted(path.stem for path in cache.glob("*.json")) == ["toy_000", "toy_002", "toy_003"]
    assert not list(cache.glob("toy_001*")) and not list(cache.glob(".*"))


def test_a_touched_label_has_its_case_read_and_preprocessed_and_no_other(tmp_path, monkeypatch, capsys):
    raw = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=3, shape=(20, 30, 30), sparse=False)
    arguments = ["autoseg_plan_and_preprocess", str(raw), "--root", str(tmp_path / "root"), "-j", "1", "-c", "2d"]

    def run() -> tuple[set[str], str]:
        read: set[str] = set()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", arguments)
            counted = images._NIFTI._replace(read=lambda path: read.add(path.name) or images.read_nifti(path))
            patched.setitem(images._FORMATS, ".nii.gz", counted)
            with pytest.raises(SystemExit) as left:
                command.main()
        assert left.value.code == 0
        return read, capsys.readouterr().err

    run()
    assert run()[0] == set()
    (raw / "labelsTr" / "toy_001.nii.gz").touch()
    read, said = run()
    assert read == {"toy_001.nii.gz", "toy_001_0000.nii.gz"}
    assert "2d: 1 cases preprocessed, 2 were up to date" in said


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
    assert warning.startswith("6 processes need about 1.0 GB each")
