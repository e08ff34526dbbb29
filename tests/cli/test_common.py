from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.cli import common
from autoseg.cli.preview import PreviewOptions, draw_preview
from autoseg.core.errors import ConfigError, DatasetError, Fault


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["D", "-c", "2d", "3d_fullres"], ["D", "-c", "2d", "-c", "3d_fullres"]),
        (["-c", "2d", "D"], ["-c", "2d", "D"]),
        (["-c", "2d", "3d_fullres", "--json", "D"], ["-c", "2d", "-c", "3d_fullres", "--json", "D"]),
        (["D"], ["D"]),
        (["D", "-c"], ["D", "-c"]),
        (["D", "-c", "wrong"], ["D", "-c", "wrong"]),
    ],
)
def test_an_option_takes_several_values_in_a_row(argv, expected):
    assert common.spread_lists(argv, {"-c": "2d|3d_fullres|3d_lowres"}) == expected


def raising(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            DatasetError([Fault("file: key", "1", "2", "Write 2.")]),
            2,
            "error: file: key: found 1, expected 2. Write 2.",
        ),
        (common.IncompleteError("two cases"), 1, "failed: two cases"),
        (common.StoppedError("Saved."), 130, "interrupted. Saved."),
        (KeyboardInterrupt(), 130, "interrupted."),
        (
            NotADirectoryError(20, "Not a directory", "out/x"),
            2,
            "error: out/x: cannot access: not a directory.",
        ),
        (PermissionError(13, "Permission denied", "out"), 2, "error: out: cannot access: permission denied."),
        (RuntimeError("bug"), 1, "RuntimeError: bug"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_end_has_its_exit_code(error, code, message, capsys):
    with pytest.raises(SystemExit) as left:
        common.run(raising(error), argv=[])
    assert left.value.code == code
    captured = capsys.readouterr().err
    assert message in captured
    assert ("Traceback" in captured) == isinstance(error, RuntimeError)


def test_several_faults_are_counted_and_listed_one_a_line(capsys):
    faults = [Fault(f"file {number}", "1", "2", "Write 2.") for number in range(3)]
    with pytest.raises(SystemExit):
        common.run(raising(DatasetError(faults)), argv=[])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "3 errors:"
    assert [line.strip().split(":")[0] for line in lines[1:]] == ["file 0", "file 1", "file 2"]


def test_the_workspace_is_the_flag_then_the_variable_then_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("AUTOSEG_ROOT", raising=False)
    assert common.workspace(None).root.name == "autoseg_workspace"
    monkeypatch.setenv("AUTOSEG_ROOT", str(tmp_path / "variable"))
    assert common.workspace(None).root == tmp_path / "variable"
    assert common.workspace(tmp_path / "flag").root == tmp_path / "flag"


def test_progress_is_about_ten_plain_lines_where_there_is_no_terminal(capsys):
    with common.progress("work") as report:
        for done in range(1, 101):
            report(done, 100, "x")
    assert capsys.readouterr().err.splitlines() == [f"work: {done}/100 x" for done in range(10, 101, 10)]
    with common.progress("work", quiet=True) as report:
        report(1, 1, "x")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": common.SPINS}),
        ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_of_a_command_soon_sleep_while_they_wait_unless_the_user_wants_otherwise(monkeypatch, given, expected):
    monkeypatch.setattr(os, "environ", dict(given))
    found = []
    with pytest.raises(SystemExit):
        common.run(lambda: found.append(dict(os.environ)), argv=[])
    assert found == [expected]


def test_no_command_imports_torch_before_the_waiting_of_its_threads_is_set():
    modules = Path(common.__file__).parent.glob("*.py")
    names = [path.stem for path in modules if "def main(" in path.read_text(encoding="utf-8")]
    assert "train" in names
    script = f"import importlib, sys\nfor name in {names}: importlib.import_module(f'autoseg.cli.{{name}}')"
    script += "\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_reader_that_leaves_early_sees_no_traceback():
    script = "from autoseg.cli import common\ndef much() -> None:\n    common.print_json([0] * 10**6)\ncommon.run(much)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b"stopped: found a broken pipe; the program that read the output has ended.\n"
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("options", "shown"), [({"quiet": True}, ["warning: w", "error: e"]), ({}, ["i", "warning: w", "error: e"])]
)
def test_quiet_still_tells_warnings(capsys, options, shown):
    common.set_up_logging(**options)
    log = logging.getLogger("autoseg.somewhere")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert capsys.readouterr().err.splitlines() == shown


@pytest.mark.parametrize(("name", "advice"), [("x.txt", "x.png"), ("x", "x.png"), ("", "picture.png")])
def test_pictures_are_written_to_png_files_alone(tmp_path, name, advice):
    options = PreviewOptions("none", None, "0", 8, 0, None, None, (), tmp_path / name, tmp_path, json=False)
    with pytest.raises(ConfigError, match=rf"expected a file that ends in \.png\. Write -o \S*{advice}"):
        draw_preview("augmentation", options)
    assert not list(tmp_path.iterdir())
    common.check_picture(tmp_path / "x.PNG")
    common.check_picture(None)
