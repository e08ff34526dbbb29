"""Simulate a round of annotation on a dense data set, to compare what the methods of ``autoseg_suggest`` name.

python scripts/compare_suggestions.py DATASET --iterations 400 --seeds 1 2 3 -n 20 --work comparison_suggestions

Per seed: some cases are set aside for scoring, the others start with a few slices each. Two folds are trained on these,
each method names slices, they are added from the dense labels, and a network is trained on all of them and scored.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from autoseg.assist.suggest import Units, members_of, rank
from autoseg.assist.suggest_case import METHODS, Selection
from autoseg.cli import common
from autoseg.cli.plan_and_preprocess import plan_and_preprocess
from autoseg.core.atomic import write_json
from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.evaluation import evaluate_folder
from autoseg.inference import Predictor
from autoseg.inference.out_of_fold import CaseModels
from autoseg.io.images import read_labels, write_labels
from autoseg.io.raw_layout import put_images
from autoseg.planning.splits import NNUNET_SPLITS_FILE
from autoseg.training.fold import train_fold
from autoseg.training.prepare import check_folder, prepare_fold
from autoseg.training.request import FoldRequest
from autoseg.training.run_config import RunOptions

log = logging.getLogger("autoseg.compare_suggestions")

START, ALL = "start", "all"
Slices = dict[str, set[int]]
"""Case -> annotated slices."""
Dice = dict[str, float | None]


@dataclass(frozen=True)
class Simulation:
    """What all runs share."""

    source: Dataset
    work: Path
    options: RunOptions
    planner: str
    axis: int
    n_start: int
    number: int


def main() -> None:
    """Run the command on the process's arguments."""
    lists = {"--seeds": r"\d+", "--methods": "|".join(METHODS), "--set": r"[A-Za-z_]\w*=.*"}
    common.run(compare, lists=lists)


def compare(
    dataset: Annotated[Path, typer.Argument(help="Densely labelled data set: folder or dataset json.")],
    iterations: Annotated[int, typer.Option(min=1, help="Optimiser steps of every training.")],
    *,
    methods: Annotated[
        list[str] | None, typer.Option("--methods", metavar="NAME ...", help=f"Among {', '.join(METHODS)}.")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seeds", metavar="N ...", min=0, help="One round of each (default: 1).")
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Slices added by each method.")] = 20,
    n_start: Annotated[int, typer.Option("--start", min=1, help="Annotated slices per case at the start.")] = 1,
    n_pool: Annotated[int | None, typer.Option("--pool", min=2, help="Cases to annotate (default: all).")] = None,
    n_test: Annotated[int, typer.Option("--test", min=1, help="Cases set aside for scoring.")] = 10,
    axis: Annotated[int, typer.Option(min=0, max=2, help="Axis of the slices, 0 1 2 for z y x.")] = 0,
    configuration: Annotated[str, typer.Option("-c", help="2d, 3d_fullres or 3d_lowres.")] = "3d_fullres",
    planner: Annotated[str, typer.Option(help="As of autoseg_plan_and_preprocess.")] = "small",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="Settings of the trainings.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder of all runs; finished ones are not done again.")] = Path(
        "comparison_suggestions"
    ),
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file, too.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int, typer.Option("-j", "--workers", min=0, help="Processes that load data.")] = 1,
) -> None:
    """Add slices that each method suggests to a sparse start, train again, and score on dense references."""
    common.set_up_logging()
    source = Dataset.load(dataset)
    if not source.labels.is_dense:
        raise ConfigError(f"{dataset}: found sparse labels, expected dense ones, which the annotation is copied from.")
    options = RunOptions(
        ALL, configuration, device=device, iterations=iterations, settings=tuple(settings or ()), workers=workers
    )
    simulation = Simulation(source, work.absolute(), options, planner, axis, n_start, number)
    chosen = [name for name in METHODS if name in (methods or METHODS)]
    scores: dict[str, dict[int, Dice]] = {}
    for seed in seeds or [1]:
        for name, dice in run_seed(simulation, chosen, seed, n_pool, n_test).items():
            scores.setdefault(name, {})[seed] = dice
        if json_path is not None:
            write_json(json_path, {"number": number, "start": n_start, "iterations": iterations, "scores": scores})
    print(markdown(scores))


def run_seed(
    simulation: Simulation, methods: Sequence[str], seed: int, n_pool: int | None, n_test: int
) -> dict[str, Dice]:
    """Return the Dice of the start and of each method on the cases set aside."""
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(simulation.source.case_names)]
    test, pool = names[:n_test], names[n_test:][:n_pool]
    if len(pool) < 2:
        raise ConfigError(f"{simulation.source.name}: found {len(names)} cases, expected {n_test + 2} or more.")
    own = replace(
        simulation,
        work=simulation.work / f"seed{seed}",
        options=replace(simulation.options, seed=seed),
    )
    sizes = {name: label_shape(simulation.source.case(name))[simulation.axis] for name in pool}
    start: Slices = {
        name: {int(index) for index in rng.permutation(size)[: simulation.n_start]} for name, size in sizes.items()
    }
    results = {START: score(own, START, start, test)}
    for method in methods:
        slices = {
            name: indices | suggested(own, method, start, seed).get(name, set()) for name, indices in start.items()
        }
        results[method] = score(own, method, slices, test)
    return results


