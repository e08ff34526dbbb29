"""Signals that end a training, and the console that Ctrl-C opens on a terminal."""

from __future__ import annotations

import io
import signal
import sys
import time
from code import InteractiveInterpreter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from autoseg.cli.common import log, without_bars

TWICE_S = 2.0
"""A second Ctrl-C within this time saves and ends the training."""
PROMPT = "autoseg> "


class Signals:
    """Request of SIGINT and SIGTERM.

    On a terminal Ctrl-C asks for a console, and a second one within two seconds for an end. Otherwise each signal asks
    for an end. One more, once an end was asked for, interrupts at once.

    Parameters
    ----------
    is_terminal
        Whether a person sits there.
    clock
        Seconds that grow.
    """

    def __init__(self, *, is_terminal: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_terminal = is_terminal
        self.should_stop = False
        self.wants_console = False
        self._clock = clock
        self._last = -TWICE_S
        self._is_talking = False
        self._is_waiting = False
        """Whether the console waits for a line, and no command is being obeyed."""

    def receive(self, number: int, _: object) -> None:
        """Take note of a signal; as a handler, which runs between two instructions of the training."""
        if self.should_stop:
            raise KeyboardInterrupt
        now = self._clock()
        is_second, self._last = now - self._last < TWICE_S, now
        if self.is_terminal and number == signal.SIGINT and not is_second:
            self.wants_console = not self._is_talking
            log.info("console after this step; Ctrl-C once more within two seconds to save and end")
            return
        self.should_stop = True
        log.info("stopping after this step; once more to stop at once")
        if self._is_waiting:
            raise KeyboardInterrupt  # ends the wait; a command is obeyed to its end, or weights could be half loaded

    def talk(self, execute: Callable[[str], str], is_over: Callable[[], bool]) -> None:
        """Read commands and print their answers until the console is left, closed, or the training is to end."""
        self.wants_console = False
        self._is_talking = True
        try:
            with without_bars():
                print(execute("status"), "q goes on, abort saves and ends, help lists all commands.", sep="\n")
                while not is_over() and not self.should_stop:
                    line = self._line()
                    if line.strip():
                        print(_answer(line, execute))
        except EOFError:
            print("going on")
        finally:
            self._is_talking = False

    def _line(self) -> str:
        """Return the next line; an empty one if a signal ended the wait for it."""
        try:
            self._is_waiting = True
            return input(PROMPT)
        except KeyboardInterrupt:
            return ""
        finally:
            self._is_waiting = False


@contextmanager
def signals() -> Iterator[Signals]:
    """Collect SIGINT and SIGTERM instead of dying of the first."""
    received = Signals(is_terminal=sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty())
    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, received.receive) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def python_runner() -> Callable[[str, Mapping[str, object]], str]:
    """Return a function that runs a line of Python with some names, and returns what it printed, tracebacks too.

    Variables live on from line to line.
    """
    interpreter = InteractiveInterpreter()

    def run_code(code: str, names: Mapping[str, object]) -> str:
        interpreter.locals.update(names)
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            try:
                is_incomplete = interpreter.runsource(code)
            except SystemExit:
                return "to end the training, type abort or kill"
        return "the line is not complete; write it as one" if is_incomplete else output.getvalue().rstrip()

    return run_code


def _answer(line: str, execute: Callable[[str], str]) -> str:
    from autoseg.training.commands import help_text

    return help_text() if line.strip() == "help" else execute(line)
