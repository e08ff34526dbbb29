"""A scheduler of Dask and its workers as processes of their own, which hear on 127.0.0.1 alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

from autoseg.core.cluster_address import parse_address
from autoseg.core.errors import ConfigError

QUIET = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")


@contextmanager
def scheduler(folder):
    """Start a scheduler; yield its file."""
    path = folder / "scheduler.json"
    with _process("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(path)):
        _wait_for_file(path)
        yield path


@contextmanager
def workers(scheduler_file, *options, number=1):
    """Start a process with workers, which is to start them again when they die unless ``--no-nanny`` is given."""
    folder = scheduler_file.parent
    fixed = ["--scheduler-file", str(scheduler_file), "--host", "127.0.0.1", "--nthreads", "1", "--memory-limit", "0"]
    fixed += ["--nworkers", str(number), "--local-directory", str(folder), "--death-timeout", "20"]
    with _process("worker", *fixed, *options) as process:
        yield process


@contextmanager
def _process(kind, *arguments):
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *QUIET, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # functions of tests are found by their names
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=silent, stderr=silent, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with the workers that it started
        process.wait()


def _wait_for_file(path, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            parse_address(str(path))
        except ConfigError:  # not there, or half-written
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"no scheduler wrote {path} within {seconds} s")


@contextmanager
def cluster_of(folder, *each):
    """Start a scheduler, and one process of workers for each tuple of options; yield the scheduler file."""
    with ExitStack() as stack:
        path = stack.enter_context(scheduler(folder))
        for options in each:
            stack.enter_context(workers(path, *options))
        yield path
