"""Time of a training step beside programs that keep the processor busy, by number of threads.

nice -n -20 python scripts/benchmarks/busy_machine.py [--busy 0 1 2] [--rounds 2]

The priority, where the system allows it, keeps everything else out of the measurement.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as commands do, before torch is imported

import torch

from autoseg.cli.quickstart import CONFIGURATION, DATASET, write_dataset
from autoseg.core.parallel import available_cores
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.planning import extract_fingerprint, plan
from autoseg.planning.files import FINGERPRINT_FILE, PLAN_FILE, save_fingerprint, save_plan
from autoseg.preprocessing.runner import preprocess_dataset
from autoseg.training.prepare import prepare_fold
from autoseg.training.probe import seconds_per_iteration
from autoseg.training.request import FoldRequest
from autoseg.training.run_config import RunOptions


def main() -> None:
    """Measure, and print a Markdown table of seconds per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", nargs="*", type=int, default=[0, 1, 2], help="numbers of busy programs")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    numbers = sorted({available_cores(), 1}, reverse=True)
    with tempfile.TemporaryDirectory() as folder:
        request = prepare(Path(folder))
        times: dict[tuple[int, int], list[float]] = {(n, k): [] for n in options.busy for k in numbers}
        for _ in range(options.rounds):
            for n, k in times:
                torch.set_num_threads(k)
                with busy(n):
                    times[n, k].append(seconds_per_iteration(request))
    print("| busy programs | " + " | ".join(f"{k} threads, s a step" for k in numbers) + " |")
    print("|---:|" + "---:|" * len(numbers))
    for n in options.busy:
        print(f"| {n} | " + " | ".join(f"{statistics.median(times[n, k]):.3f}" for k in numbers) + " |")


def prepare(root: Path) -> FoldRequest:
    """Return the training of the quickstart, on five generated cases."""
    space = Workspace(root)
    write_dataset(space.raw(DATASET), 5, 0)
    dataset = Dataset.load(space.raw(DATASET))
    folder = space.preprocessed(DATASET)
    fingerprint = extract_fingerprint(dataset)
    planned = plan(dataset, fingerprint, "small")
    save_fingerprint(fingerprint, folder / FINGERPRINT_FILE)
    save_plan(planned, folder / PLAN_FILE)
    preprocess_dataset(dataset, planned, CONFIGURATION, folder / CONFIGURATION)
    options = RunOptions("0", CONFIGURATION, device="cpu", iterations=100, settings=["batch_picture=0"], workers=0)
    return prepare_fold(space, dataset, options)


@contextmanager
def busy(n: int) -> Iterator[list[int]]:
    """Let ``n`` programs compute beside the block; yields their ids."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield [program.pid for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()


if __name__ == "__main__":
    main()
