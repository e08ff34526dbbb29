"""The number of worker processes that cores and free memory allow for the cases of a data set."""

from __future__ import annotations

import logging

from autoseg.core.parallel import Workers, available_cores
from autoseg.core.resources import GB, choose_workers, free_memory
from autoseg.dataset.dataset import Dataset
from autoseg.planning.memory_estimate import survey_bytes

log = logging.getLogger(__name__)


def readers(dataset: Dataset, given: Workers | None) -> Workers:
    """Return what reads and measures cases; ``given`` as for :func:`fitting_workers`."""
    return fitting_workers(given, survey_bytes(dataset), len(dataset.cases))


def fitting_workers(given: Workers | None, need: int, n_cases: int) -> Workers:
    """Return the number of processes, at most one per case; warn where memory may not suffice.

    Parameters
    ----------
    given
        What the user wants, which is taken as it is; so is a cluster, whose memory is not known here. None: one process
        per core, as many as free memory holds.
    need
        Bytes for the largest of the cases.
    n_cases
        Cases to work on.
    """
    if not (given is None or isinstance(given, int)):
        return given
    cores = min(available_cores(), max(n_cases, 1))
    wanted = None if given is None else min(given, max(n_cases, 1))
    workers, warning = choose_workers(wanted, need, cores=cores, free=free_memory())
    if warning is not None:
        log.warning("%s", warning)
    elif wanted is None and workers < cores:
        log.info("%d processes on %d cores: the largest case needs about %.1f GB", workers, cores, need / GB)
    return workers
