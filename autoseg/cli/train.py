"""``autoseg_train DATASET FOLD...``: train folds, then predict and score their validation cases."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli.children import end_with_starter
from autoseg.cli.common import (
    EXIT_INTERRUPTED,
    ConfigOption,
    IncompleteError,
    JsonOption,
    QuietOption,
    RootOption,
    StoppedError,
    VerboseOption,
    WorkersOption,
    config_files,
    load_dataset,
    log,
    n_workers,
    print_json,
    progress,
    run,
    set_up_logging,
    workspace,
)
from autoseg.cli.console import python_runner, signals
from autoseg.cli.folds import Line, train_folds
from autoseg.cli.processes import Place, check_gpus, joined, run_processes
from autoseg.cli.threads import settle_threads
from autoseg.core.errors import AutosegError, CacheError, ConfigError, UserError
from autoseg.core.findings import listed
from autoseg.core.workspace import with_seeds
from autoseg.dataset.commands import planning_command, training_command

if TYPE_CHECKING:
    from autoseg.core.workspace import Workspace
    from autoseg.dataset.dataset import Dataset
    from autoseg.evaluation import AnySummary
    from autoseg.training.progress import Progress
    from autoseg.training.request import FoldRequest
    from autoseg.training.run_config import RunOptions


@dataclass(frozen=True, slots=True)
class Process:
    """How this process trains and speaks, beside what the run is."""

    place: Place
    gpus: int | None
    threads: int | None
    overwrite: bool
    run_code: Callable[[str, Mapping[str, object]], str] | None
    """See ``autoseg.training.trainer.Console``."""
    quiet: bool
    as_json: bool


def train(
    context: typer.Context,
    dataset: Annotated[
        str,
        typer.Argument(help="Folder with a dataset.json, a name under ROOT/raw, nnU-Net's id, or a run's .toml."),
    ],
    folds: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLD", help="Number of the fold, or 'all' to train on every case. Several share the devices."
        ),
    ],
    configuration: Annotated[
        str | None,
        typer.Option(
            "-c",
            help="As in plans.json: 2d, 3d_fullres ... (default: 3d_fullres, else 2d, of those preprocessed).",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; a folder of its own (default: default, or the run to resume).")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run was stopped, as it was begun.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an earlier run aside and start anew.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            min=1,
            help="Share each batch of a fold between N GPUs of this machine; with --device cpu N processes.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Of several folds, train N at a time (default: one per GPU, on the CPU 1)."),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option("--seeds", min=1, help="Train each fold with N seeds, from --seed on: an ensemble in one folder."),
    ] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Length of the run in epochs.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Length of the run in optimiser steps.")] = None,
    max_runtime: Annotated[
        str | None, typer.Option(help="End the run, as finished, after so much training in all: 90s, 15m, 2h, 1d.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random follows from it (default: 0).")] = None,
    pretrained: Annotated[
        Path | None, typer.Option(help="Checkpoint or model folder to start from; classes and channels go by name.")
    ] = None,
    config: ConfigOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="Change settings of training.json.")
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print every setting and where it comes from; train nothing.")
    ] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same numbers in every run on the same GPU; slower.")
    ] = False,
    console_python: Annotated[
        bool, typer.Option("--console-python", help="Let the console that Ctrl-C opens run Python; one fold only.")
    ] = False,
    root: RootOption = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads that compute (default: on the CPU as many cores as are free)."),
    ] = None,
    workers: WorkersOption = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a fold of DATASET, then predict its validation cases densely and score them.

    Several folds, or seeds of them, are trained one on each GPU at a time, or one after the other on the CPU; one that
    fails does not stop the others. Further seeds of a fold are folds of their own: all_seed1, all_seed2 ...

    Checkpoints, history.jsonl, progress.png, training.json and validation/ go to
    ROOT/results/DATASET/NAME__CONFIGURATION/fold_FOLD. Ctrl-C on a terminal opens a console, twice saves and exits, as
    SIGTERM does; autoseg_ctl steers from elsewhere. --resume goes on, with the settings that the run was begun with;
    see docs/training.md for those that may change.

    Settings come from, the later over the earlier: defaults, $AUTOSEG_CONFIG (otherwise ~/.config/autoseg/config.toml),
    --config, and the options of the command line.
    """
    place = Place.from_environment()
    end_with_starter()
    set_up_logging(verbose=verbose, quiet=quiet)
    if not place.is_first:
        log.setLevel(logging.ERROR)
    if place.restarts:
        resume, overwrite = True, False
    folds = with_seeds(folds, seeds)
    if len(folds) > 1 and (place.is_started or show_config or console_python):
        raise ConfigError(
            f"{listed(folds)}: found several folds, expected one with torchrun, --show-config or --console-python."
        )
    space = workspace(root)
    data = load_dataset(space, dataset)  # a mistake is said before torch is imported
    from autoseg.cli.config_table import print_settings
    from autoseg.training.monitoring import parse_duration
    from autoseg.training.prepare import resolve_settings
    from autoseg.training.run_config import RunOptions

    files = config_files(space, data, dataset, config)
    options = RunOptions(
        folds[0], configuration, name, place.device(device), epochs, iterations,
        None if max_runtime is None else parse_duration(max_runtime),
        seed, pretrained, settings or [], place.workers(n_workers(workers)), resume, deterministic=deterministic,
        user_file=files.user, run_file=files.run, devices=place.size if place.is_started else gpus or 1,
    )  # fmt: skip
    if show_config:
        resolved = resolve_settings(space, data, options)
        print_settings(resolved, as_json=as_json, unused=resolved.config.unused)
        return
    if len(folds) > 1:
        train_folds(space, data, options, folds, Line.of(context))
        return
    run_code = python_runner() if console_python else None
    _train_one(space, data, options, Process(place, gpus, threads, overwrite, run_code, quiet, as_json))


