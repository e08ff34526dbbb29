"""Run the two sides of a row in turn, each in its own process with one thread, and judge what came out."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from autoseg.core.errors import AutosegError
from benchmark_rows.row import Row, Variant

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
SIDE = Path(__file__).parent / "side.py"
GB = 1e9
LONG_S = 5.0
"""A first run that takes longer counts as it is, in every round: neither warmed up nor repeated."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the table."""

    row: str
    variant: str
    ours_s: float
    theirs_s: float | None
    ratio: float | None
    """Median over the rounds of theirs over ours."""
    wanted: str
    """What was wanted of it; empty if nothing was."""
    ours_gb: float
    """Memory that the work added to the process at its highest."""
    theirs_gb: float | None
    ours_peak_gb: float
    """Of the whole process."""
    check: str
    holds: bool
    """Whether the check of correctness holds."""
    reached: bool
    """Whether time and memory are within what is wanted."""


class Side:
    """A process that holds one side, ready to run it."""

    def __init__(self, python: Path, name: str, folder: Path, which: str, settings: Mapping[str, Any]) -> None:
        command = [str(python), str(SIDE), name, str(folder), which, json.dumps(dict(settings))]
        environment = os.environ | dict.fromkeys(THREADS, str(settings.get("threads", 1)))
        self._log = (folder / f"{which}.log").open("w+")
        self._name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, encoding="utf-8", env=environment
        )

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def ask(self, what: str) -> dict[str, Any]:
        """Send a line and return the answer; raise ``AutosegError`` with the end of its log if the process died."""
        answer = ""
        if self._process.stdin is not None and self._process.stdout is not None:
            try:
                self._process.stdin.write(f"{what}\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
            except BrokenPipeError:
                pass
        if not answer:
            self._log.seek(0)
            tail = "".join(self._log.readlines()[-15:])
            raise AutosegError(f"benchmark: {self._name} ended without an answer, expected a time. Its log:\n{tail}")
        values: dict[str, Any] = json.loads(answer)
        return values


def run_variant(name: str, row: Row, variant: Variant, folder: Path, peer: Path | None) -> Outcome:
    """Make the inputs in ``folder``, time both sides in turn, check them.

    ``peer`` is nnU-Net's interpreter; without it a row that needs it is timed alone and not compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row.make(folder, variant.settings)
    other = peer if row.is_foreign else Path(sys.executable)
    with ExitStack() as stack:
        mine = stack.enter_context(Side(Path(sys.executable), row.ours, folder, "ours", variant.settings))
        theirs = None
        if row.theirs is not None and other is not None:
            theirs = stack.enter_context(Side(other, row.theirs, folder, "theirs", variant.settings))
        sides = [side for side in (mine, theirs) if side is not None]
        firsts = [side.ask("run") for side in sides]  # reads files and builds tables: only counted where that is little
        rounds = [
            [first if first["seconds"] > LONG_S else side.ask("run") for side, first in zip(sides, firsts, strict=True)]
            for _ in range(row.rounds)
        ]
        for side in sides:
            side.ask("save")
    return _judge(name, row, variant, folder, rounds)


def _judge(name: str, row: Row, variant: Variant, folder: Path, rounds: list[list[dict[str, Any]]]) -> Outcome:
    mine = [answers[0] for answers in rounds]
    theirs = [answers[1] for answers in rounds if len(answers) > 1]
    ours_s = statistics.median(item["seconds"] for item in mine)
    ours_gb = max(item["added"] for item in mine) / GB
    peak = max(item["peak"] for item in mine) / GB
    ratio = None
    if theirs:
        ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(mine, theirs, strict=True))
    is_comparable = bool(theirs) or row.theirs is None
    finding = row.check(folder, variant.settings) if is_comparable else None
    reached = (
        (variant.floor is None or ratio is None or ratio >= variant.floor)
        and (variant.bound_gb is None or peak <= variant.bound_gb)
        and (variant.max_seconds is None or ours_s <= variant.max_seconds)
    )
    return Outcome(
        row=name,
        variant=variant.name,
        ours_s=ours_s,
        theirs_s=statistics.median(item["seconds"] for item in theirs) if theirs else None,
        ratio=ratio,
        wanted=variant.wanted,
        ours_gb=ours_gb,
        theirs_gb=max(item["added"] for item in theirs) / GB if theirs else None,
        ours_peak_gb=peak,
        check="not compared" if finding is None else finding.text,
        holds=finding is None or finding.holds,
        reached=reached,
    )
