"""Measure fusion of experts, and models trained on it, against the truth that the authors of the images published.

python scripts/measure_experts.py DATA --work WORK --iterations 300 --seeds 1 2 3 --nnunet-python ENV/bin/python

DATA holds a folder for each lab: images, labels/EXPERT and labels/est_GT. In each lab the last images (by name) are
held out; autoseg is trained on the fused masks of the others, decided ones and sets, and nnU-Net on the decided ones.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from compare_nnunet import Comparison, check_settings, check_version, run_autoseg
from expert_labs import (
    Lab,
    dice_of_masks,
    dice_where_agreed,
    dice_with_truth,
    find_labs,
    fused,
    size_of_truth,
    undecided_share,
    write_masks,
)
from expert_run_table import LabScores, ModelRun, fusion_table, model_table, pair_table
from nnunet_side import TESTED_VERSION, NnunetSide

from autoseg.cli import common
from autoseg.cli.plan_and_preprocess import plan_and_preprocess
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError
from autoseg.dataset.dataset import Dataset
from autoseg.training.run_config import RunOptions

log = logging.getLogger("autoseg.measure_experts")

TITLES = {
    "staple": "autoseg on staple",
    "sets": "autoseg on sets",
    "nnunet": "nnU-Net (SGD) on staple",
    "nnunet-ours": "nnU-Net with autoseg's optimiser on staple",
}
"""System -> its name in the tables. ``nnunet-ours`` takes autoseg's optimiser and schedule."""
FUSED = ("staple", "majority")
"""Methods whose masks can be compared with the truth directly; ``sets`` decides nothing where experts disagree."""
NUMBERS = {"staple": 901, "majority": 903, "sets": 902}
"""Of the data sets of each method."""
CONFIGURATION = "2d"
RESULT = "result.json"


@dataclass(frozen=True)
class Measurement:
    """Settings that the runs of all labs share."""

    work: Path
    options: RunOptions
    planner: str
    threads: int
    n_held_out: int
    nnunet_python: Path | None


def main() -> None:
    """Run the command on the process's arguments."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lists = {"--seeds": r"\d+", "--labs": r"\w[\w.-]*", "--systems": "|".join(TITLES), "--set": r"[A-Za-z_][\w.]*=.*"}
    common.run(measure, lists=lists)


def measure(
    data: Annotated[Path, typer.Argument(help="Folder of labs: LAB/images, LAB/labels/EXPERT, LAB/labels/est_GT.")],
    iterations: Annotated[int, typer.Option(min=1, help="Optimiser steps of every run.")],
    *,
    seeds: Annotated[list[int] | None, typer.Option("--seeds", metavar="N ...", min=0, help="Default: 1.")] = None,
    labs: Annotated[list[str] | None, typer.Option("--labs", metavar="NAME ...", help="Default: all.")] = None,
    systems: Annotated[
        list[str] | None,
        typer.Option("--systems", metavar="NAME ...", help=f"Among {', '.join(TITLES)} (default: those that can run)."),
    ] = None,
    nnunet_python: Annotated[
        Path | None,
        typer.Option(help=f"Python of an environment with nnunetv2=={TESTED_VERSION}; without it no nnU-Net."),
    ] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Images of each lab, the last by name, that are scored.")] = 2,
    planner: Annotated[str, typer.Option(help="autoseg's planner; all train its network.")] = "small",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="Settings of autoseg's runs.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder of all runs; finished ones are not done again.")] = Path(
        "experts_measured"
    ),
    threads: Annotated[int, typer.Option(min=1, help="Threads of each network.")] = 1,
    only_table: Annotated[
        bool, typer.Option("--only-table", help="Train nothing: tables of all runs of these labs that are finished.")
    ] = False,
) -> None:
    """Score fused masks, single experts, and models trained on fused masks against the truth, in one table each."""
    common.set_up_logging()
    torch.set_num_threads(threads)
    options = RunOptions("0", CONFIGURATION, device="cpu", iterations=iterations, settings=tuple(settings or ()))
    measurement = Measurement(work.absolute(), options, planner, threads, held_out, nnunet_python)
    chosen = chosen_systems(systems, nnunet_python)
    found = find_labs(data, labs)
    for lab in found:
        held_out_of(lab, held_out)
    if nnunet_python is not None:
        check_version(nnunet_side(measurement, measurement.work))
    asked = {
        "data": str(data.resolve()), "iterations": iterations, "held_out": held_out, "planner": planner,
        "settings": list(options.settings), "threads": threads,
    }  # fmt: skip
    check_settings(work, asked)
    write_json(work / "settings.json", asked)
    scores = [lab_scores(measurement, lab) for lab in found]
    print(fusion_table(scores), flush=True)
    if only_table:
        runs = [run for lab in found for run in finished_runs(measurement, lab)]
    else:  # seed by seed, so that all labs have something early
        runs = [run for seed in seeds or [1] for lab in found for run in run_lab(measurement, lab, chosen, seed)]
    write_json(
        work / "results.json", {"labs": [item.as_json() for item in scores], "runs": [run.as_json() for run in runs]}
    )
    print(f"\n{model_table(scores, runs, TITLES)}\n\n{pair_table(runs, 'staple', TITLES)}")


def chosen_systems(systems: Sequence[str] | None, nnunet_python: Path | None) -> list[str]:
    """Return the systems to run, in the order of the table; raise ``ConfigError`` if one does not exist or cannot."""
    unknown = sorted({*(systems or ())} - {*TITLES})
    if unknown:
        raise ConfigError(f"--systems: found {', '.join(unknown)}, expected some of {', '.join(TITLES)}.")
    theirs = [name for name in TITLES if name.startswith("nnunet")]
    if nnunet_python is None and (impossible := [name for name in theirs if name in (systems or ())]):
        raise ConfigError(f"--systems {' '.join(impossible)}: found no interpreter of nnU-Net. Give --nnunet-python.")
    wanted = systems or [name for name in TITLES if nnunet_python is not None or name not in theirs]
    return [name for name in TITLES if name in wanted]


def lab_scores(measurement: Measurement, lab: Lab) -> LabScores:
    """Return the Dice of fused masks and of each expert with the truth, on all images of a lab."""
    work = measurement.work / lab.name
    write_masks(lab, work)
    datasets = {method: fused_dataset(measurement, lab, method) for method in NUMBERS}
    return LabScores(
        lab.name,
        {name: dice_of_masks(work, datasets[name].folder / "labelsTr", name, lab.cases) for name in FUSED},
        {name: dice_of_masks(work, work / "masks" / name, name, lab.cases) for name in lab.experts},
        {name: undecided_share(work, data, lab.cases) for name, data in datasets.items()},
        held_out_of(lab, measurement.n_held_out),
    )


def held_out_of(lab: Lab, number: int) -> tuple[str, ...]:
    """Return the images that are scored; raise ``ConfigError`` if none would be left for training."""
    if number >= len(lab.cases):
        raise ConfigError(
            f"--held-out {number}: lab {lab.name} has {len(lab.cases)} images, expected at least one more than are "
            "held out. Give a smaller number."
        )
    return lab.cases[-number:]


def fused_dataset(measurement: Measurement, lab: Lab, method: str) -> Dataset:
    """Return the data set of a lab's masks, fused with ``method``."""
    held_out = held_out_of(lab, measurement.n_held_out)
    return fused(lab, measurement.work / lab.name, method, NUMBERS[method], held_out)


