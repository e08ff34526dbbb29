"""Progress without a terminal: plain lines on stderr, at regular intervals."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from autoseg.core.progress import Progress

SILENCE_S = 10.0
"""Seconds after which a line is written even if nothing has happened. At the start of a command, which imports and
loads before it reports, the first line may take about 20 seconds."""
POLL_S = 1.0
"""Seconds between two checks of the clock."""
SHORT_S = 5.0
"""Times below this number of seconds are not written."""


class PlainLines:
    """Progress of long work as about ten lines, and one more after every ``SILENCE_S`` seconds without a line.

    ``clock`` returns seconds, ``write`` takes one line.
    """

    def __init__(self, title: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._title, self._write, self._clock = title, write, clock
        self._lock = threading.Lock()
        self._news = self._said = clock()
        self._first: tuple[float, int] | None = None
        self._done = -1
        self._state = "starting"

    def report(self, done: int, total: int, what: str) -> None:
        """Record ``done`` of ``total``; write a line at every tenth, or after ``SILENCE_S`` seconds without one.

        A state with the same ``done`` as the last, which says more of the item under way, is no further tenth.
        """
        with self._lock:
            self._news = now = self._clock()
            self._first = self._first or (now, done)
            self._state = f"{done}/{total} {what}".rstrip() + self._time_left(done, total)
            is_tenth = done == total or (done != self._done and done % max(1, total // 10) == 0)
            self._done = done
            if is_tenth or now - self._said >= SILENCE_S:
                self._say(self._state)

    def remind(self) -> None:
        """Write the last state again after ``SILENCE_S`` seconds without a line: one item may take minutes."""
        with self._lock:
            now = self._clock()
            if now - self._said >= SILENCE_S:
                waiting = now - self._news
                self._say(self._state + (f"  [no news for {duration_text(waiting)}]" if waiting >= SHORT_S else ""))

    def _time_left(self, done: int, total: int) -> str:
        """Return the remaining time as text, by the pace since the first report (a resumed run starts late)."""
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
    """Yield a function of (done, total, current item); a thread writes a line when there was none for too long."""
    lines = PlainLines(title, lambda line: print(line, file=sys.stderr, flush=True))
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(POLL_S):
            with suppress(OSError, ValueError):  # stderr may be closed: the work itself reports that
                lines.remind()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lines.report
    finally:
        is_over.set()
        thread.join()


def duration_text(seconds: float) -> str:
    """Return a time as text with one or two numbers: ``40 s``, ``3 min``, ``2 h 10 min``, ``3 days``."""
    if round(seconds) < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{round(minutes / 60 / 24)} days"
