"""Progress where there is no terminal: plain lines on stderr, never long apart."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from autoseg.core.progress import Progress

SILENCE_S = 10.0
"""Seconds after which something is said although nothing, or little, has happened. With the start of a command, which
imports and loads before it reports, that makes at most about 20."""
POLL_S = 1.0
"""Seconds between two looks at the clock."""
SHORT_S = 5.0
"""Seconds below which a time is not worth a word."""


class PlainLines:
    """What is said of long work: about ten lines, and one more whenever nothing was said for ``SILENCE_S`` seconds.

    ``clock`` gives seconds, ``write`` takes one line.
    """

    def __init__(self, title: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._title, self._write, self._clock = title, write, clock
        self._lock = threading.Lock()
        self._news = self._said = clock()
        self._first: tuple[float, int] | None = None
        self._state = "starting"

    def report(self, done: int, total: int, what: str) -> None:
        """Take note of ``done`` of ``total``; say so at every tenth of the work, or if it was quiet for too long."""
        with self._lock:
            self._news = now = self._clock()
            self._first = self._first or (now, done)
            self._state = f"{done}/{total} {what}".rstrip() + self._time_left(done, total)
            is_tenth = done == total or done % max(1, total // 10) == 0
            if is_tenth or now - self._said >= SILENCE_S:
                self._say(self._state)

    def remind(self) -> None:
        """Say the last state again if nothing was said for too long: one item may take minutes."""
        with self._lock:
            now = self._clock()
            if now - self._said >= SILENCE_S:
                waiting = now - self._news
                self._say(self._state + (f"  [no news for {duration_text(waiting)}]" if waiting >= SHORT_S else ""))

    def _time_left(self, done: int, total: int) -> str:
        """Remaining time at the pace since the first report, which a resumed run begins in its middle."""
        since, begun = self._first or (self._news, done)
        if done <= begun:
            return ""
        left = (self._news - since) / (done - begun) * (total - done)
        return f"  [{duration_text(left)} left]" if left >= SHORT_S else ""

    def _say(self, text: str) -> None:
        self._said = self._clock()
        self._write(f"{self._title}: {text}")


@contextmanager
def plain_lines(title: str) -> Iterator[Progress]:
    """Yield what to report (done, total, what is being done) to; a thread looks after the silences."""
    lines = PlainLines(title, lambda line: print(line, file=sys.stderr, flush=True))
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(POLL_S):
            with suppress(OSError, ValueError):  # stderr may be closed: that is for the work itself to meet
                lines.remind()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lines.report
    finally:
        is_over.set()
        thread.join()


def duration_text(seconds: float) -> str:
    """Write a time as people say it, to one or two figures: ``40 s``, ``3 min``, ``2 h 10 min``, ``3 days``."""
    if round(seconds) < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{round(minutes / 60 / 24)} days"