def run_lab(measurement: Measurement, lab: Lab, systems: Sequence[str], seed: int) -> list[ModelRun]:
    """Return the runs of one seed in a lab; those that finished before are read from their files."""
    return [run_once(measurement, lab, system, seed) for system in systems]


def finished_runs(measurement: Measurement, lab: Lab) -> list[ModelRun]:
    """Return the finished runs of a lab, by system and seed."""
    names = sorted(path.parent.name for path in (measurement.work / lab.name / "runs").glob(f"*/{RESULT}"))
    parts = [name.rpartition("_seed") for name in names]
    return [scored(measurement, lab, system, int(seed)) for system, _, seed in parts]


def scored(measurement: Measurement, lab: Lab, system: str, seed: int) -> ModelRun:
    """Return a finished run with the Dice of its predictions."""
    work = measurement.work / lab.name
    folder, cases = work / "runs" / f"{system}_seed{seed}", held_out_of(lab, measurement.n_held_out)
    measured = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    sets = fused_dataset(measurement, lab, "sets")
    return ModelRun(
        lab.name, system, seed, measured["processor_seconds"],
        dice_with_truth(work, folder / "predictions", cases), dice_where_agreed(sets, folder / "predictions", cases),
        size_of_truth(work, folder / "predictions", cases),
    )  # fmt: skip


def run_once(measurement: Measurement, lab: Lab, system: str, seed: int) -> ModelRun:
    """Train and predict the held-out images, unless that was done; return their scores."""
    work = measurement.work / lab.name
    folder = work / "runs" / f"{system}_seed{seed}"
    if (folder / RESULT).is_file():
        return scored(measurement, lab, system, seed)
    folder.mkdir(parents=True, exist_ok=True)
    method = system if system in NUMBERS else "staple"
    comparison = prepared(measurement, lab, fused_dataset(measurement, lab, method))
    request = comparison.request(f"{system}_seed{seed}", seed)
    log.info("%s, %s, seed %d: training (%s)", lab.name, system, seed, folder)
    if system == method:
        measured = run_autoseg(comparison, request, folder)
    else:
        side = nnunet_side(measurement, work)
        side.prepare(request)
        measured = side.train_and_predict(
            request, comparison.cases, folder, takes_our_optimizer=system == "nnunet-ours", seconds=None
        )
    write_json(folder / RESULT, measured)
    run = scored(measurement, lab, system, seed)
    log.info("%s, %s, seed %d: %.0f s, Dice %.3f", lab.name, system, seed, run.processor_seconds, run.score)
    return run


def nnunet_side(measurement: Measurement, work: Path) -> NnunetSide:
    """Return nnU-Net with its folders in ``work``."""
    return NnunetSide(measurement.nnunet_python or Path(), work / "nnunet", 1, measurement.threads)


def prepared(measurement: Measurement, lab: Lab, dataset: Dataset) -> Comparison:
    """Plan and preprocess a data set; return what its runs share."""
    work = measurement.work / lab.name
    comparison = Comparison(
        dataset, work, work / "truth", measurement.options, measurement.threads,
        held_out_of(lab, measurement.n_held_out),
    )  # fmt: skip
    started = time.monotonic()
    with redirect_stdout(sys.stderr):  # stdout is for the tables
        plan_and_preprocess(
            str(dataset.folder), configurations=[CONFIGURATION], planner=measurement.planner, root=comparison.root,
            workers=1, quiet=True,
        )  # fmt: skip
    common.set_up_logging()
    log.info("%s: prepared in %.0f s", dataset.name, time.monotonic() - started)
    return comparison


if __name__ == "__main__":
    main()
