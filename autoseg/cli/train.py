"""``autoseg_train DATASET FOLD``: train one fold, then predict and score its validation cases."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli.common import (
    IncompleteError,
    JsonOption,
    QuietOption,
    RootOption,
    StoppedError,
    VerboseOption,
    WorkersOption,
    load_dataset,
    log,
    n_workers,
    print_json,
    progress,
    run,
    set_up_logging,
    workspace,
)
from autoseg.core.errors import AutosegError, CacheError, UserError
from autoseg.dataset.commands import planning_command, training_command

if TYPE_CHECKING:
    from autoseg.training.request import FoldRequest
    from autoseg.training.trainer import Progress


def train(
    dataset: Annotated[str, typer.Argument(help="Folder with a dataset.json, a name under ROOT/raw, or nnU-Net's id.")],
    fold: Annotated[str, typer.Argument(help="Number of the fold, or 'all' to train on every case.")],
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete what the run left and start anew.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    epochs: Annotated[int | None, typer.Option(min=1, help="Length of the run in epochs.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Length of the run in optimiser steps.")] = None,
    max_runtime: Annotated[
        str | None, typer.Option(help="End the run, as finished, after this time: 90s, 15m, 2h, 1d.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random follows from it (default: 0).")] = None,
    pretrained: Annotated[
        Path | None, typer.Option(help="Checkpoint to start from; classes and channels go by name.", dir_okay=False)
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="Change settings of training.json.")
    ] = None,
    root: RootOption = None,
    workers: WorkersOption = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train one fold of DATASET, then predict its validation cases densely and score them.

    Checkpoints, history.jsonl, progress.png, training.json and validation/ go to
    ROOT/results/DATASET/NAME__CONFIGURATION/fold_FOLD. Ctrl-C or SIGTERM saves and exits; --resume goes on, with the
    settings that the run was begun with; only --set precision=... learning_rate=... may change them.
    """
    set_up_logging(verbose=verbose, quiet=quiet)
    space = workspace(root)
    data = load_dataset(space, dataset)  # a mistake is said before torch is imported
    from autoseg.cli.evaluation_table import print_tables
    from autoseg.training.config import parse_duration
    from autoseg.training.fold import train_fold
    from autoseg.training.prepare import check_folder, check_start, prepare_fold
    from autoseg.training.run_config import RunOptions
    from autoseg.training.validation import validate_fold

    options = RunOptions(
        fold, configuration, name, device, epochs, iterations,
        None if max_runtime is None else parse_duration(max_runtime),
        seed, pretrained, settings or [], n_workers(workers), resume,
    )  # fmt: skip
    request = prepare_fold(space, data, options)
    check_start(request, resume=resume, overwrite=overwrite)

    def command(flags: Sequence[str]) -> str:
        return training_command(space, data, fold, *flags, configuration=request.configuration.name, name=request.name)

    planning = planning_command(space, data, "-c", request.configuration.name)
    is_resumed = check_folder(request.folder, resume=resume, overwrite=overwrite, command=command([]))
    with (
        saying_how_to_go_on(request, command, planning),
        stop_on_signals() as signals,
        steps_bar(request, quiet=quiet) as steps,
    ):
        result = train_fold(request, resume=is_resumed, on_steps=steps, should_stop=lambda: bool(signals))
    if not result.is_finished:
        done = result.progress.iteration
        raise StoppedError(f"Saved after iteration {done} in {request.folder}. Go on: {command(['--resume'])}")
    log.info("trained %d iterations in %.0f s: %s", result.progress.iteration, result.seconds, request.folder)
    with saying_how_to_go_on(request, command, planning), progress("validating", quiet=quiet) as report:
        summary = validate_fold(request, workers=n_workers(workers), progress=report)
    if as_json:
        print_json(summary.as_json())
    elif not quiet:
        print_tables(summary)


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
def stop_on_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the yielded list instead of dying of the first; a second one interrupts at once."""
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        log.info("stopping after this step; once more to stop at once")

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def steps_bar(request: FoldRequest, *, quiet: bool) -> Iterator[Callable[[Progress, float, float], None]]:
    """Yield what the trainer reports its steps to: a bar with loss, Dice, learning rate and remaining time."""
    from autoseg.training.history import dice_name

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
