"""Processes that a command starts and waits for: signals reach each of them once, and none outlives its starter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

LIFELINE = "AUTOSEG_LIFELINE"
"""Set for processes whose standard input is a pipe that their starter holds open."""

Child = subprocess.Popen[bytes]


class Children:
    """The processes that were started, in their order."""

    def __init__(self) -> None:
        self.processes: list[Child] = []
        self.were_stopped = False
        """Whether SIGINT or SIGTERM came, and was passed on."""

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, output: int | IO[bytes] | None = None
    ) -> Child:
        """Start ``autoseg_train ARGUMENTS`` with ``environment`` over that of this process.

        It is in a session of its own: Ctrl-C reaches it from here alone, once. ``output`` is that of ``Popen`` for
        standard output and errors.
        """
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "autoseg.cli.train", *arguments],
            env={**os.environ, LIFELINE: "1", **environment},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        self.processes.append(process)
        if self.were_stopped:  # while it was started
            self._stop(process)
        return process

    def stop(self, number: int, _: object) -> None:
        """Ask all for their end; as a handler of signals."""
        self.were_stopped = True
        for process in self.processes:
            self._stop(process)

    def _stop(self, process: Child) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


@contextmanager
def children() -> Iterator[Children]:
    """Yield what starts processes. SIGINT and SIGTERM go to them; those that run at the end of the block are killed."""
    started = Children()
    before = {number: signal.signal(number, started.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield started
    finally:
        for process in started.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()  # closes its lifeline
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_starter() -> None:
    """Let SIGTERM end this process when the one that started it is gone: its end of the lifeline is then closed.

    Nothing happens in a process that :class:`Children` did not start.
    """
    if LIFELINE not in os.environ:
        return

    def wait() -> None:
        while os.read(0, 1):  # nothing is ever written
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