def _train_one(space: Workspace, data: Dataset, options: RunOptions, process: Process) -> None:
    """Train and score the fold of ``options``, as one process or as the starter of several."""
    from autoseg.core.ranks import Ranks
    from autoseg.sampling.loader import share_of_batch
    from autoseg.training.batches import batch_size
    from autoseg.training.prepare import check_folder, check_start, prepare_fold

    place, gpus, overwrite = process.place, process.gpus, process.overwrite
    request = prepare_fold(space, data, options)
    check_start(request, resume=options.resume, overwrite=overwrite)
    _prepare_determinism(request)

    def command(flags: Sequence[str]) -> str:
        on_cpu = ["--device", "cpu"] if options.device == "cpu" else []
        several = [] if gpus is None else ["--gpus", str(gpus), *on_cpu]
        of_run = [] if options.run_file is None else ["--config", str(options.run_file)]
        chosen, run_name = request.configuration.name, request.name
        return training_command(
            space, data, request.fold, *several, *of_run, *flags, configuration=chosen, name=run_name
        )

    def is_resumed() -> bool:
        return check_folder(request.folder, resume=options.resume, overwrite=overwrite, command=command([]))

    if gpus is not None and gpus > 1 and not place.is_started:
        check_gpus(gpus, options.device)
        share_of_batch(batch_size(request), Ranks(size=gpus))
        is_resumed()
        run_processes(gpus, sys.argv[1:], process.threads)
        return
    threads = None if process.threads is None else max(1, process.threads // place.local_size)
    settle_threads(threads, request, resume=options.resume, is_alone=not place.is_started)
    planning = planning_command(space, data, "-c", request.configuration.name)
    with saying_how_to_go_on(request, command, planning), joined(place, request) as shared:
        summary = _train_and_validate(shared, is_resumed, command, process)
    if summary is None:
        return
    from autoseg.cli.evaluation_table import print_tables

    if process.as_json:
        print_json(summary.as_json())
    elif not process.quiet:
        print_tables(summary)


def _train_and_validate(
    request: FoldRequest, is_resumed: Callable[[], bool], command: Callable[[Sequence[str]], str], process: Process
) -> AnySummary | None:
    """Train, then predict the validation cases; return the scores, or None unless this is the first of the ranks."""
    from autoseg.training.fold import train_fold
    from autoseg.training.trainer import Console
    from autoseg.training.validation import predict_validation, score_validation

    ranks, quiet = request.ranks, process.quiet or not process.place.is_first
    resume = ranks.any(ranks.is_first and is_resumed())
    with signals() as received, steps_bar(request, quiet=quiet) as steps:
        result = train_fold(
            request,
            resume=resume,
            on_steps=steps,
            should_stop=lambda: received.should_stop,
            console=Console(lambda: received.wants_console, received.talk, process.run_code),
        )
    if not result.is_finished:
        if not ranks.is_first:
            sys.exit(EXIT_INTERRUPTED)
        done = result.progress.iteration
        what = f"Saved after iteration {done}" if result.is_saved else f"Ended after iteration {done} without saving"
        raise StoppedError(f"{what} in {request.folder}. Go on: {command(['--resume'])}")
    log.info("trained %d iterations in %.0f s: %s", result.progress.iteration, result.seconds, request.folder)
    with progress("validating", quiet=quiet) as report:
        predict_validation(request, workers=request.workers, progress=report)
    return score_validation(request, workers=request.workers * ranks.size) if ranks.is_first else None


def _prepare_determinism(request: FoldRequest) -> None:
    """Set the variable that CUDA reads when it first multiplies matrices, if the run shall be deterministic."""
    from autoseg.nn.deterministic import CUBLAS_VALUE, CUBLAS_VARIABLE

    if request.config.deterministic:
        os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_VALUE)


@contextmanager
def saying_how_to_go_on(request: FoldRequest, command: Callable[[Sequence[str]], str], planning: str) -> Iterator[None]:
    """Add to an error that is not the user's what was saved, and the command that goes on from there.

    ``planning`` is the command that makes a cache anew that turned out to be damaged.
    """
    from autoseg.training.resuming import way_on

    try:
        yield
    except CacheError as error:
        raise CacheError(f"{error} Type: {planning}") from error
    except UserError:
        raise
    except AutosegError as error:
        anew = shlex.join(["autoseg_train", *sys.argv[1:]])
        further = way_on(error, request.folder, request.config, command, anew)
        raise IncompleteError(f"{str(error).rstrip('.')}. {further}") from error


@contextmanager
def steps_bar(request: FoldRequest, *, quiet: bool) -> Iterator[Callable[[Progress, float, float], None]]:
    """Yield what the trainer reports its steps to: a bar with loss, Dice, learning rate and remaining time."""
    from autoseg.report.history import dice_name

    with progress("training", quiet=quiet) as report:

        def on_steps(state: Progress, loss: float, rate: float) -> None:
            record = state.records[-1] if state.records else None
            shown = "-" if record is None or record.dice is None else f"{record.dice:.3f}"
            name = "Dice" if record is None else dice_name(record)
            report(state.iteration, request.config.iterations, f"loss {loss:.3f}  {name} {shown}  lr {rate:.1e}")

        yield on_steps


def main() -> None:
    """Run the command on the process's arguments."""
    run(train, lists={"--set": r"[A-Za-z_][\w.]*=.*"})


if __name__ == "__main__":
    main()
