"""Progress of long work, as the functions that do it report it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with (items done, items in all, name of the last one)."""


def silent(done: int, total: int, name: str) -> None:
    """Report nothing."""
