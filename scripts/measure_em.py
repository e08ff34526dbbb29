"""Train on all sections of electron microscopy and on every third one, with and without the recipe ``em``.

python scripts/measure_em.py DATASET --iterations 250 --seeds 1 2 3 --nnunet-python ENV/bin/python --work WORK

DATASET holds 2-D sections with one foreground class, the membrane, densely drawn. Fold 0 is held out. nnU-Net is
trained beside it on the same sections, with the same network, patches, batch and iterations.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import torch
import typer
from compare_nnunet import Comparison, check_settings, check_version, run_autoseg
from em_table import EmRun, markdown, pairs, section_scores
from nnunet_side import TESTED_VERSION, NnunetSide

from autoseg.cli import common
from autoseg.cli.plan_and_preprocess import plan_and_preprocess
from autoseg.core.atomic import write_json
from autoseg.core.errors import AutosegError, ConfigError
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.evaluation import evaluate_folder
from autoseg.io.raw_layout import put_file, put_images
from autoseg.planning.splits import NNUNET_SPLITS_FILE, make_splits
from autoseg.training.run_config import RunOptions

log = logging.getLogger("autoseg.measure_em")

EM = ("augmentation=em", "augmentation.missing_parts.probability=0.1")
"""Nothing beside a missing part of a 2-D section shows what was there, so that fewer are better."""
OWN_SETTINGS: dict[str, tuple[str, ...]] = {"autoseg": (), "autoseg-em": EM}
TITLES = {
    "autoseg": "autoseg",
    "autoseg-em": "autoseg, `augmentation=em`",
    "nnunet": "nnU-Net as it comes (SGD)",
    "nnunet-ours": "nnU-Net with autoseg's optimiser and schedule",
}
"""System -> its name in the table."""
CONFIGURATION = "2d"
RESULT = "result.json"


@dataclass(frozen=True, eq=False)
class Measurement:
    """Settings that all runs share."""

    source: Dataset
    work: Path
    options: RunOptions
    planner: str
    threads: int
    nnunet_python: Path | None

    def folder(self, every: int) -> Path:
        """Return the folder of the runs in which every so manieth section is annotated."""
        return self.work / f"every{every}"


def main() -> None:
    """Run the command on the process's arguments."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lists = {
        "--seeds": r"\d+", "--every": r"\d+", "--systems": "|".join(sorted(TITLES, key=len, reverse=True)),
        "--set": r"[A-Za-z_][\w.]*=.*",
    }  # fmt: skip
    common.run(measure, lists=lists)


def measure(
    dataset: Annotated[Path, typer.Argument(help="Densely labelled sections: folder or dataset json.")],
    iterations: Annotated[int, typer.Option(min=1, help="Optimiser steps of every run.")],
    *,
    seeds: Annotated[list[int] | None, typer.Option("--seeds", metavar="N ...", min=0, help="Default: 1.")] = None,
    every: Annotated[
        list[int] | None,
        typer.Option("--every", metavar="N ...", min=1, help="Every so manieth section is annotated (default: 1 3)."),
    ] = None,
    systems: Annotated[
        list[str] | None,
        typer.Option("--systems", metavar="NAME ...", help=f"Among {', '.join(TITLES)} (default: those that can run)."),
    ] = None,
    nnunet_python: Annotated[
        Path | None,
        typer.Option(help=f"Python of an environment with nnunetv2=={TESTED_VERSION}; without it no nnU-Net."),
    ] = None,
    planner: Annotated[str, typer.Option(help="autoseg's planner; all train its network.")] = "small",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="Settings of all runs of autoseg.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder of all runs; finished ones are not done again.")] = Path(
        "em_measured"
    ),
    threads: Annotated[int, typer.Option(min=1, help="Threads of each network.")] = 1,
    only_table: Annotated[
        bool, typer.Option("--only-table", help="Train nothing: table of the runs that are finished.")
    ] = False,
) -> None:
    """Score membranes and cells of held-out sections for each annotation, system and seed, in one table."""
    common.set_up_logging()
    torch.set_num_threads(threads)
    source = checked_source(dataset)
    chosen, distances = chosen_systems(systems, nnunet_python), every or [1, 3]
    for number in distances:
        annotated_sections(source.case_names, number)
    options = RunOptions(
        "0", CONFIGURATION, device="cpu", iterations=iterations, settings=tuple(settings or ()), workers=1
    )
    measurement = Measurement(source, work.absolute(), options, planner, threads, nnunet_python)
    check_work(measurement, writes=not only_table)
    run = finished_run if only_table else run_once
    keys = [(number, system, seed) for seed in seeds or [1] for number in distances for system in chosen]
    if only_table:
        keys = [key for key in keys if result_path(measurement, *key).is_file()]
    runs = [run(measurement, *key) for key in keys]  # seed by seed, so that every row has something early
    print(f"{markdown(runs, TITLES)}\n\n{pairs(runs, TITLES)}")


