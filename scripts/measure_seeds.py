"""Compare an ensemble of seeds with one of folds: calibration, and how well each knows which cases are wrong.

python scripts/measure_seeds.py DATASET --iterations 200 --training-cases 40 --test-cases 60 --work WORK

Cases of a dense data set are drawn for training and for testing. Members of the first kind train on all training cases,
with different seeds; those of the second are the folds, with one seed. Both predict the test cases.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from compare_nnunet import check_settings
from seed_scores import CaseScores, Floats, markdown, score_case

from autoseg.cli import common
from autoseg.cli.plan_and_preprocess import plan_and_preprocess
from autoseg.core.atomic import write_json
from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.workspace import ALL, Workspace
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.inference import Predictor
from autoseg.io.images import read_labels
from autoseg.io.raw_layout import put_file, put_images
from autoseg.training.fold import train_fold
from autoseg.training.prepare import check_folder, prepare_fold
from autoseg.training.run_config import RunOptions

log = logging.getLogger("autoseg.measure_seeds")

N_MEMBERS = 5
"""Seeds, and folds."""


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(measure, lists={"--set": r"[A-Za-z_][\w.]*=.*"})


def measure(
    dataset: Annotated[Path, typer.Argument(help="Densely labelled data set with classes: folder or dataset json.")],
    iterations: Annotated[int, typer.Option(min=1, help="Optimiser steps of every training.")],
    *,
    n_training: Annotated[int, typer.Option("--training-cases", min=N_MEMBERS, help="Cases to train on.")] = 40,
    n_test: Annotated[int, typer.Option("--test-cases", min=3, help="Cases that nothing is trained on.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Draws the cases; the first of the members' seeds.")] = 1,
    configuration: Annotated[str, typer.Option("-c", help="2d, 3d_fullres or 3d_lowres.")] = "3d_fullres",
    planner: Annotated[str, typer.Option(help="As of autoseg_plan_and_preprocess.")] = "small",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="Settings of the trainings.")
    ] = None,
    mirrors: common.MirrorOption = True,
    work: Annotated[Path, typer.Option(help="Folder of all runs; finished ones are not done again.")] = Path(
        "seeds_measured"
    ),
    threads: Annotated[int, typer.Option(min=1, help="Threads of the network.")] = 1,
) -> None:
    """Train five seeds and five folds on the same cases; print calibration and rank correlations on test cases."""
    common.set_up_logging()
    torch.set_num_threads(threads)
    source, work = Dataset.load(dataset), work.absolute()
    if not source.labels.is_dense or source.labels.has_regions:
        raise ConfigError(f"{dataset}: found sparse labels or regions, expected dense labels of classes.")
    training, test = drawn_cases(source, n_training, n_test, seed)
    shared = {
        "dataset": str(source.folder.resolve()), "training": training, "test": test, "iterations": iterations,
        "seed": seed, "configuration": configuration, "planner": planner, "settings": settings or [],
        "mirrors": mirrors, "threads": threads,
    }  # fmt: skip
    check_settings(work, shared)
    write_json(work / "settings.json", shared)
    data = training_set(source, training, work / "raw" / source.name)
    with redirect_stdout(sys.stderr):  # stdout is for the table
        plan_and_preprocess(
            str(data.folder), configurations=[configuration], planner=planner, root=work / "workspace", workers=1,
            quiet=True,
        )  # fmt: skip
    common.set_up_logging()
    options = RunOptions(
        ALL, configuration, device="cpu", iterations=iterations, seed=seed, settings=tuple(settings or ())
    )
    cases = [source.case(name) for name in test]
    predictions = {
        kind: [predicted(data, work, member, cases, mirrors=mirrors) for member in members]
        for kind, members in members_of(options).items()
    }
    print(markdown(table_rows(predictions, cases, source)))


def drawn_cases(source: Dataset, n_training: int, n_test: int, seed: int) -> tuple[list[str], list[str]]:
    """Return sorted names of training and test cases; raise ``ConfigError`` if there are too few."""
    if n_training + n_test > len(source.case_names):
        raise ConfigError(
            f"{source.name}: found {len(source.case_names)} cases, expected {n_training + n_test} or more. Give "
            "smaller numbers of --training-cases and --test-cases."
        )
    names = [str(name) for name in np.random.default_rng(seed).permutation(source.case_names)]
    return sorted(names[:n_training]), sorted(names[n_training : n_training + n_test])


def training_set(source: Dataset, names: Sequence[str], folder: Path) -> Dataset:
    """Return a data set of links to some cases, made unless it is there."""
    if not (folder / DATASET_JSON).is_file():
        cases = [source.case(name) for name in names]
        put_images(cases, source.file_ending, folder / "imagesTr")
        (folder / "labelsTr").mkdir(exist_ok=True)
        for case in cases:
            put_file(label_of(case), folder / "labelsTr" / f"{case.name}{source.file_ending}")
        content = {key: value for key, value in source.json.items() if key not in ("dataset", "cases")}
        write_json(folder / DATASET_JSON, content | {"numTraining": len(cases)})
    return Dataset.load(folder)


def label_of(case: CaseFiles) -> Path:
    """Return the label file of a case; raise ``AutosegError`` if it has none."""
    if case.label is None:
        raise AutosegError(f"case {case.name}: found no label file, expected one.")
    return case.label


def members_of(options: RunOptions) -> dict[str, list[RunOptions]]:
    """Return the runs of both kinds: seeds on all cases, and folds with one seed."""
    first = options.seed or 0
    return {
        "seeds": [replace(options, fold=ALL, name=f"seed{first + k}", seed=first + k) for k in range(N_MEMBERS)],
        "folds": [replace(options, fold=str(k), name="folds") for k in range(N_MEMBERS)],
    }


def predicted(data: Dataset, work: Path, options: RunOptions, cases: Sequence[CaseFiles], *, mirrors: bool) -> Path:
    """Return the folder with a member's probabilities of the test cases; trains and predicts what is not there."""
    request = prepare_fold(Workspace(work / "workspace"), data, options)
    name = f"{request.name}, fold {request.fold}"
    if not (request.folder / "checkpoint_final.pt").is_file():
        check_folder(request.folder, resume=False, overwrite=True)
        log.info("%s: training", name)
        log.info("%s: trained in %.0f s", name, train_fold(request).seconds)
    folder = work / "predictions" / f"{request.name}_{request.fold}"
    predictor = Predictor.load(request.folder.parent, [request.fold], "cpu", mirror=mirrors)
    report = predictor.predict_files({case.name: case.images for case in cases}, folder, save_probabilities=True)
    if report.failed:
        raise AutosegError(f"{folder}: cases could not be predicted: {dict(report.failed)}")
    log.info("%s: predicted", name)
    return folder


def table_rows(
    predictions: dict[str, list[Path]], cases: Sequence[CaseFiles], source: Dataset
) -> dict[str, list[list[CaseScores]]]:
    """Return title -> ensembles -> scores of the cases: single members of each kind, and the mean of all of a kind."""
    rows: dict[str, list[list[CaseScores]]] = {}
    for kind, folders in predictions.items():
        singles: list[list[CaseScores]] = [[] for _ in folders]
        together: list[CaseScores] = []
        for case in cases:
            labels, _ = read_labels(label_of(case))
            classes = np.searchsorted(source.labels.class_values, labels)
            members = [read_probabilities(folder / f"{case.name}.npz") for folder in folders]
            for scores, member in zip(singles, members, strict=True):
                scores.append(score_case([member], classes))
            together.append(score_case(members, classes))
        rows[f"one of {len(folders)} {kind} (median)"] = singles
        rows[f"{len(folders)} {kind}"] = [together]
    return rows


def read_probabilities(path: Path) -> Floats:
    """Return the probabilities (K, z, y, x) of a case."""
    with np.load(path) as file:
        probabilities: Floats = file["probabilities"]
    return probabilities


if __name__ == "__main__":
    main()
