"""Several processes that train together: started here or by torchrun, each told which one it is by its environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autoseg.cli.common import EXIT_DONE, EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_USER, IncompleteError, StoppedError
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted
from autoseg.core.parallel import available_cores

if TYPE_CHECKING:
    from autoseg.training.request import FoldRequest

LIFELINE = "AUTOSEG_LIFELINE"
"""Set for processes whose standard input is a pipe that their starter holds open."""
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
    restarts: int = 0
    """Number of times that torchrun has started all of them again."""
    is_started: bool = False
    """Whether torchrun or :func:`run_processes` started this process, as one of several."""

    @classmethod
    def from_environment(cls) -> Place:
        """Return what torchrun, or :func:`run_processes`, says of this process; without them it is the only one."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return cls()
        names = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
        rank, local_rank, local_size, restarts = (int(os.environ.get(name, 0)) for name in names)
        return cls(rank, local_rank, max(local_size, 1), restarts, is_started=True)

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
        return min(n, max(1, n // self.local_size))


@contextmanager
def joined(place: Place, request: FoldRequest) -> Iterator[FoldRequest]:
    """Yield ``request`` with the ranks of the training that this process belongs to; the only one has it as it is."""
    if not place.is_started:
        yield request
        return
    import torch

    from autoseg.nn.ranks import process_group

    _end_with_starter()
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


def run_processes(n: int, arguments: Sequence[str]) -> None:
    """Run ``autoseg_train ARGUMENTS`` as ``n`` processes of one training on this machine, until all have ended.

    SIGINT and SIGTERM reach each of them once, so that they save. If one fails, the others are ended. If this process
    is killed, they save and end, too.

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
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n), "TORCHELASTIC_USE_AGENT_STORE": "True", LIFELINE: "1",
    }  # fmt: skip
    shared.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // n)))
    processes: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for rank in range(n):
            line = [sys.executable, "-m", "autoseg.cli.train", *arguments]
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(  # in a session of its own: Ctrl-C reaches it from here alone, once
                subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603
            )
        first = _wait(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    if first is not None:
        _end_as(first, processes[first].returncode, n, was_stopped=bool(received))


def _end_with_starter() -> None:
    """Save and end when the process that started this one is gone: its end of the lifeline is then closed."""
    if LIFELINE not in os.environ:
        return

    def wait() -> None:
        while os.read(0, 1):  # nothing is ever written
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
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