def check_work(measurement: Measurement, *, writes: bool) -> None:
    """Raise ``ConfigError`` if the folder of runs has others; note the settings of its runs there if ``writes``."""
    if measurement.nnunet_python is not None:
        check_version(nnunet_side(measurement, measurement.work))
    asked = {
        "dataset": str(measurement.source.folder.resolve()), "iterations": measurement.options.iterations,
        "planner": measurement.planner, "settings": list(measurement.options.settings),
        "threads": measurement.threads,
    }  # fmt: skip
    check_settings(measurement.work, asked)
    if writes:
        write_json(measurement.work / "settings.json", asked)


def checked_source(path: Path) -> Dataset:
    """Return the data set; raise ``ConfigError`` unless it has one foreground class, densely drawn."""
    source = Dataset.load(path)
    if not source.labels.is_dense or source.labels.n_classes != 2 or source.labels.has_regions:
        raise ConfigError(
            f"{path}: found the classes {', '.join(source.labels.class_names)}, expected background and a membrane, "
            "densely drawn. Choose another data set."
        )
    return source


def chosen_systems(systems: Sequence[str] | None, nnunet_python: Path | None) -> list[str]:
    """Return the systems to run, in the order of the table; raise ``ConfigError`` if one does not exist or cannot."""
    unknown = sorted({*(systems or ())} - {*TITLES})
    if unknown:
        raise ConfigError(f"--systems: found {', '.join(unknown)}, expected some of {', '.join(TITLES)}.")
    theirs = [name for name in TITLES if name not in OWN_SETTINGS]
    if nnunet_python is None and (impossible := [name for name in theirs if name in (systems or ())]):
        raise ConfigError(f"--systems {' '.join(impossible)}: found no interpreter of nnU-Net. Give --nnunet-python.")
    wanted = systems or [name for name in TITLES if nnunet_python is not None or name not in theirs]
    return [name for name in TITLES if name in wanted]


