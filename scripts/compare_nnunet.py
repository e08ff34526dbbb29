"""Train autoseg and nnU-Net on the same cases and print one table of their scores on dense references.

python scripts/compare_nnunet.py DATASET --iterations 2000 --seeds 1 2 3 --nnunet-python ENV/bin/python

Same cases, split, network, patch, batch, iterations, validation share and number of processes. nnU-Net (nnunetv2 2.8.1,
in an environment of its own) measures, normalises, resamples, samples, augments and computes its loss as it does.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from comparison_table import Run, markdown, summarise
from nnunet_side import TESTED_VERSION, NnunetSide, check_expressible

from autoseg.cli import common
from autoseg.cli.plan_and_preprocess import plan_and_preprocess
from autoseg.core.atomic import write_json
from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.findings import listed
from autoseg.core.parallel import available_cores
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation import Summary, evaluate_folder
from autoseg.evaluation.matching import label_files
from autoseg.inference import Predictor
from autoseg.planning.files import FINGERPRINT_FILE, load_fingerprint
from autoseg.training.fold import train_fold
from autoseg.training.prepare import check_folder, prepare_fold
from autoseg.training.request import FoldRequest
from autoseg.training.run_config import RunOptions

log = logging.getLogger("autoseg.compare_nnunet")

TITLES = {
    "autoseg": "autoseg",
    "autoseg-sgd": "autoseg with nnU-Net's SGD",
    "nnunet": "nnU-Net as it comes (SGD)",
    "nnunet-ours": "nnU-Net with autoseg's optimiser",
}
"""System -> its name in the table. ``nnunet-ours`` takes optimiser and schedule of ``autoseg``, whatever they are."""
Scores = Mapping[str, float | None]
"""``foreground`` and each class or region -> mean Dice over the cases, None where there is none."""
SETTINGS = "settings.json"
PREPARED = "prepared.json"
"""How many seconds autoseg took from raw files to cases that it can train on, if nothing was there before."""
OWN_SETTINGS: dict[str, tuple[str, ...]] = {"autoseg": (), "autoseg-sgd": ("optimizer=sgd",)}


@dataclass(frozen=True)
class Comparison:
    """Settings that all runs share."""

    dataset: Dataset
    work: Path
    references: Path
    """Folder of dense label maps."""
    options: RunOptions
    """Of an autoseg run, but for its name, seed and optimiser."""
    threads: int
    cases: tuple[str, ...] = ()
    """Validation cases that are predicted and scored; known once the cases are planned for."""

    @property
    def root(self) -> Path:
        """Autoseg's workspace."""
        return self.work / "autoseg"

    def request(self, name: str, seed: int, settings: tuple[str, ...] = ()) -> FoldRequest:
        """Return what autoseg trains in a run."""
        options = replace(self.options, name=name, seed=seed, settings=(*self.options.settings, *settings))
        return prepare_fold(Workspace(self.root), self.dataset, options)

    def asked(self) -> dict[str, Any]:
        """Return the settings of the command line that all runs in ``work`` must share, as plain values."""
        return {
            "dataset": self.dataset.name,
            "folder": str(self.dataset.folder.resolve()),
            "references": str(self.references),
            "configuration": self.options.configuration,
            "fold": self.options.fold,
            "settings": list(self.options.settings),
            "device": self.options.device,
            "threads": self.threads,
            "workers": self.options.workers,
        }

    def found(self, request: FoldRequest) -> dict[str, Any]:
        """Return what the runs must share of data and plan, as plain values."""
        fingerprint = load_fingerprint(Workspace(self.root).preprocessed(self.dataset.name) / FINGERPRINT_FILE)
        return {
            "source_hash": fingerprint.source_hash,
            "plan": request.configuration.model_dump(mode="json"),
            "train_cases": list(request.train_cases),
            "scored_cases": list(self.cases),
        }


