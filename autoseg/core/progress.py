"""Progress of long work, as functions that work calls and commands show."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Progress = Callable[[int, int, str], None]
"""Called with (items done, items in all, what was done last)."""

Stages = Callable[[str], AbstractContextManager[Progress]]
"""Title of a stage of the work -> its progress, shown until the stage ends."""


def silent(title: str) -> AbstractContextManager[Progress]:
    """Show nothing of the stage ``title``."""
    return nullcontext(lambda done, total, what: None)
