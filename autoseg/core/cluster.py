"""Cluster of Dask workers, on many machines or on this one, that take the items of :mod:`autoseg.core.parallel`.

Every worker process has one item at a time, chosen for it here, and a second one ahead where items are short. So it is
known which item a lost worker had, a worker is examined before its first item, and a hundred thousand items need no
more of the scheduler than a few.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.core.cluster_address import Address, parse_address
from autoseg.core.cluster_site import Examination, Site, examine
from autoseg.core.components import optional
from autoseg.core.errors import AutosegError, ConfigError, WorkerError
from autoseg.core.findings import counted, listed, shown
from autoseg.core.parallel import Item, Result, worker_died

log = logging.getLogger(__name__)

EXTRA, CODEC = "cluster", "distributed.protocol.pickle"
"""Optional dependency, and its module that turns functions and items into bytes."""
CONNECT_S = 6
"""Longest time in which a scheduler must answer."""
WATCH_S = 0.5
"""Time between two looks at the list of workers."""
GRACE_S = 5
"""Time without a worker after which it is said; a killed one is often started again."""
REMIND_S = 60
"""Time between two messages that there is no worker."""
RESULT_S = 10
"""Time for the way of a result, after which it is asked whether its worker is still there."""
ENVIRONMENT = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""Of local workers. Dask's own also has MALLOC_TRIM_THRESHOLD_, with which each large array is made of new pages."""
AHEAD, QUICK_S = 2, 2.0
"""Items that a worker has, one of them in work, while items take less than so many seconds; otherwise it has one."""
LOSSES = 3
"""Number of workers that an item may lose before it is given up."""
SHOWN = 5
"""Number of workers that a message names."""


@contextmanager
def open_cluster(given: str, paths: Sequence[Path], *, resource: str | None = None) -> Iterator[DaskCluster]:
    """Connect with a cluster and wait for its first worker; at the end, workers that were started here end.

    Parameters
    ----------
    given
        ``tcp://host:port`` of a scheduler, the path of its scheduler file (JSON), or ``local:N``: N processes of this
        machine, which are started.
    paths
        Files and folders that every worker must see, as far as they exist. If one is relative, workers also need the
        working folder of this process.
    resource
        Resource of Dask, such as ``GPU``, of which an item holds 1. From when a worker offers it, only those that do
        get items; until then all do.

    Raises
    ------
    ConfigError
        If Dask is not installed, or there is no scheduler at the address (within 10 s), or one of the first workers has
        other software or does not see a path.
    """
    address = parse_address(given)
    distributed = optional("distributed", EXTRA)
    for name in ("distributed", "distributed.client"):  # losses are reported here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        local = stack.enter_context(_local(distributed, address.n_local)) if address.n_local else None
        client = stack.enter_context(_client(distributed, local, address))
        cluster = DaskCluster(client, given, Site.here(paths, shares_terminal=local is not None), resource)
        cluster.examine_scheduler()
        cluster.await_workers()
        log.info("--cluster %s: %s", given, counted(len(cluster.fit), "worker"))
        yield cluster


def _local(distributed: Any, n_workers: int) -> Any:
    """Return a scheduler on this machine with so many worker processes of one thread; none of them serves a page."""
    with optional("dask.config", EXTRA).set({"distributed.nanny.pre-spawn-environ": ENVIRONMENT}):
        return distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, memory_limit=0, host="127.0.0.1",
            dashboard_address=None, worker_dashboard_address=None, silence_logs=logging.CRITICAL,
        )  # fmt: skip


def _client(distributed: Any, local: Any, address: Address) -> Any:
    """Return a client of a local scheduler, or of the one at the address."""
    try:
        if local is None:  # the client would wait without end for the first word of a program that is no scheduler
            asyncio.run(asyncio.wait_for(_greet(distributed, address.scheduler), CONNECT_S))
        return distributed.Client(local or address.scheduler, timeout=CONNECT_S, set_as_default=False)
    except Exception as error:  # whatever another program may answer
        reason = " ".join(str(error).split())[:200] or "no answer"
        raise ConfigError(
            f"--cluster {address.given}: found no scheduler ({reason}), expected one that answers in {CONNECT_S} s. "
            "Start it with: dask scheduler --port 8786, or work on this machine alone: --cluster local:2"
        ) from error


async def _greet(distributed: Any, scheduler: str | None) -> None:
    """Connect with a scheduler once."""
    arguments = distributed.Security().get_connection_args("client")
    connection = await distributed.comm.connect(scheduler, timeout=CONNECT_S, **arguments)
    await connection.close()