def main() -> None:
    """Run the command on the process's arguments."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    systems = "|".join(sorted(TITLES, key=len, reverse=True))
    common.run(compare, lists={"--seeds": r"\d+", "--systems": systems, "--set": r"[A-Za-z_][\w.]*=.*"})


def compare(
    dataset: Annotated[Path, typer.Argument(help="Folder with a dataset.json, or such a file of any name.")],
    iterations: Annotated[int, typer.Option(min=1, help="Optimiser steps of every run.")],
    nnunet_python: Annotated[
        Path, typer.Option(help=f"Python interpreter of an environment with nnunetv2=={TESTED_VERSION}.")
    ],
    *,
    seeds: Annotated[
        list[int] | None, typer.Option("--seeds", metavar="N ...", min=0, help="One run of each per seed (default: 1).")
    ] = None,
    systems: Annotated[
        list[str] | None,
        typer.Option("--systems", metavar="NAME ...", help=f"Among {', '.join(TITLES)} (default: all)."),
    ] = None,
    equal_time: Annotated[
        bool, typer.Option("--equal-time", help="nnU-Net once more, with the seconds that autoseg's run took.")
    ] = False,
    references: Annotated[
        Path | None, typer.Option(help="Folder of dense label maps (default: labelsTr of DATASET).", file_okay=False)
    ] = None,
    fold: Annotated[str, typer.Option(help="Number of the fold, or 'all'.")] = "0",
    configuration: Annotated[str, typer.Option("-c", help="2d, 3d_fullres or 3d_lowres.")] = "3d_fullres",
    planner: Annotated[str, typer.Option(help="autoseg's planner; both train its network.")] = "small",
    fold_cases: Annotated[
        int | None, typer.Option(min=1, help="Predict only the first so many validation cases, to save time.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="Settings of autoseg's runs.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder of all runs; finished ones are not done again.")] = Path(
        "comparison"
    ),
    json_path: Annotated[Path | None, typer.Option("--json", help="Write rows and runs to this file.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each network (default: all cores).")] = None,
    workers: Annotated[
        int, typer.Option("-j", "--workers", min=1, help="Processes that load data, in each system.")
    ] = 1,
) -> None:
    """Train autoseg and nnU-Net on the same cases, score both on dense references, and print one table.

    nnU-Net gets autoseg's split, network, patch and batch, and is otherwise left as it is; its row with autoseg's
    optimiser and schedule tells what these gain from what the handling of annotation gains. Runs that finished are kept
    in WORK, so a comparison that was interrupted goes on where it was.
    """
    common.set_up_logging()
    chosen = check_systems(systems, equal_time=equal_time)
    threads = threads or available_cores()
    torch.set_num_threads(threads)
    side = NnunetSide(nnunet_python, work.absolute() / "nnunet", workers, threads)
    has_nnunet = any(name not in OWN_SETTINGS for name in chosen)
    loaded = Dataset.load(dataset)
    if has_nnunet:
        check_version(side)
        check_expressible(loaded)
    options = RunOptions(
        fold, configuration, device=device, iterations=iterations, settings=tuple(settings or ()), workers=workers
    )
    folder = (references or loaded.folder / "labelsTr").resolve()
    comparison = Comparison(loaded, work.absolute(), folder, options, threads)
    asked = comparison.asked() | {"planner": planner}
    check_settings(work, asked)
    started = time.monotonic()
    with redirect_stdout(sys.stderr):  # stdout is for the table
        plan_and_preprocess(
            str(dataset), configurations=[configuration], planner=planner, root=comparison.root, workers=workers
        )
    if not (work / PREPARED).is_file():  # the second time most is there already
        write_json(work / PREPARED, {"seconds": time.monotonic() - started})
    request = comparison.request("default", 0)
    comparison = replace(comparison, cases=request.val_cases[:fold_cases])
    check_references(comparison)
    shared = asked | comparison.found(request)
    check_settings(work, shared)
    write_json(work / SETTINGS, shared)
    if has_nnunet:
        log.info("nnU-Net: fingerprint, plan, preprocessing (log: %s)", side.work / "log.txt")
        side.prepare(request)
    runs: list[Run] = []
    for seed in seeds or [1]:
        runs += run_seed(comparison, side, chosen, seed, equal_time=equal_time)
        report(runs, shared, json_path)
    print(markdown(summarise(runs), TITLES))


def check_systems(systems: list[str] | None, *, equal_time: bool) -> list[str]:
    """Return the systems to run, autoseg first; raise ``ConfigError`` if one does not exist."""
    chosen = [name for name in TITLES if name in (systems or TITLES)]
    unknown = sorted({*(systems or ())} - {*TITLES})
    if unknown:
        raise ConfigError(f"--systems: found {', '.join(unknown)}, expected some of {', '.join(TITLES)}.")
    if equal_time and "autoseg" not in chosen:
        raise ConfigError(
            "--equal-time: found no run of autoseg to take the time from, expected one. Add it to --systems."
        )
    return chosen


def check_version(side: NnunetSide) -> None:
    """Warn if nnU-Net is another version than the one that this was made for."""
    version = side.version()
    if version != TESTED_VERSION:
        log.warning("nnunetv2 is %s, tested with %s", version, TESTED_VERSION)


def check_references(comparison: Comparison) -> None:
    """Raise ``ConfigError`` before anything is trained if a reference is missing."""
    there = label_files(comparison.references, comparison.dataset.file_ending)
    missing = [case for case in comparison.cases if case not in there]
    if missing:
        raise ConfigError(
            f"--references {comparison.references}: found no label map of {listed(missing)}, expected one per "
            "validation case. Give the folder of the dense labels."
        )


def check_settings(work: Path, settings: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` if the runs in ``work`` were made with other settings."""
    path = work / SETTINGS
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else settings
    different = [key for key in settings if settings[key] != earlier.get(key)]
    if different:
        raise ConfigError(
            f"{work}: found runs with other settings ({listed(different)}), expected the same. Choose another "
            "--work, or delete that folder."
        )


