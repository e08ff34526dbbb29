"""Killed workers cost one case, and files that have not changed are not read again."""

from __future__ import annotations

import subprocess
import sys

import pytest
from toy import write_toy_dataset

from autoseg.cli import plan_and_preprocess as command
from autoseg.io import file_formats

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
    done = subprocess.run(arguments, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert "3d_fullres: 3 cases preprocessed, 0 were up to date" in done.stderr
    *_, summary, missing = done.stderr.splitlines()
    assert summary == "failed: 1 case could not be preprocessed; another run does only what is missing."
    assert "'toy_001': found its worker process dead, expected a result. It was killed, most often for" in missing
    cache = tmp_path / "root" / "preprocessed" / "Dataset900_Toy" / "3d_fullres"
    assert sorted(path.stem for path in cache.glob("*.json")) == ["toy_000", "toy_002", "toy_003"]
    assert not list(cache.glob("toy_001*")) and not list(cache.glob(".*"))


@pytest.mark.parametrize(
    "options",
    ["-c 2d", "--planner nonsense", "--gpu-memory-gb 8", "--plan-of .", "--replan", "--set network.levels=4"],
)
def test_a_check_refuses_options_that_only_planning_uses(options, tmp_path, monkeypatch, capsys):
    line = ["autoseg_plan_and_preprocess", str(tmp_path), "--check-only", *options.split()]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2
    assert f"{options.split()[0]}: found with --check-only" in capsys.readouterr().err


def test_a_touched_label_has_its_case_read_and_preprocessed_and_no_other(tmp_path, monkeypatch, capsys):
    raw = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=3, shape=(20, 30, 30), sparse=False)
    arguments = ["autoseg_plan_and_preprocess", str(raw), "--root", str(tmp_path / "root"), "-j", "1", "-c", "2d"]

    def run() -> tuple[set[str], str]:
        read: set[str] = set()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", arguments)
            counted = file_formats._NIFTI._replace(
                read=lambda path: read.add(path.name) or file_formats.read_nifti(path)
            )
            patched.setitem(file_formats.FORMATS, ".nii.gz", counted)
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
