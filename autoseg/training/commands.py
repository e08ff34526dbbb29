"""Commands that steer a training: their names, and the folder through which they reach a run of another process."""

from __future__ import annotations

import difflib
import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.atomic import write_text
from autoseg.core.errors import ConfigError

log = logging.getLogger(__name__)

MAILBOX = "commands"
"""Folder in that of a run which holds commands from outside and the answers to them."""
POLL_S = 0.2
"""Seconds between two looks for an answer."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Spelling and effect of a command."""

    argument: str
    """Empty if the command takes none; in brackets if it may be left out."""
    help: str


COMMANDS: dict[str, Usage] = {
    "q": Usage("", "leave the console and go on with the training"),
    "status": Usage("", "iteration, loss, Dice, learning rate, speed, remaining time"),
    "abort": Usage("", "save and end the training, which --resume can go on with"),
    "kill": Usage("", "end the training without saving; the latest checkpoint stays"),
    "save": Usage("[FILE]", "write a checkpoint: the latest, or one of this name in the folder of the run"),
    "load": Usage("FILE", "take weights and optimiser from a checkpoint of this run"),
    "setlr": Usage("RATE", "set the learning rate; the schedule goes on from it"),
    "setmom": Usage("MOMENTUM", "set the momentum of the optimiser"),
    "sethist": Usage("STEPS", "set the number of steps between two lines of history.jsonl"),
    "optimizer": Usage("NAME", "go on with another optimiser, its state new"),
    "set": Usage("KEY VALUE", "change a setting of training.json that may change while it runs"),
    "params": Usage("", "size, mean, deviation and largest value of the weights, layer by layer"),
    "batch": Usage("", "write a picture of the patches of the next batch"),
    "eval": Usage("", "validate now"),
    "preview": Usage("", "predict the preview cases and write them as pictures"),
    "print": Usage("ATTRIBUTE", "show an attribute of the run, such as config.optimizer or progress.iteration"),
    "python": Usage("CODE", "run a line of Python, where the training is `run`; in a console with --console-python"),
    "help": Usage("", "list these commands"),
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a user."""

    name: str
    """Key of ``COMMANDS``."""
    argument: str = ""


def parse_command(text: str) -> Command:
    """Read one line: a name of ``COMMANDS`` and its argument.

    Raises ``ConfigError`` for a name that is not known, with the nearest ones, for an argument that is missing, and for
    one where the command takes none.
    """
    name, _, argument = text.strip().partition(" ")
    argument = argument.strip()
    usage = COMMANDS.get(name)
    if usage is None:
        nearest = difflib.get_close_matches(name, COMMANDS, 3)
        raise ConfigError(f"{text!r}: no such command. {_advice(nearest)}")
    if bool(argument) > bool(usage.argument) or (usage.argument and not argument and usage.argument[0] != "["):
        raise ConfigError(f"{text!r}: expected {' '.join([name, usage.argument]).strip()} ({usage.help}).")
    return Command(name, argument)


def help_text() -> str:
    """Return one line for each command."""
    forms = {name: f"{name} {usage.argument}".rstrip() for name, usage in COMMANDS.items()}
    width = max(map(len, forms.values()))
    return "\n".join(f"{forms[name]:{width}}  {usage.help}" for name, usage in COMMANDS.items())


@dataclass(frozen=True, slots=True)
class Letter:
    """A command that came from another process."""

    key: str
    """Name of its file without the ending."""
    text: str


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Folder through which ``autoseg_ctl`` sends commands to a training, and gets its answers.

    A command is a file KEY.command.json, an answer KEY.answer.json; both appear whole. Keys ascend in time. Nothing in
    them is executed: a command is one of ``COMMANDS``.
    """

    folder: Path

    def send(self, text: str) -> str:
        """Leave a command; return its key."""
        key = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        write_text(self.folder / f"{key}.command.json", json.dumps(text))
        return key

    def receive(self) -> Sequence[Letter]:
        """Take all commands that lie there, the oldest first; none if the folder is not there.

        A file that cannot be read is removed with a warning: it must not end the training.
        """
        letters = []
        for path in sorted(self.folder.glob("*.command.json")):
            if path.name.startswith("."):  # being written
                continue
            try:
                text = str(json.loads(path.read_text("utf-8")))
            except FileNotFoundError:  # taken back meanwhile
                continue
            except (OSError, ValueError) as error:
                log.warning("%s: no command (%s), removed", path, error)
                path.unlink(missing_ok=True)
                continue
            if _remove(path):
                letters.append(Letter(path.name.removesuffix(".command.json"), text))
        return letters

    def answer(self, key: str, text: str) -> None:
        """Leave the answer to a command."""
        write_text(self.folder / f"{key}.answer.json", json.dumps(text))

    def wait(self, key: str, timeout_s: float) -> str | None:
        """Take the answer to a command; None if none comes in time."""
        path = self.folder / f"{key}.answer.json"
        end = time.monotonic() + timeout_s
        while not path.is_file():
            if time.monotonic() >= end:
                return None
            time.sleep(POLL_S)
        text = str(json.loads(path.read_text(encoding="utf-8")))
        path.unlink()
        return text

    def take_back(self, key: str) -> bool:
        """Remove a command; return False if the training has taken it, and so obeys it."""
        return _remove(self.folder / f"{key}.command.json")

    def clear(self, before_ns: int) -> None:
        """Remove the commands and answers of what was sent before a time, nanoseconds since 1970."""
        for path in self.folder.glob("*.json"):
            if path.name < f"{before_ns:020d}" and not path.name.startswith("."):
                path.unlink(missing_ok=True)


def _remove(path: Path) -> bool:
    """Remove a file; return whether it was there, which of two processes only one is told."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _advice(nearest: Sequence[str]) -> str:
    return f"Did you mean {' or '.join(nearest)}?" if nearest else "Type help for the list of commands."
