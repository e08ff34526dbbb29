"""Loop over cases: one thread reads, the caller's computes, another writes; a failed case does not stop the others."""

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
    """Read, compute and write every case in order; return case -> reason of its failure, {} if none failed.

    While a case is computed, at most the next one is read and the previous one is written. An exception of ``read``,
    ``compute`` or ``write`` is the failure of its case; it is logged, and the other cases continue. Anything else that
    ends the run (an interrupt, an error of ``models``) is raised after both threads have finished their current step.

    Parameters
    ----------
    cases
        Names of the cases; may be empty.
    models
        One model for each case, in order. Taken when its case begins, after the previous model has been released.
    read, write
        Each called in a thread of its own, never for two cases at a time.
    compute
        Called in the caller's thread.
    folder
        Folder that ``write`` writes to; the message names it if its disk is full.
    read_ahead
        Whether the next case is read while the current one is computed.
    write_behind
        Whether an output may be written while the next case is computed; otherwise it is written before.
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
            outcome.finish(writing)
            writing = None
            if case in outcome.errors:
                continue
            writing = (case, writer.submit(write, case, output))
            if not write_behind(output):
                outcome.finish(writing)
                writing = None
            del output
        outcome.finish(writing)
    return outcome.errors


@dataclass(slots=True)
class _Outcome:
    """Failures of the cases so far, and the number of cases that are done or failed."""

    n_cases: int
    folder: Path
    on_failure: Callable[[str], None]
    progress: Progress
    errors: dict[str, str] = field(default_factory=dict)
    n_finished: int = 0

    @contextmanager
    def failures_of(self, case: str) -> Iterator[None]:
        """Record an exception raised in the body as the failure of ``case``."""
        try:
            yield
        except Exception as error:
            self._fail(case, error)

    def finish(self, writing: tuple[str, Future[None]] | None) -> None:
        """Wait until a case is written, and count it; None does nothing."""
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
        self.n_finished += 1
        self.progress(self.n_finished, self.n_cases, case)
