"""Number of blocks of large cases that are done, from the processes that make them to the one that shows progress.

A case may take hours in a process on another machine, so the way is a small file in the cache, which both see.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from autoseg.core.atomic import write_text
from autoseg.core.boxes import Box
from autoseg.core.errors import StorageError

log = logging.getLogger(__name__)

WRITTEN_EVERY_S, READ_EVERY_S, LOGGED_EVERY_S = 1.0, 1.0, 60.0
"""Times between two states in the file of a case, two looks at it, and two lines in the log."""


def told(folder: Path, case: str, what: str, boxes: Sequence[Box]) -> Iterator[Box]:
    """Yield the blocks of a case, and tell how many of them are done: in its file, and every minute in the log.

    ``what`` is what the blocks are of, such as a layer.
    """
    logged = time.monotonic()
    written = -WRITTEN_EVERY_S
    for number, box in enumerate(boxes):
        now = time.monotonic()
        text = f"{what}, {number} of {len(boxes)} blocks"
        if now - written >= WRITTEN_EVERY_S:
            written = now
            with suppress(OSError, StorageError):  # the blocks themselves fail then
                write_text(_file(folder, case), text)
        if now - logged > LOGGED_EVERY_S:
            logged = now
            log.info("case %s: %s", case, text)
        yield box


def forget(folder: Path, case: str) -> None:
    """Remove the file of a case, which is done, failed, or was left by a process that was killed."""
    _file(folder, case).unlink(missing_ok=True)


@contextmanager
def watched(folder: Path, cases: Sequence[str], report: Callable[[str], None]) -> Iterator[None]:
    """Call ``report`` meanwhile with what the cases tell, ``"a: image, 3 of 40 blocks"``, whenever that changes.

    It is called in a thread; without cases there is none.
    """
    for case in cases:
        forget(folder, case)
    if not cases:
        yield
        return
    is_over = threading.Event()

    def watch() -> None:
        last = ""
        while not is_over.wait(READ_EVERY_S):
            states = ((case, _state(folder, case)) for case in cases)
            text = "; ".join(f"{case}: {state}" for case, state in states if state)
            if text and text != last:
                report(text)
            last = text

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _state(folder: Path, case: str) -> str:
    """Return what a case tells; "" if nothing."""
    try:
        return _file(folder, case).read_text(encoding="utf-8")
    except OSError:
        return ""


def _file(folder: Path, case: str) -> Path:
    return folder / f".{case}.blocks"
