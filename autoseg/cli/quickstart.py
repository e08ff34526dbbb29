"""``python -m autoseg.cli.quickstart``: the four commands on a data set made on the spot, from scribbles to a model."""

from __future__ import annotations

import json
import multiprocessing
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from autoseg.cli import common
from autoseg.cli.plain_lines import duration_text
from autoseg.core.workspace import Workspace

if TYPE_CHECKING:
    from autoseg.annotation.phantom import Phantom

DATASET = "Dataset999_Phantom"
CONFIGURATION = "3d_fullres"
N_TRAINING, N_TEST = 10, 4
FEWEST, MOST = 150, 300
"""Training iterations: the fewest that make a good model here (see docs/results.md), and those beyond which little is
gained."""
TRAINING_S = 180.0
"""Seconds that the training may take, if the fewest iterations fit."""


def quickstart(
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations", min=1, help=f"Training iterations (default: what fits 3 minutes, {FEWEST} to {MOST})."
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    root: common.RootOption = None,
) -> None:
    """Make a small 3-D data set with scribbles only, then plan, train, predict and evaluate on dense test labels.

    Prints the dense-test Dice and the path of a picture of image, scribbles, prediction and truth.
    """
    space = common.workspace(root)
    folder = space.raw(DATASET)
    if not (folder / "dataset.json").is_file():
        with common.progress("make the data set") as report:
            write_dataset(folder, progress=report)
    predictions = space.root / "predictions" / DATASET
    _run_command("plan_and_preprocess", _planning(space))
    length = measured_length(space, device) if iterations is None else iterations
    for module, arguments in _commands(space, predictions, length, device):
        _run_command(module, arguments)
    summary = json.loads((predictions / "summary.json").read_text(encoding="utf-8"))
    picture = space.root / "quickstart.png"
    draw_median_case(folder, predictions, summary, picture)
    classes = ", ".join(f"{summary['names'][key]} {_shown(mean['Dice'])}" for key, mean in summary["mean"].items())
    print(f"dense-test Dice: {_shown(summary['foreground_mean']['Dice'])} ({classes}; {summary['n_cases']} cases)")
    print(f"overlay picture: {picture.resolve()}")


def measured_length(space: Workspace, device: str) -> int:
    """Measure how long a step takes, choose the length of the training by it, and say both."""
    print(f"how many iterations fit {duration_text(TRAINING_S)}? timing a few steps", flush=True)
    with common.progress("timing") as report, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        step = pool.submit(_step_seconds, space.root, device).result()  # in a process that takes its memory with it
        report(1, 1, f"{step:.2g} s an iteration")
    length = choose_iterations(step)
    print(length_text(length, step), flush=True)
    return length


