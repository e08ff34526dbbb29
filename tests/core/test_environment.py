"""The record of software and hardware."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import autoseg
from autoseg.core.environment import Environment, command_line, git_state


def test_versions_and_hardware_are_named():
    environment = Environment.of("")
    assert environment.versions["autoseg"] == autoseg.__version__
    assert {"python", "numpy", "torch"} <= environment.versions.keys()
    assert environment.device and environment.cores >= 1
    assert Environment.of("some GPU").device == "some GPU"


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["/env/bin/autoseg_train", "4", "0", "--set", "seed=1"], "autoseg_train 4 0 --set seed=1"),
        (
            [str(Path(autoseg.__file__).parent / "cli" / "predict.py"), "-i", "my images"],
            "autoseg_predict -i 'my images'",
        ),
        (["fit.py"], "fit.py"),
        (["-c", "1"], "python 1"),
        ([""], "python"),
    ],
)
def test_the_command_line_can_be_pasted_into_a_shell(monkeypatch, argv, shown):
    monkeypatch.setattr("sys.argv", argv)
    assert command_line() == shown


def test_the_state_of_a_checkout_is_its_commit_and_whether_files_changed(tmp_path):
    git = shutil.which("git")
    if git is None:
        pytest.skip("no git")
    assert git_state(tmp_path) is None
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    (tmp_path / "file").write_text("a")
    for arguments in (["init", "-q"], ["add", "file"], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run([git, "-C", str(tmp_path), *arguments], check=True)
    commit = git_state(tmp_path)
    assert commit is not None and len(commit) == 40
    (tmp_path / "file").write_text("b")
    assert git_state(tmp_path) == f"{commit}+changes"
