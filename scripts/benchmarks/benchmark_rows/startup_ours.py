"""Our side of the start-up rows: a command of this interpreter's environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDE = "ours"


def answer(folder: Path, settings: dict[str, Any], side: str = SIDE) -> Callable[[], Any]:
    """Run the command of one side to its end; return its exit code and what it printed."""
    program, *arguments = settings[side]
    command = [str(Path(sys.executable).parent / program), *arguments]

    def run() -> tuple[int, str]:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=folder)
        return done.returncode, done.stdout + done.stderr

    return run
