"""Start of the processes that build batches, and their end together with the trainer."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext


def process_context(module: str) -> BaseContext:
    """Return the start method of workers: a fork server that has imported ``module`` if there is one, otherwise spawn.

    A fork of a process in which torch runs may hang.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
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
