"""The console of a training on a pseudo-terminal, and ``autoseg_ctl`` and ``autoseg_plot`` beside it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import run_command
from toy import write_toy_dataset

from autoseg.cli.console import TWICE_S, Signals
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.nn.checkpoint import load_checkpoint

LONG = (
    "--iterations", "100000", "--device", "cpu", "-j", "0", "--set", "iterations_per_epoch=20",
    "validation_iterations=1", "precision=float32",
)  # fmt: skip


class Terminal:
    """A training whose standard streams are a pseudo-terminal."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self.own, theirs = pty.openpty()
        self.text = ""
        environment = {**os.environ, "AUTOSEG_ROOT": str(root), "TERM": "dumb", "COLUMNS": "160"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autoseg.cli.train", "7", "0", *arguments, *LONG],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def wait_for(self, text: str, seconds: float = 120) -> str:
        """Read until ``text`` comes; return what was read since the last call."""
        end, read = time.monotonic() + seconds, ""
        while text not in read:
            assert time.monotonic() < end, f"no {text!r} in {self.text[-2000:]}"
            if select.select([self.own], [], [], 0.2)[0]:
                try:
                    part = os.read(self.own, 4096).decode(errors="replace")
                except OSError:  # the other end is closed
                    part = ""
                    assert text in read, self.text[-2000:]
                read += part
                self.text += part
        return read

    def type(self, line: str) -> str:
        """Type a command; return what the terminal shows until the next prompt."""
        os.write(self.own, f"{line}\n".encode())
        return self.wait_for("autoseg> ")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Return the exit code."""
        end = time.monotonic() + 120
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.own], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.own, 4096).decode(errors="replace")
                except OSError:
                    break
        return self.process.wait(60)


@pytest.fixture(scope="module")
def root(tmp_path_factory, toy_preparation) -> Path:
    root = tmp_path_factory.mktemp("console")
    folder = write_toy_dataset(root / "raw" / "Dataset007_Toy")
    toy_preparation(Dataset.load(folder), Workspace(root))
    return root


def fold(root: Path, name: str) -> Path:
    return root / "results" / "Dataset007_Toy" / f"{name}__3d_fullres" / "fold_0"


@pytest.mark.slow
def test_a_session_on_a_terminal(root):
    terminal = Terminal(root, "--name", "talked")
    folder = fold(root, "talked")
    while not (folder / "checkpoint_latest.pt").exists():
        if select.select([terminal.own], [], [], 0.2)[0]:
            terminal.text += os.read(terminal.own, 4096).decode(errors="replace")
        assert terminal.process.poll() is None, terminal.text
    terminal.interrupt()
    assert "iteration" in terminal.wait_for("autoseg> ")
    assert "learning rate 0.001" in terminal.type("setlr 0.001")
    assert "no such command" in terminal.type("setrl 0.1")
    assert "setlr RATE" in terminal.type("help")
    assert "saved mine.pt" in terminal.type("save mine")
    os.write(terminal.own, b"q\n")
    terminal.wait_for("going on")

    asked = run_command("ctl", folder, "print config.optimizer.learning_rate")
    assert asked.returncode == 0, asked.stderr
    assert float(asked.stdout) > 0
    wrong = run_command("ctl", folder, "setlr none")
    assert wrong.returncode == 2 and "a number above 0" in wrong.stderr

    time.sleep(TWICE_S + 0.1)
    terminal.interrupt()
    terminal.wait_for("autoseg> ")
    os.write(terminal.own, b"abort\n")
    assert terminal.end() == 130
    assert "--resume" in terminal.text and "Traceback" not in terminal.text
    latest = load_checkpoint(folder / "checkpoint_latest.pt")
    assert "optimizer.learning_rate" in latest.state["changes"][0]
    drawn = run_command("plot", folder, "-o", folder / "again.png")
    assert drawn.returncode == 0 and (folder / "again.png").stat().st_size > 0


@pytest.mark.slow
def test_ctrl_c_twice_saves_and_exits(root):
    terminal = Terminal(root, "--name", "twice")
    while not (fold(root, "twice") / "checkpoint_latest.pt").exists():
        time.sleep(0.1)
        if select.select([terminal.own], [], [], 0)[0]:
            terminal.text += os.read(terminal.own, 4096).decode(errors="replace")
        assert terminal.process.poll() is None, terminal.text
    terminal.interrupt()
    time.sleep(0.3)
    terminal.interrupt()
    assert terminal.end() == 130
    assert "Saved after iteration" in terminal.text and "Traceback" not in terminal.text


def received(*events: tuple[float, int], is_terminal: bool) -> Signals:
    clock = iter([at for at, _ in events])
    signals = Signals(is_terminal=is_terminal, clock=lambda: next(clock))
    for _, number in events:
        signals.receive(number, None)
    return signals


def test_one_ctrl_c_on_a_terminal_asks_for_a_console_and_two_end():
    one = received((0.0, signal.SIGINT), is_terminal=True)
    assert one.wants_console and not one.should_stop
    assert received((0.0, signal.SIGINT), (1.0, signal.SIGINT), is_terminal=True).should_stop
    late = received((0.0, signal.SIGINT), (2.5, signal.SIGINT), is_terminal=True)
    assert late.wants_console and not late.should_stop


@pytest.mark.parametrize(("number", "is_terminal"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_other_signals_end_and_once_more_interrupts(number, is_terminal):
    signals = received((0.0, number), is_terminal=is_terminal)
    assert signals.should_stop and not signals.wants_console
    with pytest.raises(KeyboardInterrupt):
        signals.receive(number, None)


def test_a_closed_input_leaves_the_console(monkeypatch, capsys):
    def closed(_):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    signals = Signals(is_terminal=True)
    signals.talk(lambda text: text, lambda: False)
    assert not signals.should_stop and "going on" in capsys.readouterr().out


def test_ctl_and_plot_say_where_no_training_is(tmp_path):
    result = run_command("ctl", tmp_path, "status")
    assert result.returncode == 2 and "no training that runs here" in result.stderr
    assert run_command("ctl", tmp_path, "setrl 1").returncode == 2
    assert "setlr RATE" in run_command("ctl", tmp_path, "help").stdout
    drawn = run_command("plot", tmp_path)
    assert drawn.returncode == 2 and "history.jsonl" in drawn.stderr