def choose_iterations(step: float) -> int:
    """Return how many iterations of ``step`` seconds fit ``TRAINING_S``, in whole tens from ``FEWEST`` to ``MOST``."""
    return max(FEWEST, min(MOST, int(TRAINING_S / step) // 10 * 10))


def length_text(length: int, step: float) -> str:
    """Say how long a training of ``length`` iterations of ``step`` seconds takes, and why it is that long."""
    reason = {FEWEST: "the fewest that make a good model", MOST: "more would gain little"}
    why = reason.get(length, f"what fits {duration_text(TRAINING_S)}")
    return (
        f"training will take about {duration_text(length * step)} on this machine: {length} iterations, {why} "
        "(--iterations sets another number)"
    )


def write_dataset(
    folder: Path,
    n_training: int = N_TRAINING,
    n_test: int = N_TEST,
    *,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> None:
    """Write training cases with scribbles and test cases with dense labels; dataset.json comes last."""
    from autoseg.annotation.phantom import CHANNEL, CLASSES, IGNORE, phantom_case
    from autoseg.core.atomic import write_json

    for seed in range(n_training + n_test):
        phantom = phantom_case(seed)
        is_training = seed < n_training
        labels = phantom.scribbles if is_training else phantom.truth
        _write_case(folder, "Tr" if is_training else "Ts", _case_name(seed), phantom, labels)
        progress(seed + 1, n_training + n_test, _case_name(seed))
    content = {
        "channel_names": {"0": CHANNEL},
        "labels": {**CLASSES, "ignore": IGNORE},
        "numTraining": n_training,
        "file_ending": ".nii.gz",
        "description": "Artificial. Training cases carry scribbles only; labelsTs is dense.",
    }
    write_json(folder / "dataset.json", content)


def draw_median_case(folder: Path, predictions: Path, summary: dict[str, Any], picture: Path) -> None:
    """Draw the test case with the median Dice."""
    from autoseg.annotation.phantom import phantom_case
    from autoseg.core.dataset import Dataset
    from autoseg.io.images import read_labels
    from autoseg.io.pictures import write_png
    from autoseg.report.overlay import Layer, draw_overlay

    ranked = sorted((_mean_dice(case), case["case"]) for case in summary["metric_per_case"])
    dice, case = ranked[len(ranked) // 2]
    phantom = phantom_case(int(case.rpartition("_")[2]))
    prediction, _ = read_labels(predictions / f"{case}.nii.gz")
    layers = [
        Layer("scribbles, as in training", phantom.scribbles),
        Layer(f"prediction, Dice {dice:.3f}", prediction),
        Layer("truth", phantom.truth),
    ]
    title = f"test case {case}: the model has seen only scribbles, on other cases"
    labels = Dataset.load(folder).labels
    write_png(picture, draw_overlay(phantom.image, layers, labels, phantom.spacing, title=title))


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(quickstart)


def _step_seconds(root: Path, device: str) -> float:
    """Return the seconds that an iteration of the training takes."""
    from autoseg.core.dataset import Dataset
    from autoseg.training.prepare import RunOptions, prepare_fold
    from autoseg.training.probe import seconds_per_iteration

    space = Workspace(root)
    options = RunOptions("0", CONFIGURATION, device=device, iterations=FEWEST, workers=common.n_workers(None))
    return seconds_per_iteration(prepare_fold(space, Dataset.load(space.raw(DATASET)), options))


def _planning(space: Workspace) -> list[str]:
    return [DATASET, "-c", CONFIGURATION, "--planner", "small", "--root", str(space.root)]


def _commands(space: Workspace, predictions: Path, iterations: int, device: str) -> list[tuple[str, list[str]]]:
    """Return the commands that follow planning: module of the command, arguments."""
    folder = space.raw(DATASET)
    root = ["--root", str(space.root)]
    train = [DATASET, "0", "-c", CONFIGURATION, "--iterations", str(iterations), "--device", device, "--overwrite"]
    predict = ["-i", str(folder / "imagesTs"), "-o", str(predictions), "-d", DATASET, "-c", CONFIGURATION, "-f", "0"]
    evaluate = [str(folder / "labelsTs"), str(predictions), "-d", str(folder / "dataset.json")]
    return [
        ("train", train + root),
        ("predict", [*predict, "--device", device, "--overwrite", *root]),
        ("evaluate_folder", [*evaluate, "-o", str(predictions / "summary.json"), "-j", "1"]),
    ]


def _run_command(name: str, arguments: list[str]) -> None:
    print(f"$ autoseg_{name} {shlex.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", f"autoseg.cli.{name}", *arguments], check=False)  # noqa: S603
    if done.returncode == common.EXIT_INTERRUPTED:
        raise common.StoppedError(f"autoseg_{name} was stopped.")
    if done.returncode != common.EXIT_DONE:
        raise common.IncompleteError(f"autoseg_{name} ended with exit code {done.returncode}; its message is above.")


def _write_case(folder: Path, kind: str, name: str, phantom: Phantom, labels: Any) -> None:
    """Write one image, as 16-bit integers like a scanner's, and its label map."""
    import numpy as np

    from autoseg.core.geometry import Geometry
    from autoseg.io.images import write_labels

    geometry = Geometry(spacing=phantom.spacing)
    intensities = np.clip(np.rint(phantom.image[0]), 0, 65535).astype(np.uint16)
    for path, array in (
        (folder / f"images{kind}" / f"{name}_0000.nii.gz", intensities),
        (folder / f"labels{kind}" / f"{name}.nii.gz", labels),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, array, geometry)


def _case_name(seed: int) -> str:
    return f"phantom_{seed:03d}"


def _mean_dice(case: dict[str, Any]) -> float:
    values = [metrics["Dice"] for metrics in case["metrics"].values() if metrics["Dice"] is not None]
    return sum(values) / len(values) if values else 0.0


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
