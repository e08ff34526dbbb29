"""A row of the benchmark: inputs from a seed, the two sides that are timed on them, and the check of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Settings = Mapping[str, Any]
"""Plain values (numbers, strings, lists of them) that tell the variants of a row apart."""

Make = Callable[[Path, Settings], None]
"""Writes the inputs of a variant into a folder."""

Check = Callable[[Path, Settings], "Finding"]
"""Compares ``ours.*`` with ``theirs.*`` in the folder; or ``ours.*`` with what must hold, without another side."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the check of correctness found."""

    text: str
    """A few words with the number, for the table."""
    holds: bool


@dataclass(frozen=True, slots=True)
class Variant:
    """One measured case of a row."""

    name: str
    settings: Settings = field(default_factory=dict)
    floor: float | None = None
    """Least ratio of their seconds to ours that is wanted."""
    bound_gb: float | None = None
    """Largest peak memory of our side that is wanted, in GB."""
    max_seconds: float | None = None
    """Longest time of our side that is wanted."""

    @property
    def wanted(self) -> str:
        """All that is wanted, in a few words."""
        bounds = ((self.floor, ""), (self.max_seconds, " s"), (self.bound_gb, " GB"))
        return ", ".join(f"{bound:g}{unit}" for bound, unit in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class Row:
    """Something that is measured, in one or several variants.

    A side is named ``module:function`` of this package, so that it is imported in the process that is measured and
    nowhere else. The function takes the folder and the settings, reads the inputs and returns a function without
    arguments, which is what is timed, less the seconds that its method ``uncounted`` returns, if it has one. What that
    function returns, an array, a mapping of arrays or plain values, is written to ``ours.npy``, ``ours.npz`` or
    ``ours.json`` (``theirs.*``) for the check.
    """

    title: str
    variants: tuple[Variant, ...]
    make: Make
    ours: str
    check: Check
    theirs: str | None = None
    """Runs in nnU-Net's interpreter, or in ours where ``is_foreign`` is false; None: nothing to compare with."""
    is_foreign: bool = True
    """Whether the other side needs nnU-Net's interpreter; else it runs in ours (skimage, batchgenerators)."""
    limit: str = ""
    """What bounds the time physically, for docs/performance.md."""
    rounds: int = 3
    """Timed repetitions of each side, in turn."""
