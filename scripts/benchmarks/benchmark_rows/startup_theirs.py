"""nnU-Net's side of the start-up rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_rows import startup_ours


def answer(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Run nnU-Net's command to its end."""
    return startup_ours.answer(folder, settings, "theirs")