def run_seed(comparison: Comparison, side: NnunetSide, systems: list[str], seed: int, *, equal_time: bool) -> list[Run]:
    """Return the runs of all systems with one seed: those with equal iterations, then those with equal time."""
    runs = [run_once(comparison, side, system, seed, None) for system in systems]
    if equal_time:
        seconds = next(run.training_seconds for run in runs if run.system == "autoseg")
        others = [system for system in systems if system not in OWN_SETTINGS]
        runs += [run_once(comparison, side, system, seed, seconds) for system in others]
    return runs


def run_once(comparison: Comparison, side: NnunetSide, system: str, seed: int, seconds: float | None) -> Run:
    """Return the result of one run, from its folder if it is there."""
    limit = "iterations" if seconds is None else "time"
    name = f"{system}_{comparison.options.iterations}_equal_{limit}_seed{seed}"
    folder = comparison.work / "runs" / name
    result = folder / "result.json"
    if result.is_file():
        log.info("%s: done before", name)
        return Run(**json.loads(result.read_text(encoding="utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    log.info("%s: training (%s)", name, folder)
    if system in OWN_SETTINGS:
        measured = run_autoseg(comparison, comparison.request(name, seed, OWN_SETTINGS[system]), folder)
    else:
        request = comparison.request(name, seed)
        measured = side.train_and_predict(
            request, comparison.cases, folder, takes_our_optimizer=system == "nnunet-ours", seconds=seconds
        )
    run = Run(system, limit, seed, **measured, **score(comparison, folder / "predictions"))
    write_json(result, run.as_json())
    log.info(
        "%s: %.0f s, Dice %s dense, %s annotated", name, run.training_seconds, *map(shown, (run.dense, run.annotated))
    )
    return run


def run_autoseg(comparison: Comparison, request: FoldRequest, folder: Path) -> dict[str, Any]:
    """Train unless that is done, and predict the cases into ``folder/predictions``; return what was measured."""
    trained = folder / "trained.json"
    if not trained.is_file():
        check_folder(request.folder, resume=False, overwrite=True)
        computed = time.process_time()
        with common.progress(folder.name) as report_steps:
            total = request.config.iterations
            result = train_fold(
                request, on_steps=lambda state, loss, rate: report_steps(state.iteration, total, f"loss {loss:.3f}")
            )
        processor_seconds = time.process_time() - computed
        write_json(
            trained,
            {
                "iterations": result.progress.iteration,
                "training_seconds": result.seconds,
                "processor_seconds": processor_seconds,
            },
        )
    predictor = Predictor.load(request.folder.parent, folds=[request.fold], device=request.device)
    started = time.monotonic()
    predicted = predictor.predict_files(
        {name: request.dataset.case(name).images for name in comparison.cases},
        folder / "predictions", overwrite=True, workers=comparison.options.workers,
    )  # fmt: skip
    if predicted.failed:
        lines = [f"{name}: {error}" for name, error in predicted.failed.items()]
        raise AutosegError("\n".join([f"{folder}: {len(lines)} cases could not be predicted.", *lines]))
    used: dict[str, Any] = json.loads((request.folder / "training.json").read_text(encoding="utf-8"))
    measured: dict[str, Any] = json.loads(trained.read_text(encoding="utf-8"))
    return measured | {
        "prediction_seconds": time.monotonic() - started,
        "n_parameters": used["n_parameters"],
        "precision": used["precision"],
    }


def score(comparison: Comparison, predictions: Path) -> dict[str, Any]:
    """Return the Dice fields of a run: on dense references, also per case, and on annotated voxels of a sparse set."""
    dataset, cases = comparison.dataset, comparison.cases
    own = (
        "cases",
        "valid_mask_folder",
        "annotation_protocol",
    )  # said of the data set's label files, not of the references
    summary = evaluate_folder(
        comparison.references, predictions, {key: value for key, value in dataset.json.items() if key not in own},
        cases=cases,
    )  # fmt: skip
    is_dense = summary.scored_on == "dense"
    annotated = None
    if not dataset.labels.is_dense:
        labels = next(case.label.parent for case in dataset.cases if case.label is not None)
        annotated = dice(evaluate_folder(labels, predictions, dataset, cases=cases))
    return {
        "dense": dice(summary) if is_dense else None,
        "annotated": annotated,
        "dense_per_case": dice_per_case(summary) if is_dense else None,
    }


def dice(summary: Summary) -> Scores:
    """Return the mean Dice over the foreground and of each class; raise ``AutosegError`` if a case is not scored.

    Where some scores are dense and others on annotated voxels, the latter.
    """
    if summary.missing or summary.faults:
        raise AutosegError("\n".join([f"not predicted: {listed(summary.missing)}", *summary.faults]))
    scores = summary.groups.get("annotated voxels") or summary.groups["dense"]
    per_class = {summary.names[key]: metrics["Dice"] for key, metrics in scores.mean.items()}
    return {"foreground": scores.foreground_mean["Dice"], **per_class}


def dice_per_case(summary: Summary) -> dict[str, dict[str, float | None]]:
    """Return case -> class or region -> Dice; None where there is none, and for classes that are not scored at all."""
    return {
        case.case: {
            summary.names[key]: None if key in summary.not_scored else metrics.Dice
            for key, metrics in case.metrics.items()
        }
        for case in summary.metric_per_case
    }


def shown(scores: Scores | None) -> str:
    """Return the foreground Dice for a message."""
    value = None if scores is None else scores["foreground"]
    return "-" if value is None else f"{value:.3f}"


def report(runs: list[Run], shared: dict[str, Any], path: Path | None) -> None:
    """Write everything known so far to the JSON file that was asked for."""
    if path is not None:
        rows = [row.as_json() for row in summarise(runs)]
        write_json(path, {"settings": shared, "rows": rows, "runs": [run.as_json() for run in runs]})


if __name__ == "__main__":
    main()
