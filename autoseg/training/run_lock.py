"""One training at a time in the folder of a run."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError

LOCK, OWNER = "run.lock", "run.json"
"""Files of a running training: the lock, which the system gives back when the process ends however it does, and who
holds it."""

PROBE_S = 1.0
"""Time that a training waits for the lock, which :func:`is_running` of another process holds for a moment."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder of a run for this process.

    Raises ``ConfigError`` naming process and machine if another training holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PROBE_S)
    except Timeout:
        raise ConfigError(
            f"{folder}: another training runs here ({_owner(folder)}), expected none. Wait until it has ended, or give "
            "this one another --name."
        ) from None
    try:
        write_json(folder / OWNER, {"process": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def is_running(folder: Path) -> bool:
    """Whether a training holds the folder of a run, on this machine or another that shares the folder."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, KeyError):
        return "its process is not known"
