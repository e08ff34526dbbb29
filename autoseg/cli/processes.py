"""Several processes that train together: started here or by torchrun, each told which one it is by its environment."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autoseg.cli.children import Child, children
from autoseg.cli.common import EXIT_DONE, EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_USER, IncompleteError, StoppedError
from autoseg.cli.threads import share_of_threads
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted

if TYPE_CHECKING:
    from autoseg.training.request import FoldRequest

GRACE_SECONDS = 30.0
"""Time that the other processes have to end by themselves after one has failed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Place of this process among those of a training."""

    rank: int = 0
    local_rank: int = 0
    """On this machine; the number of its GPU."""
    local_size: int = 1
    """Processes on this machine."""
    size: int = 1
    """All of them."""
    restarts: int = 0
    """Number of times that torchrun has started all of them again."""
    is_started: bool = False
    """Whether torchrun or :func:`run_processes` started this process, as one of several."""

    @classmethod
    def from_environment(cls) -> Place:
        """Return what torchrun, or :func:`run_processes`, says of this process; without them it is the only one."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return cls()
        names = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
        rank, local_rank, local_size, size, restarts = (int(os.environ.get(name, 0)) for name in names)
        return cls(rank, local_rank, max(local_size, 1), size, restarts, is_started=True)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def device(self, given: str) -> str:
        """Return the device of this process, where the user has ``given`` one for all."""
        if not self.is_started:
            return given
        from autoseg.nn.ranks import rank_device

        return str(rank_device(given, self.local_rank))

    def workers(self, n: int) -> int:
        """Return this process's share of ``n`` workers, at least one unless there shall be none."""
        return share_of_workers(n, self.local_size)


def share_of_workers(n: int, size: int) -> int:
    """Return the share of ``n`` workers of one of ``size`` processes, at least one unless there shall be none."""
    return min(n, max(1, n // size))


@contextmanager
def joined(place: Place, request: FoldRequest) -> Iterator[FoldRequest]:
    """Yield ``request`` with the ranks of the training that this process belongs to; the only one has it as it is."""
    if not place.is_started:
        yield request
        return
    import torch

    from autoseg.nn.ranks import process_group

    with process_group(torch.device(request.device), place.restarts) as ranks:
        yield replace(request, ranks=ranks)


def check_gpus(n: int, device: str) -> None:
    """Raise ``ConfigError`` unless this machine has ``n`` GPUs, or ``device`` is the CPU."""
    import torch

    if device == "cpu":
        return
    count = torch.cuda.device_count()
    if device not in ("auto", "cuda"):
        raise ConfigError(f"--gpus {n} --device {device}: that is one device. Leave --device out, or use --device cpu.")
    if count < n:
        raise ConfigError(
            f"--gpus {n}: this machine has {counted(count, 'GPU')}. Use fewer, or processes without: --device cpu."
        )


def run_processes(n: int, arguments: Sequence[str], threads: int | None = None) -> None:
    """Run ``autoseg_train ARGUMENTS`` as ``n`` processes of one training on this machine, until all have ended.

    SIGINT and SIGTERM reach each of them once, so that they save. If one fails, the others are ended. If this process
    is killed, they save and end, too. They share ``threads``, or the cores.

    Raises
    ------
    StoppedError
        If they were asked to stop, and none could say what was saved.
    IncompleteError
        If one was killed.
    SystemExit
        If one ended otherwise than well and has said why.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # here the processes meet; its port is free, as the system chose it

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n),
        "TORCHELASTIC_USE_AGENT_STORE": "True", **share_of_threads(n, threads),
    }  # fmt: skip
    with children() as started:
        for rank in range(n):
            started.start(arguments, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        first = _wait(started.processes)
    if first is not None:
        _end_as(first, started.processes[first].returncode, n, was_stopped=started.were_stopped)


def _wait(processes: Sequence[Child]) -> int | None:
    """Wait for all processes; return which one ended first with a failure, None if none did."""
    first: int | None = None
    failed_at = 0.0
    while any(process.poll() is None for process in processes):
        if first is None:
            failed = [rank for rank, process in enumerate(processes) if process.poll() not in (None, EXIT_DONE)]
            if failed:
                first, failed_at = failed[0], time.monotonic()
        elif processes[first].returncode != EXIT_INTERRUPTED and time.monotonic() - failed_at > GRACE_SECONDS:
            return first
        time.sleep(0.1)
    if first is None:
        first = next((rank for rank, process in enumerate(processes) if process.returncode != EXIT_DONE), None)
    return first


def _end_as(rank: int, code: int, n: int, *, was_stopped: bool) -> None:
    """End as the process ``rank`` of ``n``, which left with ``code``, ended the training."""
    if code > 0:  # it has said why
        sys.exit(code if code in (EXIT_USER, EXIT_INTERRUPTED) else EXIT_INTERNAL)
    if was_stopped:
        raise StoppedError
    name = signal.Signals(-code).name
    raise IncompleteError(f"process {rank} of {n} was killed by {name}, so the others were ended. Go on with --resume")