def annotated_sections(names: Sequence[str], every: int) -> tuple[list[str], list[str]]:
    """Return the annotated training sections and the held-out ones, both sorted.

    Held out are those of nnU-Net's fold 0 of all sections, whatever ``every`` is. The first annotated section is in the
    middle of the first ``every`` training sections. Raises ``ConfigError`` if none is left.
    """
    split = make_splits(names)[0]
    training = list(split.train[every // 2 :: every])
    if not training:
        raise ConfigError(
            f"--every {every}: found {len(split.train)} training sections, expected more. Give a smaller number."
        )
    return training, list(split.val)


def thinned(source: Dataset, every: int, folder: Path) -> Dataset:
    """Return a data set of links to the annotated and the held-out sections, with its fold; made unless it is there.

    Sections that are not annotated are not in it: neither system can learn from an image alone.
    """
    if not (folder / DATASET_JSON).is_file():
        training, held_out = annotated_sections(source.case_names, every)
        cases = [source.case(name) for name in sorted([*training, *held_out])]
        put_images(cases, source.file_ending, folder / "imagesTr")
        (folder / "labelsTr").mkdir(exist_ok=True)
        for case in cases:
            if case.label is None:
                raise AutosegError(f"case {case.name}: found no label file, expected one.")
            put_file(case.label, folder / "labelsTr" / f"{case.name}{source.file_ending}")
        write_json(folder / NNUNET_SPLITS_FILE, [{"train": training, "val": held_out}])
        content = {key: value for key, value in source.json.items() if key not in ("dataset", "cases")}
        write_json(folder / DATASET_JSON, content | {"numTraining": len(cases)})
    return Dataset.load(folder)


@cache
def prepared(measurement: Measurement, every: int) -> Comparison:
    """Plan and preprocess the sections of an annotation, for nnU-Net too if it runs; return what its runs share."""
    work = measurement.folder(every)
    data = thinned(measurement.source, every, work / "raw" / measurement.source.name)
    held_out = annotated_sections(measurement.source.case_names, every)[1]
    comparison = Comparison(
        data, work, data.folder / "labelsTr", measurement.options, measurement.threads, tuple(held_out)
    )
    with redirect_stdout(sys.stderr):  # stdout is for the table
        plan_and_preprocess(
            str(data.folder), configurations=[CONFIGURATION], planner=measurement.planner, root=comparison.root,
            workers=1, quiet=True,
        )  # fmt: skip
    common.set_up_logging()
    if measurement.nnunet_python is not None:
        nnunet_side(measurement, work).prepare(comparison.request("default", 0))
    return comparison


def nnunet_side(measurement: Measurement, work: Path) -> NnunetSide:
    """Return nnU-Net with its folders in ``work``."""
    return NnunetSide(measurement.nnunet_python or Path(), work / "nnunet", 1, measurement.threads)


def result_path(measurement: Measurement, every: int, system: str, seed: int) -> Path:
    """Return the file that a run writes last."""
    return measurement.folder(every) / "runs" / f"{system}_seed{seed}" / RESULT


def finished_run(measurement: Measurement, every: int, system: str, seed: int) -> EmRun:
    """Return a run that is finished, with the scores of its predictions."""
    result = result_path(measurement, every, system, seed)
    measured = json.loads(result.read_text(encoding="utf-8"))
    training, held_out = annotated_sections(measurement.source.case_names, every)
    source, predictions = measurement.source, result.parent / "predictions"
    references = source.folder / "labelsTr"
    dice = evaluate_folder(references, predictions, source, cases=held_out).groups["dense"].foreground_mean["Dice"]
    scores = section_scores(references, predictions, held_out, source.file_ending)
    return EmRun(every, len(training), system, seed, measured["processor_seconds"], dice or 0.0, **scores)


def run_once(measurement: Measurement, every: int, system: str, seed: int) -> EmRun:
    """Train, predict and score the held-out sections; what was done before is only scored."""
    result = result_path(measurement, every, system, seed)
    if not result.is_file():
        folder, name, comparison = result.parent, result.parent.name, prepared(measurement, every)
        folder.mkdir(parents=True, exist_ok=True)
        request = comparison.request(name, seed, OWN_SETTINGS.get(system, ()))
        log.info("every %d, %s: training on %d sections (%s)", every, name, len(request.train_cases), folder)
        if system in OWN_SETTINGS:
            measured = run_autoseg(comparison, request, folder)
        else:
            measured = nnunet_side(measurement, comparison.work).train_and_predict(
                request, comparison.cases, folder, takes_our_optimizer=system == "nnunet-ours", seconds=None
            )
        write_json(result, measured)
        log.info("every %d, %s: trained with %.0f s of a processor", every, name, measured["processor_seconds"])
    return finished_run(measurement, every, system, seed)


if __name__ == "__main__":
    main()
