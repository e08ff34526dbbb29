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
from autoseg.training.commands import COMMANDS, MAILBOX, Mailbox
from autoseg.training.run_lock import is_running, locked

LONG = (
    "--iterations", "100000", "--device", "cpu", "-j", "0", "--set", "iterations_per_epoch=20",
    "validation_iterations=1", "precision=float32",
)  # fmt: skip
SESSION = (
    ("status", "iterations per second"),
    ("optimizer sgd", "sgd, its state new"),
    ("setlr 0.001", "learning rate 0.001"),
    ("setmom 0.5", "optimizer.momentum is 0.5"),
    ("sethist 15", "monitoring.history_freq is 15"),
    ("set weight_decay 0.125", "optimizer.weight_decay is 0.125"),
    ("save mine", "saved mine.pt"),
    ("load mine", "those of mine.pt"),
    ("params", "weights in"),
    ("batch", "the next batch is in batch_"),
    ("eval", "validation loss"),
    ("preview", "drawn in previews"),
    ("print config.optimizer.momentum", "0.5"),
    ("print progress", "Progress(iteration="),
    ("help", "setlr RATE"),
    ("setrl 0.1", "no such command"),
    ("setlr none", "a number above 0"),
    ("print config.model_dump()", "names joined by dots"),
)
"""Command lines, and what their answers have; all commands but those that end the training or leave the console."""
KEPT = {
    "print config.optimizer.name": "'sgd'", "print config.optimizer.momentum": "0.5",
    "print config.optimizer.weight_decay": "0.125", "print config.monitoring.history_freq": "15",
}  # fmt: skip
CHANGED = {"optimizer.name", "optimizer.learning_rate", "optimizer.momentum", "optimizer.weight_decay"} | {
    "monitoring.history_freq", "load",
}  # fmt: skip


def changed_keys(folder: Path) -> set[str]:
    changes = load_checkpoint(folder / "checkpoint_latest.pt").state["changes"]
    return {key for change in changes for key in change} - {"iteration"}


def test_the_sessions_have_every_command():
    assert {line.split()[0] for line, _ in SESSION} - {"setrl"} == set(COMMANDS) - {"q", "abort", "kill", "python"}


class Terminal:
    """A training whose standard streams are a pseudo-terminal."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self.own, theirs = pty.openpty()
        self.text = ""
        environment = {**os.environ, "AUTOSEG_ROOT": str(root), "TERM": "dumb", "COLUMNS": "160"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autoseg.cli.train", "7", "0", *LONG, *arguments],
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

    def wait_for_checkpoint(self, folder: Path) -> None:
        """Read until the training has written its first checkpoint."""
        while not (folder / "checkpoint_latest.pt").exists():
            if select.select([self.own], [], [], 0.2)[0]:
                self.text += os.read(self.own, 4096).decode(errors="replace")
            assert self.process.poll() is None, self.text

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
    terminal = Terminal(root, "--name", "talked", "--console-python", "-j", "1")
    folder = fold(root, "talked")
    terminal.wait_for_checkpoint(folder)
    terminal.interrupt()
    assert "iteration" in terminal.wait_for("autoseg> ")
    for line, answer in SESSION:
        assert answer in terminal.type(line), line
        if answer.startswith(("sgd", "learning rate", "optimizer", "monitoring", "those of")):
            assert f": {line}: " in terminal.text, f"{line} was not logged"
    assert "n = 20" in terminal.type("python n = run.state.config.iterations_per_epoch; print(f'n = {n}')")
    assert "21" in terminal.type("python n + 1")
    assert "ZeroDivisionError" in terminal.type("python 1 / 0")  # its traceback must not hold the workers at the end
    os.write(terminal.own, b"q\n")
    terminal.wait_for("going on")
    assert "--console-python" in run_command("ctl", folder, "python 1").stderr

    time.sleep(TWICE_S + 0.1)
    terminal.interrupt()
    terminal.wait_for("autoseg> ")
    os.write(terminal.own, b"abort\n")
    assert terminal.end() == 130
    assert "--resume" in terminal.text
    assert changed_keys(folder) == CHANGED | {"python"}
    drawn = run_command("plot", folder, "-o", folder / "again.png")
    assert drawn.returncode == 0 and (folder / "again.png").stat().st_size > 0

    terminal = Terminal(root, "--name", "talked", "--resume")
    terminal.wait_for("training")
    terminal.interrupt()
    terminal.wait_for("autoseg> ")
    for line, answer in KEPT.items():
        assert answer in terminal.type(line), line
    assert "no command executes code here" in terminal.type("python 1")
    os.write(terminal.own, b"kill\n")
    assert terminal.end() == 130
    assert "without saving" in terminal.text and "Traceback" not in terminal.text
    assert changed_keys(folder) == CHANGED | {"python"}


@pytest.mark.slow
def test_the_same_session_from_another_process(root):
    terminal = Terminal(root, "--name", "steered")
    folder = fold(root, "steered")
    terminal.wait_for_checkpoint(folder)
    for line, answer in (*SESSION, *KEPT.items(), ("python 1", "--console-python"), ("q", "going on")):
        asked = run_command("ctl", folder, line)
        is_wrong = line in ("setrl 0.1", "setlr none", "print config.model_dump()", "python 1")
        assert asked.returncode == (2 if is_wrong else 0), asked.stderr
        assert answer in (asked.stderr if is_wrong else asked.stdout), line
        while select.select([terminal.own], [], [], 0)[0]:  # or the training waits for its output
            terminal.text += os.read(terminal.own, 4096).decode(errors="replace")
    assert "saving and ending" in run_command("ctl", folder, "abort").stdout
    assert terminal.end() == 130
    assert changed_keys(folder) == CHANGED
    resumed = Terminal(root, "--name", "steered", "--resume")
    while not is_running(folder):
        time.sleep(0.05)
    for line, answer in (*KEPT.items(), ("kill", "without saving")):
        assert answer in run_command("ctl", folder, line).stdout, line
    assert resumed.end() == 130
    assert changed_keys(folder) == CHANGED


@pytest.mark.slow
def test_ctrl_c_twice_saves_and_exits(root):
    terminal = Terminal(root, "--name", "twice")
    terminal.wait_for_checkpoint(fold(root, "twice"))
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


def test_an_end_ends_the_wait_for_a_line_but_not_a_command(monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "load mine")
    signals, done = Signals(is_terminal=True), []

    def execute(text):
        if text == "load mine":
            signals.receive(signal.SIGTERM, None)
        done.append(text)
        return text

    signals.talk(execute, lambda: False)
    assert done == ["status", "load mine"] and signals.should_stop

    signals = Signals(is_terminal=True)
    monkeypatch.setattr("builtins.input", lambda _: signals.receive(signal.SIGTERM, None))
    signals.talk(str, lambda: False)
    assert signals.should_stop


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


def test_ctl_does_not_wait_for_a_training_that_has_ended(tmp_path):
    with locked(tmp_path):
        asking = subprocess.Popen(
            [sys.executable, "-m", "autoseg.cli.ctl", str(tmp_path), "status", "--wait", "100"],
            stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
        mailbox = Mailbox(tmp_path / MAILBOX)
        while not list(mailbox.folder.glob("*.command.json")):
            time.sleep(0.05)
    _, errors = asking.communicate(timeout=60)
    assert asking.returncode == 1 and "the training has ended. The command was taken back" in errors
    assert list(mailbox.receive()) == []