def _work(site: Site, sent: bytes) -> Any:
    """Work on an item; ``sent`` is (function, item), closed until here so that the scheduler need not import them."""
    site.enter()
    function, item = optional(CODEC, EXTRA).loads(sent)
    return function(item)


@dataclass(frozen=True, slots=True)
class _Held:
    """Item that a worker has."""

    index: int
    worker: str
    since: float
    """Time at which it got it, s."""


@dataclass(slots=True)
class DaskCluster:
    """Workers of a scheduler of Dask; a :class:`autoseg.core.parallel.Cluster`."""

    client: Any
    given: str
    """Address as the user wrote it."""
    site: Site
    resource: str | None = None
    fit: set[str] = field(default_factory=set)
    """Addresses of workers that may get items."""
    unfit: set[str] = field(default_factory=set)
    """Addresses of workers that joined later and may not."""
    _present: set[str] = field(default_factory=set)
    """Addresses of workers at the last look; only those that offer the resource, if any ever did."""
    _is_offered: bool = False
    """Whether any ever did."""
    _looked: float = float("-inf")
    """Time of the last look, s."""

    @property
    def n_workers(self) -> int:
        """Workers at this moment, at least 1."""
        return len(self.await_workers())

    @property
    def n_per_machine(self) -> int:
        """Largest number of workers with the same host in their address."""
        return max(Counter(worker.rpartition(":")[0] for worker in self.await_workers()).values())

    def map_unordered(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result | AutosegError]]:
        """Yield ``(index of the item, result)`` in the order of completion.

        The item of a worker that is lost is given to another one; after three losses it yields a ``WorkerError``. An
        item may thus be begun twice, even at the same time if a machine was only out of reach. An exception of
        ``function`` is raised. If the caller stops, what is running is cancelled: workers finish the item that they
        have, and its result is dropped. Workers may join and leave meanwhile.

        Raises ``WorkerError`` if the scheduler is lost.
        """
        waiting, losses, depth = deque(range(len(items))), Counter[int](), 1
        running: dict[Any, _Held] = {}
        try:
            while waiting or running:
                workers = self.workers() if running else self.await_workers()
                for worker in _free(workers, running, depth)[: len(waiting)]:
                    index = waiting.popleft()
                    future = self._submit((function, items[index]), worker)
                    running[future] = _Held(index, worker, time.monotonic())
                lost: dict[str, list[int]] = {}
                for future, held in self._ended(running):
                    del running[future]
                    result = self._result(future, held)
                    if result is None:
                        lost.setdefault(held.worker, []).append(held.index)
                        continue
                    depth = AHEAD if time.monotonic() - held.since < QUICK_S else 1
                    yield held.index, result[0]
                for worker, (first, *others) in lost.items():  # the first was worked on, the others waited behind it
                    losses[first] += 1
                    waiting.extendleft(others)
                    if losses[first] < LOSSES:
                        log.warning("lost worker %s with %s; another gets it", worker, shown(items[first]))
                        waiting.append(first)
                    else:
                        yield first, worker_died(items[first], f"{LOSSES} workers lost while they had it")
        finally:
            with suppress(Exception):  # the scheduler may be gone, or the client closed
                self.client.cancel(list(running), force=True)

    def await_workers(self) -> set[str]:
        """Return the workers that may get items, at least one; until there is one, say so and wait."""
        remind = time.monotonic() + GRACE_S
        while not (workers := self.workers()):
            if time.monotonic() > remind:
                remind = time.monotonic() + REMIND_S
                log.warning("--cluster %s: has no worker now; waits for one (Ctrl-C stops)", self.given)
            time.sleep(WATCH_S)
        return workers

    def workers(self) -> set[str]:
        """Return the workers that may get items, as they were at the last look; new ones are examined.

        Raises ``ConfigError`` if one of the first workers is unfit; of later ones it is warned.
        """
        if time.monotonic() - self._looked >= WATCH_S:
            with self._scheduler():
                known = self.client.scheduler_info(n_workers=-1)["workers"]
            offering = {name for name, worker in known.items() if worker["resources"].get(self.resource, 0) >= 1}
            self._is_offered = self._is_offered or bool(offering)
            self._present = offering if self._is_offered else set(known)
            self._examine(self._present - self.fit - self.unfit)
            self._looked = time.monotonic()
        return self._present & self.fit

    def examine_scheduler(self) -> None:
        """Raise ``ConfigError`` if the scheduler has other software, so that it could not read what it passes on."""
        try:
            faults = self.client.run_on_scheduler(examine, Site(None, (), self.site.versions)).faults
        except Exception as error:  # of the import there
            faults = _faults(error)
        if faults:
            raise ConfigError(
                f"--cluster {self.given}: found a scheduler with {'; '.join(faults)}, expected the software of this "
                "process. Start it in the same environment."
            )

    def _examine(self, workers: set[str]) -> None:
        """Sort workers into those that are fit and those that are not."""
        if not workers:
            return
        with self._scheduler():
            answers = self.client.run(examine, self.site, workers=sorted(workers), on_error="return")
        reached = {worker: answer for worker, answer in answers.items() if not isinstance(answer, OSError)}
        faults = {worker: found for worker, answer in sorted(reached.items()) if (found := _faults(answer))}
        lines = [f"worker {worker} ({'; '.join(found)})" for worker, found in faults.items()]
        if faults and not self.fit:
            raise ConfigError(
                f"--cluster {self.given}: found {listed(lines, SHOWN)}, expected the software and files of this "
                "process. Start workers in the same environment, on machines that share these folders."
            )
        for line in lines:
            log.warning("--cluster %s: %s gets no work", self.given, line)
        remarks = {
            remark for answer in reached.values() if isinstance(answer, Examination) for remark in answer.remarks
        }
        for remark in sorted(remarks):
            log.warning("--cluster %s: workers have %s: results may differ in their last digits", self.given, remark)
        self.unfit |= faults.keys()
        self.fit |= reached.keys() - faults.keys()

    def _submit(self, call: tuple[Callable[[Item], Result], Item], worker: str) -> Any:
        """Return the future of a function of an item, which a worker gets."""
        sent = optional(CODEC, EXTRA).dumps(call)
        needs = {self.resource: 1} if self._is_offered else None
        key = f"autoseg-{uuid.uuid4().hex}"
        with self._scheduler():
            return self.client.submit(_work, self.site, sent, key=key, workers=[worker], resources=needs)

    def _ended(self, running: Mapping[Any, _Held]) -> list[tuple[Any, _Held]]:
        """Return the items that are done or have lost their worker; if there is none, wait a moment for one."""
        wait = optional("distributed", EXTRA).wait
        with self._scheduler(), suppress(TimeoutError), self.client.as_current():
            wait(list(running), timeout=WATCH_S, return_when="FIRST_COMPLETED")
        self.workers()
        return [(future, held) for future, held in running.items() if future.done() or held.worker not in self._present]

    def _result(self, future: Any, held: _Held) -> tuple[Any] | None:
        """Return (result,) of an item, or None if its worker was lost; raise the exception of its function."""
        if future.status == "error":
            error = future.exception()
            if type(error).__name__ == "KilledWorker":  # the address was taken by a new worker each time
                return None
            raise error
        while future.done():
            try:
                with self._scheduler():
                    return (future.result(timeout=RESULT_S),)
            except TimeoutError:
                self.workers()
                if held.worker not in self._present:
                    break
        with suppress(Exception):
            self.client.cancel([future], force=True)
        return None

    @contextmanager
    def _scheduler(self) -> Iterator[None]:
        """Raise ``WorkerError`` if the scheduler is lost within the block."""
        try:
            yield
        except Exception as error:
            is_lost = isinstance(error, (OSError, CancelledError)) and not isinstance(error, TimeoutError)
            if not is_lost and self.client.status == "running":
                raise
            raise WorkerError(
                f"--cluster {self.given}: found its scheduler lost ({type(error).__name__}), expected it to run until "
                "the end. What is done is kept: start the scheduler and the workers, and run the command again."
            ) from error


def _free(workers: set[str], running: Mapping[Any, _Held], depth: int) -> list[str]:
    """Return the workers that have fewer than ``depth`` items, once for each that is missing; idle ones first."""
    load = Counter(held.worker for held in running.values())
    return [worker for _, worker in sorted((n, name) for name in workers for n in range(load[name], depth))]


def _faults(answer: object) -> tuple[str, ...]:
    """Return what makes a worker unfit by its answer, which is an exception if it cannot even examine itself."""
    if isinstance(answer, Examination):
        return answer.faults
    return (f"{type(answer).__name__}: {' '.join(str(answer).split())}",)
