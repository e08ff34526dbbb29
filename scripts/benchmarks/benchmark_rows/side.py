"""One side of a row, in a process of its own: prepares, then runs once per line on stdin, then writes its result.

python side.py MODULE:FUNCTION FOLDER NAME SETTINGS

Needs numpy only, so that it runs in any interpreter. Its own imports must not count as the side's memory or time.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Answer each line of stdin with a line of JSON on the real stdout; ``save`` ends it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    name, folder, which, settings = sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    module, function = name.split(":")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    run = getattr(importlib.import_module(f"benchmark_rows.{module}"), function)(folder, settings)
    results: list[Any] = []
    for line in sys.stdin:
        if line.strip() == "save":
            _save(results.pop(), folder / which)
            print(json.dumps({"saved": True}), file=answers, flush=True)
            return
        results.clear()  # or two results would be held at a time
        before = _reset_peak()
        started = time.perf_counter()
        results.append(run())
        seconds = time.perf_counter() - started - (run.uncounted() if hasattr(run, "uncounted") else 0.0)
        peak = _status("VmHWM")
        print(json.dumps({"seconds": seconds, "peak": peak, "added": peak - before}), file=answers, flush=True)


def _save(result: Any, path: Path) -> None:
    if isinstance(result, np.ndarray):
        np.save(path.with_suffix(".npy"), result)
    elif isinstance(result, dict) and result and all(isinstance(value, np.ndarray) for value in result.values()):
        np.savez(path.with_suffix(".npz"), **result)
    else:
        path.with_suffix(".json").write_text(json.dumps(result))


def _reset_peak() -> int:
    """Make the kernel forget the highest memory so far; return what is used now, in bytes (0 where that is unknown)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _status(key: str) -> int:
    """Return a line of /proc/self/status in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


if __name__ == "__main__":
    main()
