"""How the processes that build batches start, and how they end with the trainer."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext


def process_context(module: str) -> BaseContext:
    """Return how workers start: from a server that has imported ``module``, where the system can; else anew.

    Forking a process in which torch runs may hang.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def serve(lifeline: Connection, _worker: int) -> None:
    """Set up a worker: signals reach only the trainer, which needs batches until it has saved; its end is ours.

    torch's own check asks whether the parent lives, which for these workers is the fork server: after a SIGKILL of the
    trainer the two would keep each other alive for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    """Wait for the end of a pipe that only the trainer holds open, then leave."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)
