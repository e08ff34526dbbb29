"""Kill a small training on the CPU at random moments, go on until it is finished, and compare it with one left alone.

python scripts/kill_and_resume.py [--kills 30] [--in-saves 10] [--iterations 2000] [--seed 0] [-j 1] [--json]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from autoseg.cli import common
from autoseg.cli.quickstart import CONFIGURATION, DATASET, write_dataset
from autoseg.core.workspace import Workspace
from autoseg.nn.checkpoint import Checkpoint, load_checkpoint
from autoseg.report.history import read_history
from autoseg.training.run_checkpoints import FINAL, LATEST, PREVIOUS, has_checkpoint, iteration_of, load_latest
from autoseg.training.run_lock import is_running

NETWORK = ("network.patch_size=16", "network.levels=2", "network.first_features=4")
SETTINGS = (
    "precision=float32", "iterations_per_epoch=20", "validation_iterations=1", "batch_picture=0",
    "checkpoint_every=0.01",
)  # fmt: skip
"""A checkpoint every 20 steps, and every 0.6 s between them."""
LONGEST_S = 600.0
"""Seconds without the end of a training after which something is wrong."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL."""

    moment: str
    """``any``, or ``save`` where the process was watched until it wrote a checkpoint."""
    after_s: float
    """Seconds since the process had taken the folder of the run."""
    unfinished_file: str
    """File of a checkpoint that was being written; empty if there was none."""
    latest: str
    """``whole``, ``none yet``, or ``the one before``, where the latest checkpoint was away or damaged."""
    iteration: int
    """From which the next session goes on."""


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(kill_and_resume)


