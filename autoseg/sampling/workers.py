"""Start of the processes that build batches, and their end together with the trainer."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import signal
import threading
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext


class Flag:
    """Event that processes share without a lock; it has what torch's loader uses of one.

    A process that is killed while it asks whether a ``multiprocessing.Event`` is set leaves the event's lock taken, and
    all others that ask wait for ever. torch asks before each batch, and once more when it finds a worker dead.
    """

    def __init__(self, context: BaseContext) -> None:
        self._value = context.RawValue("b", 0)

    def is_set(self) -> bool:
        """Whether any process has set the flag."""
        return bool(self._value.value)

    def set(self) -> None:
        """Set the flag, for all processes."""
        self._value.value = 1


def process_context(module: str) -> BaseContext:
    """Return the start method of workers: a fork server that has imported ``module`` if there is one, otherwise spawn.

    A fork of a process in which torch runs may hang. Events are flags, so that a worker may be killed at any time.
    """
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    shared: BaseContext = multiprocessing.get_context("forkserver" if has_server else "spawn")
    context = copy.copy(shared)  # the events of others stay as they are
    context.Event = partial(Flag, context)  # type: ignore[method-assign, assignment]
    if has_server:
        context.set_forkserver_preload([module])
    return context


def serve(lifeline: Connection, _worker: int) -> None:
    """Set up a worker: it ignores signals, since the trainer needs batches until it has saved, and ends with it.

    torch itself checks whether the parent process lives. The parent of these workers is the fork server: after a
    SIGKILL of the trainer, server and workers would keep each other alive for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    """Wait until a pipe that only the trainer holds open is closed, then exit the process."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)
