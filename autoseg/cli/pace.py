"""How fast this machine trains, and how long a training that must not take long may therefore be."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from autoseg.cli import common
from autoseg.cli.plain_lines import duration_text

FEWEST, MOST = 150, 300
"""Iterations: the fewest that make a good model of the generated data set (see docs/results.md), and those beyond which
little is gained."""
TRAINING_S = 180.0
"""Seconds that the training may take, if the fewest iterations fit."""
CLEARLY = 0.9
"""Fewer threads are taken if a step then takes less than this share of its time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a few steps showed."""

    step_s: float
    """Seconds of an iteration with ``threads``."""
    threads: int | None = None
    """Threads to train with; None leaves the choice to torch."""


def measure_pace(root: Path, dataset: str, configuration: str, device: str) -> Pace:
    """Time a few steps of fold 0 with as many threads as torch takes and, on the CPU, with half of them.

    In a process of its own, which takes torch's memory with it. Raises what planning and training raise.
    """
    run = (root, dataset, configuration, device)
    with common.progress("timing") as report, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        threads, step, is_cpu = pool.submit(_time_steps, *run, None).result()
        steps = {threads: step}
        fewer = threads // 2 if is_cpu else 0
        report(1, 1 + bool(fewer), f"{step:.2g} s an iteration, threads: {threads}")
        if fewer:
            _, steps[fewer], _ = pool.submit(_time_steps, *run, fewer).result()
            report(2, 2, f"{steps[fewer]:.2g} s an iteration, threads: {fewer}")
    return choose_pace(steps)


def choose_pace(steps: Mapping[int, float]) -> Pace:
    """Return the pace to train at, from threads -> seconds an iteration.

    The most threads, which are torch's own choice, unless fewer are clearly faster: so it is where other work keeps a
    part of the processor busy, since each thread waits for the slowest at every layer.
    """
    most, fastest = max(steps), min(steps, key=lambda threads: steps[threads])
    return Pace(steps[fastest], fastest) if steps[fastest] < CLEARLY * steps[most] else Pace(steps[most])


def choose_iterations(step_s: float) -> int:
    """Return how many iterations of ``step_s`` fit ``TRAINING_S``, in whole tens from ``FEWEST`` to ``MOST``."""
    return max(FEWEST, min(MOST, int(TRAINING_S / step_s) // 10 * 10))


def length_text(length: int, pace: Pace) -> str:
    """Say how long a training of ``length`` iterations takes, and why it is that long."""
    reason = {FEWEST: "the fewest that make a good model", MOST: "more would gain little"}
    why = reason.get(length, f"what fits {duration_text(TRAINING_S)}")
    thread = "1 thread is" if pace.threads == 1 else f"{pace.threads} threads are"
    shared = "" if pace.threads is None else f" Other work shares the processor, so {thread} faster than more."
    return (
        f"training will take about {duration_text(length * pace.step_s)} on this machine: {length} iterations, {why} "
        f"(--iterations sets another number).{shared}"
    )


def _time_steps(
    root: Path, dataset: str, configuration: str, device: str, threads: int | None
) -> tuple[int, float, bool]:
    """Return the number of threads (None: torch's own), seconds an iteration, and whether the CPU computed."""
    import torch

    from autoseg.core.workspace import Workspace
    from autoseg.nn.device import select_device
    from autoseg.training.prepare import prepare_fold
    from autoseg.training.probe import seconds_per_iteration
    from autoseg.training.run_config import RunOptions

    if threads is not None:
        torch.set_num_threads(threads)
    space = Workspace(root)
    options = RunOptions("0", configuration, device=device, iterations=FEWEST, workers=common.n_workers(None))
    request = prepare_fold(space, common.load_dataset(space, dataset), options)
    return torch.get_num_threads(), seconds_per_iteration(request), select_device(device).type == "cpu"
