"""Time and memory of training steps: seconds of each part, bytes in use."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress

import torch

log = logging.getLogger(__name__)

BUSY_SECONDS = 20.0
"""Seconds of computing after which it is judged whether the processor was there for it."""
BUSY_SHARE = 0.5
"""Processor time per second of computing below which other work holds the processor."""


class Stopwatch:
    """Times of the steps since they were last taken.

    Parameters
    ----------
    device
        That computes. Only a training on the CPU is told that it waits for the processor.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        """Of all steps."""
        self.waited = 0.0
        """Of these, seconds in which the training waited for batches."""
        self._marks = (0.0, 0.0, 0.0)
        self._computed = self._processor = 0.0
        self._has_warned = device.type != "cpu"

    def begin_step(self) -> None:
        """Note that the wait for a batch begins."""
        self._marks = (time.monotonic(), 0.0, 0.0)

    def begin_computing(self) -> None:
        """Note that the batch is there."""
        self._marks = (self._marks[0], time.monotonic(), time.process_time())

    def end_step(self) -> None:
        """Note that the step is done; say once if the processor was elsewhere for most of the time."""
        now, processor = time.monotonic(), time.process_time()
        started, computing, processor_before = self._marks
        self.seconds += now - started
        self.waited += computing - started
        self._computed += now - computing
        self._processor += processor - processor_before
        if self._computed < BUSY_SECONDS:
            return
        if not self._has_warned and self._processor < BUSY_SHARE * self._computed:
            log.warning(
                "the training waits for the processor more than it computes (%.0f of %.0f s): other work holds it. "
                "Training is fastest when fewer programs compute at a time, or with fewer --threads and workers (-j)",
                self._computed - self._processor, self._computed,
            )  # fmt: skip
            self._has_warned = True
        self._computed = self._processor = 0.0

    def take(self) -> tuple[float, float]:
        """Return seconds of the steps, and of waiting, since the last call."""
        taken = self.seconds, self.waited
        self.seconds = self.waited = 0.0
        return taken


def memory_in_use_gb(device: torch.device) -> float | None:
    """Return the most memory in use so far, in 10^9 bytes: of a CUDA device, otherwise of this process.

    None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    with suppress(ImportError):  # not on Windows
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    return None
