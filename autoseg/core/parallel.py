"""Apply one function to many items in worker processes. If a worker dies, the error names the item it worked on.

The processes are started here, or belong to a cluster of machines (:mod:`autoseg.core.cluster`).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait as wait_for_end
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from autoseg.core.errors import AutosegError, Fault, WorkerError
from autoseg.core.progress import Progress, silent

Item = TypeVar("Item")
Result = TypeVar("Result")


class Cluster(Protocol):
    """Worker processes on other machines, or on this one, that take items as :func:`map_unordered` gives them out."""

    @property
    def n_workers(self) -> int:
        """Workers at this moment, at least 1."""

    @property
    def n_per_machine(self) -> int:
        """Largest number of these workers that share a machine."""

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result | AutosegError]]:
        """Yield ``(index of the item, result)`` as the function :func:`map_unordered` of this module does."""


Workers: TypeAlias = int | Cluster
"""Where items are worked on: in so many processes of this machine, or by the workers of a cluster."""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_cores(watched_s: float = 0.5) -> int:
    """Return how many of the cores that this process may use are left free by all others, rounded, at least 1.

    Watches for ``watched_s`` seconds, in which this process rests. All cores where the system does not tell.
    """
    before = _idle_ticks()
    time.sleep(watched_s)
    after = _idle_ticks()
    if before is None or after is None:
        return available_cores()
    passed = [(after[core][0] - before[core][0], after[core][1] - before[core][1]) for core in before.keys() & after]
    return max(1, round(sum(idle / whole for idle, whole in passed if whole > 0)))


def _idle_ticks() -> dict[int, tuple[int, int]] | None:
    """Return core -> (ticks in which it had nothing to do, all ticks) since the start of the system; Linux only."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        usable = os.sched_getaffinity(0)
    except (OSError, AttributeError):
        return None
    rows = {line.split()[0]: [int(ticks) for ticks in line.split()[1:9]] for line in lines if line.startswith("cpu")}
    return {core: (sum(rows[f"cpu{core}"][3:5]), sum(rows[f"cpu{core}"])) for core in usable if f"cpu{core}" in rows}


def is_running(process: int) -> bool:
    """Whether a process with this id exists. True on systems other than POSIX, where asking would end the process."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def map_unordered(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: Workers = 1
) -> Iterator[tuple[int, Result | AutosegError]]:
    """Yield ``(index of the item, result)`` in the order of completion. An ``AutosegError`` is yielded, not raised.

    If ``workers <= 1``, or for a single item, ``function`` runs in this process. Otherwise it runs in at most
    ``workers`` processes, never more than items, which end together with this process. ``function``, items and results
    must be picklable.

    If a worker process dies without an exception (killed by the system, for example for memory), only the items that
    were running are in doubt, because no more items are handed out than there are workers. The other items continue in
    a new pool. At the end, each item in doubt runs alone, so that only the item that kills its process yields a
    ``WorkerError``. An item for which memory runs out yields a ``WorkerError`` too. Any other exception of ``function``
    is raised here. Without items nothing is yielded.

    The workers of a cluster get the items instead, if ``workers`` is one; what it does with those of a dead worker is
    said there.
    """
    if not isinstance(workers, int):
        yield from workers.map_unordered(partial(guarded, function), items)
        return
    if workers <= 1 or len(items) <= 1:
        for index, item in enumerate(items):
            yield index, guarded(function, item)
        return
    in_doubt: list[int] = []
    for index, result in _run_all(function, items, range(len(items)), workers):
        if result is None:
            in_doubt.append(index)
        else:
            yield index, result[0]
    for index, result in _run_all(function, items, in_doubt, 1):
        if result is None:
            yield index, worker_died(items[index], "its worker process dead")
        else:
            yield index, result[0]


def map_ordered(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    names: Sequence[str],
    *,
    workers: Workers = 1,
    progress: Progress = silent,
) -> list[Result | AutosegError]:
    """Return the results of :func:`map_unordered` in the order of the items; reports the name of each that is done."""
    results: dict[int, Result | AutosegError] = {}
    for index, result in map_unordered(function, items, workers=workers):
        results[index] = result
        progress(len(results), len(items), names[index])
    return [results[index] for index in range(len(items))]


def worker_died(item: object, found: str) -> WorkerError:
    """Return the error of an item whose worker process died; ``found``: what was seen of it."""
    return WorkerError(
        Fault(f"item {item!r}", found, "a result", "It was killed, most often for memory: use fewer workers.")
    )


def _run_all(
    function: Callable[[Item], Result], items: Sequence[Item], indices: Sequence[int], workers: int
) -> Iterator[tuple[int, tuple[Result | AutosegError] | None]]:
    """Yield ``(index, (result,))``, or ``(index, None)`` for an item that was running when a process died.

    After each such death a new pool takes the remaining items.
    """
    waiting = deque(indices)
    while waiting:
        yield from _run_pool(function, items, waiting, workers)


def _run_pool(
    function: Callable[[Item], Result], items: Sequence[Item], waiting: deque[int], workers: int
) -> Iterator[tuple[int, tuple[Result | AutosegError] | None]]:
    """Take items from ``waiting`` until it is empty or a process dies."""
    size = min(workers, len(waiting))
    with ProcessPoolExecutor(size, mp_context=_context(function), initializer=_follow_parent) as pool:
        running: dict[Future[Result | AutosegError], int] = {}
        is_whole = _hand_out(pool, function, items, waiting, running, workers)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            indices = {future: running.pop(future) for future in done}
            is_whole = is_whole and not any(isinstance(future.exception(), BrokenProcessPool) for future in done)
            if is_whole:  # before the results are yielded, so that no worker waits for the caller
                is_whole = _hand_out(pool, function, items, waiting, running, workers)
            for future, index in indices.items():
                is_lost = isinstance(future.exception(), BrokenProcessPool)
                yield index, None if is_lost else (future.result(),)


def _hand_out(
    pool: ProcessPoolExecutor,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    waiting: deque[int],
    running: dict[Future[Result | AutosegError], int],
    workers: int,
) -> bool:
    """Give an item to every free worker and move it from ``waiting`` to ``running``. False if the pool is broken."""
    while waiting and len(running) < workers:
        try:
            future = pool.submit(guarded, function, items[waiting[0]])
        except BrokenProcessPool:
            return False
        running[future] = waiting.popleft()
    return True


def _context(function: Callable[..., Any]) -> BaseContext:
    """Return a context that starts workers from a server, which imports the modules of ``function`` once.

    A new interpreter per worker would spend more time on imports than on a small case, and a fork of this process may
    hang. On systems without a fork server, workers are new interpreters.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    while isinstance(function, partial):
        function = function.func
    package = __name__.split(".")[0]
    ours = sorted(name for name in sys.modules if name.split(".")[0] == package)  # a worker imports the main script
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__, *ours])  # has no effect if the server already runs
    return context


def _follow_parent() -> None:
    """End this worker when its parent ends. Otherwise it would continue after a SIGKILL of the parent."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait_for_end([sentinel])
    os._exit(1)


def guarded(function: Callable[[Item], Result], item: Item) -> Result | AutosegError:
    """Return ``function(item)``, or its ``AutosegError``; a ``WorkerError`` if memory runs out."""
    try:
        return function(item)
    except AutosegError as error:
        return error
    except MemoryError as error:
        reason = " ".join(str(error).split()).rstrip(".") or "none was left"
        return WorkerError(Fault(f"item {item!r}", f"too little memory ({reason})", "enough", "Use fewer workers."))
