"""Run over cases: one thread reads, this one computes, another writes; a case that fails does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from autoseg.core.atomic import lacks_room, no_room
from autoseg.core.errors import AutosegError
from autoseg.core.progress import Progress, silent

log = logging.getLogger(__name__)

Model = TypeVar("Model")
Input = TypeVar("Input")
Output = TypeVar("Output")


def run_cases(
    cases: Sequence[str],
    models: Iterable[Model],
    read: Callable[[str], Input],
    compute: Callable[[str, Model, Input], Output],
    write: Callable[[str, Output], None],
    *,
    folder: Path,
    read_ahead: bool = True,
    write_behind: Callable[[Output], bool] = lambda output: True,
    on_failure: Callable[[str], None] = lambda case: None,
    progress: Progress = silent,
) -> dict[str, str]:
    """Read, compute and write every case in order; return case -> why it failed, {} if none did.

    While a case is computed, at most the next one is read and the last one is written. An exception of ``read``,
    ``compute`` or ``write`` is the failure of its case, is logged, and the other cases go on. Whatever else ends the
    run (an interrupt, an error of ``models``) is raised once both threads have finished what they had begun.

    Parameters
    ----------
    cases
        Names; none are allowed.
    models
        One for each case, in order. Taken when the case comes, when nothing here holds the one before any more.
    read, write
        Called in a thread each, never for two cases at a time.
    compute
        Called in this thread.
    folder
        Where ``write`` writes: named where there is no room left.
    read_ahead
        Whether the next case is read while this one is computed.
    write_behind
        Whether an output may be written while the next case is computed; otherwise it is written first.
    on_failure
        Called with the name of a case that failed.
    progress
        Called with (cases done or failed, cases in all, name of the last).
    """
    outcome = _Outcome(len(cases), folder, on_failure, progress)
    ready = iter(models)
    writing: tuple[str, Future[None]] | None = None
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading = reader.submit(read, cases[0]) if cases and read_ahead else None
        for case, following in zip_longest(cases, cases[1:]):
            model = next(ready)
            current = reading or reader.submit(read, case)
            wait([current])
            reading = reader.submit(read, following) if read_ahead and following is not None else None
            with outcome.failures_of(case):
                output = compute(case, model, current.result())
            del current, model
            outcome.settle(writing)
            writing = None
            if case in outcome.errors:
                continue
            writing = (case, writer.submit(write, case, output))
            if not write_behind(output):
                outcome.settle(writing)
                writing = None
            del output
        outcome.settle(writing)
    return outcome.errors


@dataclass(slots=True)
class _Outcome:
    """What became of the cases so far."""

    n_cases: int
    folder: Path
    on_failure: Callable[[str], None]
    progress: Progress
    errors: dict[str, str] = field(default_factory=dict)
    n_settled: int = 0

    @contextmanager
    def failures_of(self, case: str) -> Iterator[None]:
        """Note what is raised inside as the failure of ``case``."""
        try:
            yield
        except Exception as error:
            self._fail(case, error)

    def settle(self, writing: tuple[str, Future[None]] | None) -> None:
        """Wait until a case is written, and count it."""
        if writing is None:
            return
        case, future = writing
        with self.failures_of(case):
            future.result()
        if case not in self.errors:
            self._count(case)

    def _fail(self, case: str, error: Exception) -> None:
        if lacks_room(error, self.folder):
            error = no_room(self.folder, error)
        is_known = isinstance(error, AutosegError)
        self.errors[case] = str(error) if is_known else f"{type(error).__name__}: {error}"
        log.error("case %s failed: %s", case, error, exc_info=None if is_known else error)
        self.on_failure(case)
        self._count(case)

    def _count(self, case: str) -> None:
        self.n_settled += 1
        self.progress(self.n_settled, self.n_cases, case)