def kill_and_resume(
    kills: Annotated[int, typer.Option(min=1, help="SIGKILLs.")] = 30,
    in_saves: Annotated[int, typer.Option(min=0, help="Of these, how many while a checkpoint is written.")] = 10,
    iterations: Annotated[int, typer.Option(min=1, help="Length of the run in optimiser steps.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="The moments follow from it.")] = 0,
    workers: Annotated[int, typer.Option("-j", "--workers", min=0, help="Worker processes of the training.")] = 1,
    as_json: common.JsonOption = False,
) -> None:
    """Train a run undisturbed and one that is killed and resumed; fail unless both have the same weights, bit by bit.

    Optimiser and history are compared, too. Moments are random over the sessions, their start included; the run is
    killed less often if it is finished before.
    """
    with tempfile.TemporaryDirectory() as folder:
        space = Workspace(Path(folder))
        prepare(space)
        command = training(space, iterations, workers)
        run([*command, "--name", "whole"])
        whole = space.model(DATASET, CONFIGURATION, "whole") / "fold_0"
        seconds = sum(record.seconds for record in read_history(whole / "history.jsonl"))
        draw = random.Random(seed)  # noqa: S311 (no secret)
        moments = ["save"] * min(in_saves, kills) + ["any"] * max(0, kills - in_saves)
        draw.shuffle(moments)
        hurt = space.model(DATASET, CONFIGURATION, "killed") / "fold_0"
        done: list[Kill] = []
        for moment in moments:
            kill = kill_once(
                [*command, "--name", "killed", "--resume"], hurt, moment, draw.uniform(0, 3 * seconds / kills)
            )
            if kill is None:
                break
            done.append(kill)
            print(f"killed {len(done)} times; goes on from iteration {kill.iteration}", file=sys.stderr, flush=True)
        run([*command, "--name", "killed", "--resume"])
        different = differences(whole, hurt)
    if as_json:
        common.print_json({"kills": [asdict(kill) for kill in done], "different": different})
    else:
        print(table(done))
    if different:
        raise common.IncompleteError(f"the resumed run differs from the one left alone in {', '.join(different)}")
    print(f"{len(done)} kills, {iterations} iterations: weights, optimiser and history are the same", file=sys.stderr)


def prepare(space: Workspace) -> None:
    """Write a data set of five generated cases, and plan and preprocess it for a tiny network."""
    write_dataset(space.raw(DATASET), 5, 0)
    options = ["-c", CONFIGURATION, "--planner", "small", "--root", str(space.root), "-j", "1", "--set", *NETWORK]
    run([sys.executable, "-m", "autoseg.cli.plan_and_preprocess", DATASET, *options])


def training(space: Workspace, iterations: int, workers: int) -> list[str]:
    """Return the command line of a training, without the name of the run."""
    return [
        sys.executable, "-m", "autoseg.cli.train", DATASET, "0", "-c", CONFIGURATION, "--root", str(space.root),
        "--device", "cpu", "--iterations", str(iterations), "-j", str(workers), "--set", *SETTINGS,
    ]  # fmt: skip


def run(command: list[str]) -> None:
    """Run a command to its end; raise ``IncompleteError`` with what it said if it fails."""
    done = subprocess.run(
        command, check=False, env=environment(), capture_output=True, encoding="utf-8", timeout=LONGEST_S
    )
    if done.returncode:
        raise common.IncompleteError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")


def environment() -> dict[str, str]:
    """Return variables with which sums are the same in all sessions: they depend on the number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def kill_once(command: list[str], folder: Path, moment: str, after_s: float) -> Kill | None:
    """Start a session, and kill it ``after_s`` after it has taken the folder, or in the next save; None if it ended."""
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not is_running(folder) and process.poll() is None:
            time.sleep(0.002)
        taken = time.monotonic()
        while process.poll() is None and time.monotonic() - taken < after_s:
            time.sleep(0.002)
        while process.poll() is None and moment == "save" and not being_written(folder, process.pid):
            time.sleep(0.0002)
        passed = time.monotonic() - taken
        if process.poll() is not None:
            text = process.stderr.read().decode(errors="replace") if process.stderr else ""
            if process.returncode:
                raise common.IncompleteError(f"a session ended with exit code {process.returncode}\n{text}")
            return None
        process.kill()
        process.wait()
    unfinished = being_written(folder, process.pid)
    return Kill(moment, passed, unfinished[0] if unfinished else "", *state_of(folder))


def being_written(folder: Path, process: int) -> list[str]:
    """Return the names of checkpoints that ``process`` writes, or was writing when it was killed."""
    names = [*folder.glob(f".{process}.tmp.checkpoint_*"), *folder.glob(f".{process}.{PREVIOUS}")]
    return sorted(path.name.removeprefix(f".{process}.").removeprefix("tmp.") for path in names)


def state_of(folder: Path) -> tuple[str, int]:
    """Return what became of the latest checkpoint, and the iteration from which the run goes on."""
    if not has_checkpoint(folder):
        return "none yet", 0
    try:
        return "whole", iteration_of(load_checkpoint(folder / LATEST))
    except common.AutosegError:
        return "the one before", iteration_of(load_latest(folder))


def differences(whole: Path, hurt: Path) -> list[str]:
    """Return what two finished runs do not have in common, bit by bit."""
    one, other = (load_checkpoint(folder / FINAL) for folder in (whole, hurt))
    steps = [
        [(record.iteration, record.train_loss, record.validation_loss, record.dice) for record in records]
        for records in (read_history(folder / "history.jsonl") for folder in (whole, hurt))
    ]
    return [
        *([] if same(one.weights, other.weights) else ["weights"]),
        *([] if same(*(optimizer(checkpoint) for checkpoint in (one, other))) else ["optimiser"]),
        *([] if steps[0] == steps[1] else ["history"]),
    ]


def optimizer(checkpoint: Checkpoint) -> object:
    """Return the state of the optimiser, tensors per weight and numbers."""
    return checkpoint.state["optimizer"]


def same(one: object, other: object) -> bool:
    """Whether nested tensors and plain values are equal, bit by bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def table(kills: list[Kill]) -> str:
    """Return the kills as a Markdown table."""
    lines = [
        "| kill | moment | after, s | was being written | latest checkpoint | goes on from |",
        "|---:|---|---:|---|---|---:|",
    ]
    for n, kill in enumerate(kills, 1):
        written = kill.unfinished_file or "-"
        lines.append(f"| {n} | {kill.moment} | {kill.after_s:.2f} | {written} | {kill.latest} | {kill.iteration} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
