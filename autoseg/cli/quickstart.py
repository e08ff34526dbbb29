"""``python -m autoseg.cli.quickstart``: the four commands on a generated data set, from scribbles to a model."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from autoseg.cli import common
from autoseg.cli.pace import FEWEST, MOST, TRAINING_S, choose_iterations, length_text, measure_pace
from autoseg.cli.plain_lines import duration_text
from autoseg.core.progress import Progress, silent
from autoseg.core.workspace import Workspace

if TYPE_CHECKING:
    from autoseg.simulation.phantom import Phantom

DATASET = "Dataset999_Phantom"
CONFIGURATION = "3d_fullres"
N_TRAINING, N_TEST = 10, 4


def quickstart(
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations",
            min=1,
            help=f"Training iterations (default: what fits {duration_text(TRAINING_S)}, from {FEWEST} to {MOST}).",
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    root: common.RootOption = None,
) -> None:
    """Make a small 3-D data set with scribbles only, plan, train, predict, and evaluate on dense test labels.

    Prints the dense-test Dice and the path of a picture of image, scribbles, prediction and truth.
    """
    space = common.workspace(root)
    folder = space.raw(DATASET)
    if not (folder / "dataset.json").is_file():
        with common.progress("make the data set") as report:
            write_dataset(folder, progress=report)
    predictions = space.root / "predictions" / DATASET
    _run_command("plan_and_preprocess", _planning(space))
    threads = None
    if iterations is None:
        iterations, threads = fitting_length(space, device)
    for module, arguments in _commands(space, predictions, iterations, device):
        _run_command(module, arguments, threads)
    summary = json.loads((predictions / "summary.json").read_text(encoding="utf-8"))
    picture = space.root / "quickstart.png"
    draw_median_case(folder, predictions, summary, picture)
    classes = ", ".join(f"{summary['names'][key]} {_shown(mean['Dice'])}" for key, mean in summary["mean"].items())
    print(f"dense-test Dice: {_shown(summary['foreground_mean']['Dice'])} ({classes}; {summary['n_cases']} cases)")
    print(f"overlay picture: {picture.resolve()}")


def fitting_length(space: Workspace, device: str) -> tuple[int, int | None]:
    """Time a few steps, print the result, and return iterations and threads (None: as torch chooses) to train with."""
    print("timing a few training steps to choose the length of the training", flush=True)
    pace = measure_pace(space.root, DATASET, CONFIGURATION, device)
    length = choose_iterations(pace.step_s)
    print(length_text(length, pace), flush=True)
    return length, pace.threads


def write_dataset(
    folder: Path,
    n_training: int = N_TRAINING,
    n_test: int = N_TEST,
    *,
    progress: Progress = silent,
) -> None:
    """Write training cases with scribbles and test cases with dense labels; dataset.json last."""
    from autoseg.core.atomic import write_json
    from autoseg.simulation.phantom import CHANNEL, CLASSES, IGNORE, phantom_case

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
        "description": "Artificial. Training cases have scribbles only; labelsTs is dense.",
    }
    write_json(folder / "dataset.json", content)


def draw_median_case(folder: Path, predictions: Path, summary: dict[str, Any], picture: Path) -> None:
    """Draw the test case with the median Dice."""
    from autoseg.dataset.dataset import Dataset
    from autoseg.io.images import read_labels
    from autoseg.io.png import write_png
    from autoseg.report.overlay import Layer, draw_overlay
    from autoseg.simulation.phantom import phantom_case

    ranked = sorted((_mean_dice(case), case["case"]) for case in summary["metric_per_case"])
    dice, case = ranked[len(ranked) // 2]
    phantom = phantom_case(int(case.rpartition("_")[2]))
    prediction, _ = read_labels(predictions / f"{case}.nii.gz")
    layers = [
        Layer("scribbles, as in training", phantom.scribbles),
        Layer(f"prediction, Dice {dice:.3f}", prediction),
        Layer("truth", phantom.truth),
    ]
    title = f"test case {case}: the model was trained on scribbles of other cases only"
    labels = Dataset.load(folder).labels
    write_png(picture, draw_overlay(phantom.image, layers, labels, phantom.spacing, title=title))


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(quickstart)


def _planning(space: Workspace) -> list[str]:
    return [DATASET, "-c", CONFIGURATION, "--planner", "small", "--root", str(space.root)]


def _commands(space: Workspace, predictions: Path, iterations: int, device: str) -> list[tuple[str, list[str]]]:
    """Return the commands after planning, each as (module, arguments)."""
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


def _run_command(name: str, arguments: list[str], threads: int | None = None) -> None:
    """Print and run a command of this package as a user would, with ``threads`` if given."""
    setting = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    prefix = "".join(f"{key}={value} " for key, value in setting.items())
    print(f"$ {prefix}autoseg_{name} {shlex.join(arguments)}", flush=True)
    line = [sys.executable, "-m", f"autoseg.cli.{name}", *arguments]
    done = subprocess.run(line, check=False, env=os.environ | setting)  # noqa: S603
    if done.returncode == common.EXIT_INTERRUPTED:
        raise common.StoppedError(f"autoseg_{name} was stopped.")
    if done.returncode != common.EXIT_DONE:
        raise common.IncompleteError(f"autoseg_{name} ended with exit code {done.returncode}; its message is above.")


def _write_case(folder: Path, kind: str, name: str, phantom: Phantom, labels: Any) -> None:
    """Write one image, as 16-bit integers as scanners do, and its label map (z, y, x)."""
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
