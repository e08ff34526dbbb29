"""Progress of long work, as the functions that do it report it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Progress = Callable[[int, int, str], None]
"""Called with (items done, items in all, name of the last one)."""

Stages = Callable[[str], AbstractContextManager[Progress]]
"""Title of a stage of the work -> its progress, shown until the stage ends."""


def silent(done: int, total: int, name: str) -> None:
    """Report nothing."""


def silent_stages(title: str) -> AbstractContextManager[Progress]:
    """Report nothing of the stage ``title``."""
    return nullcontext(silent)