def suggested(simulation: Simulation, method: str, start: Slices, seed: int) -> Slices:
    """Return the slices that a method names, from two folds trained on the start."""
    path = simulation.work / f"suggested_{method}.json"
    if not path.is_file():
        requests = [trained(simulation, START, start, fold) for fold in ("0", "1")]
        data, folder = requests[0].dataset, requests[0].folder.parent
        cases = {case.name: case for case in data.cases}
        models = CaseModels(folder, members_of(folder, list(cases), ["0", "1"]), simulation.options.device)
        selection = Selection(simulation.number, method, seed=seed)  # type: ignore[arg-type]
        ranking = rank(cases, models, data.labels, Units("slice", simulation.axis), selection)
        write_json(path, [[item.case, item.low[simulation.axis]] for item in ranking.suggestions])
    chosen: Slices = {}
    for case, index in json.loads(path.read_text(encoding="utf-8")):
        chosen.setdefault(case, set()).add(index)
    return chosen


def score(simulation: Simulation, name: str, slices: Slices, test: Collection[str]) -> Dice:
    """Return the Dice of a network trained on all cases with these slices; from its file if it is there."""
    path = simulation.work / f"scores_{name}.json"
    if not path.is_file():
        request = trained(simulation, name, slices, ALL)
        source, predictions = simulation.source, simulation.work / f"predictions_{name}"
        predictor = Predictor.load(request.folder.parent, [ALL], request.device)
        report = predictor.predict_files(
            {case: source.case(case).images for case in test}, predictions, workers=simulation.options.workers
        )
        references = source.case(next(iter(test))).label
        if report.failed or references is None:
            raise AutosegError(f"{predictions}: cases could not be predicted: {dict(report.failed)}")
        summary = evaluate_folder(references.parent, predictions, source, cases=tuple(test))
        per_class = {summary.names[key]: metrics["Dice"] for key, metrics in summary.mean.items()}
        n_slices = sum(map(len, slices.values()))
        write_json(path, {"slices": n_slices, "foreground": summary.foreground_mean["Dice"], **per_class})
        log.info("%s: %s", name, path.read_text(encoding="utf-8"))
    dice: Dice = json.loads(path.read_text(encoding="utf-8"))
    return dice


def trained(simulation: Simulation, name: str, slices: Slices, fold: str) -> FoldRequest:
    """Return the request of a finished training on a sparse copy with these slices; trains unless that was done."""
    raw = simulation.work / "raw" / f"{simulation.source.name}_{name}"
    if not (raw / DATASET_JSON).is_file():
        write_sparse(simulation, raw, slices)
    root, options = simulation.work / "workspace", replace(simulation.options, fold=fold)
    with redirect_stdout(sys.stderr):  # stdout is for the table
        plan_and_preprocess(
            str(raw), configurations=[options.configuration or "3d_fullres"], planner=simulation.planner, root=root,
            workers=max(1, options.workers), quiet=True,
        )  # fmt: skip
    common.set_up_logging()
    request = prepare_fold(Workspace(root), Dataset.load(raw), options)
    if not (request.folder / "checkpoint_final.pt").is_file():
        check_folder(request.folder, resume=False, overwrite=True)
        log.info("%s, fold %s: training", raw.name, fold)
        train_fold(request)
    return request


def write_sparse(simulation: Simulation, folder: Path, slices: Slices) -> None:
    """Write a copy of the cases of ``slices`` with only these slices annotated, and two folds."""
    source = simulation.source
    ignore = max(source.labels.file_values()) + 1
    cases = [source.case(name) for name in sorted(slices)]
    put_images(cases, source.file_ending, folder / "imagesTr")
    for case in cases:
        labels, geometry = read_case_labels(case)
        index = (slice(None),) * simulation.axis + (sorted(slices[case.name]),)
        sparse = np.full(labels.shape, ignore, dtype=np.uint16)
        sparse[index] = labels[index]
        write_labels(folder / "labelsTr" / f"{case.name}{source.file_ending}", sparse, geometry)
    names = [case.name for case in cases]
    halves = names[::2], names[1::2]
    write_json(folder / NNUNET_SPLITS_FILE, [{"train": halves[side], "val": halves[1 - side]} for side in (0, 1)])
    content = {key: value for key, value in source.json.items() if key not in ("dataset", "cases")}
    content["labels"] = content["labels"] | {"ignore": ignore}
    write_json(folder / DATASET_JSON, content | {"numTraining": len(cases)})


def read_case_labels(case: CaseFiles) -> tuple[np.ndarray[Any, Any], Any]:
    """Return labels (z, y, x) and geometry of a case."""
    if case.label is None:
        raise AutosegError(f"case {case.name}: found no label file, expected one.")
    return read_labels(case.label)


def label_shape(case: CaseFiles) -> tuple[int, ...]:
    """Return the shape (z, y, x) of a case."""
    return read_case_labels(case)[0].shape


def markdown(scores: Mapping[str, Mapping[int, Dice]]) -> str:
    """Return one row per method: annotated slices, and the Dice of each seed and its mean."""
    seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
    lines = [
        "| method | slices | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean |",
        "|---" * (len(seeds) + 3) + "|",
    ]
    for name, by_seed in scores.items():
        values = [by_seed[seed]["foreground"] if seed in by_seed else None for seed in seeds]
        known = [value for value in values if value is not None]
        slices = next(iter(by_seed.values()))["slices"]
        mean = f"{sum(known) / len(known):.3f}" if known else "-"
        shown = " | ".join("-" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"| {name} | {slices:.0f} | {shown} | {mean} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
