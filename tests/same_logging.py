"""The fixture that all tests use, those of the package and those of the benchmarks."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def same_logging() -> Iterator[None]:
    """Leave the logger as it was: commands that run within a test set it up for themselves."""
    log = logging.getLogger("autoseg")
    before = (log.handlers[:], log.level, log.propagate)
    yield
    log.handlers[:], log.propagate = before[0], before[2]
    log.setLevel(before[1])
