"""Threads that a training computes with: as many as the user says, otherwise as many as cores are free at its start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from autoseg.cli.common import log
from autoseg.core.parallel import available_cores, free_cores

if TYPE_CHECKING:
    from autoseg.training.request import FoldRequest

THREADS = "OMP_NUM_THREADS"
"""Variable by which the user, or the starter of several processes, has chosen."""
VARIABLES = (THREADS, "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Variables that libraries read when they are loaded."""


def share_of_threads(size: int, given: int | None = None) -> dict[str, str]:
    """Return the variable by which each of ``size`` processes computes with its share of the cores, or of ``given``.

    Empty if the user has set it, and not ``given`` a number.
    """
    if given is None and THREADS in os.environ:
        return {}
    return {THREADS: str(max(1, (given or available_cores()) // size))}


def settle_threads(given: int | None, request: FoldRequest, *, resume: bool, is_alone: bool) -> None:
    """Let torch and the libraries below compute with ``given`` threads.

    Without a number nothing changes where a variable has it, on a GPU, or unless this process ``is_alone``. Otherwise
    a run that goes on has the threads that it had, since sums depend on their number in the last bit; a new one has as
    many as cores are free, or all if it is to be deterministic.
    """
    threads = given or (_chosen(request, resume=resume) if is_alone and THREADS not in os.environ else None)
    if threads is not None:
        use_threads(threads)


def _chosen(request: FoldRequest, *, resume: bool) -> int | None:
    """Return the number of threads for a run whose user did not say; None leaves the choice to torch."""
    from autoseg.nn.device import select_device
    from autoseg.training.resuming import threads_of

    if select_device(request.device).type != "cpu":
        return None
    cores, of_run = available_cores(), threads_of(request.folder) if resume else None
    if of_run is not None:
        return min(of_run, cores)
    free = cores if request.config.deterministic else free_cores()
    if free >= cores:
        return None
    log.info("computing with %d of %d threads: other programs hold the processor (see --threads)", free, cores)
    return free


def use_threads(n: int) -> None:
    """Let torch, the libraries of numpy and scipy, and all that is started from now on compute with ``n`` threads."""
    import torch
    from threadpoolctl import threadpool_limits

    os.environ.update(dict.fromkeys(VARIABLES, str(n)))
    threadpool_limits(n)  # those that are loaded
    torch.set_num_threads(n)
