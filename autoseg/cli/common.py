"""Exit codes, flags, logging and progress, shared by all commands."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn, TypeVar

import typer
from rich import progress as bars
from rich.console import Console

from autoseg.cli.plain_lines import plain_lines
from autoseg.core.atomic import lacks_room, no_room
from autoseg.core.errors import AutosegError, ConfigError, UserError
from autoseg.core.parallel import Workers, available_cores
from autoseg.core.progress import Progress, Stages, silent
from autoseg.core.workspace import Workspace

if TYPE_CHECKING:
    from autoseg.dataset.dataset import Dataset

EXIT_DONE, EXIT_INTERNAL, EXIT_USER, EXIT_INTERRUPTED = 0, 1, 2, 130

RUN_FILE_ENDING = ".toml"
"""Of a run's file, which may stand in the place of a data set."""
SPINS = "1000"
"""Number of polls that a thread of torch makes before it sleeps until the others are done. By default it polls for
milliseconds and takes the processor from the threads it waits for: see docs/decisions.md. Source: the value that GNU
OpenMP itself takes when there are more threads than processors."""

DatasetArgument = Annotated[
    str, typer.Argument(help="Folder with a dataset.json, a name under ROOT/raw, or nnU-Net's id.")
]
ModelConfigurationOption = Annotated[
    str | None, typer.Option("-c", "--configuration", help="Of the model (default: the only trained one).")
]
CopyOption = Annotated[bool, typer.Option("--copy", help="Copy the images instead of linking to them.")]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", help="Workspace folder (default: $AUTOSEG_ROOT, otherwise ./autoseg_workspace).", file_okay=False
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option("-j", "--workers", min=0, help="Worker processes (default: all cores).")
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Dask workers instead of -j: tcp://HOST:PORT, a scheduler file, or local:N (docs/cluster.md).",
    ),
]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Also print debug messages.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Only warnings and errors.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:<index> or mps.")]
MirrorOption = Annotated[bool, typer.Option("--tta/--no-tta", help="Average over mirrored copies of the image.")]
NameOption = Annotated[str, typer.Option("--name", help="Name given to the training.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="RUN.toml", help="Settings of this run, over those of the user.", dir_okay=False),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Write label maps again that exist.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

log = logging.getLogger("autoseg")

Given = TypeVar("Given", bound=Workers)

_BARS: list[bars.Progress] = []
"""Bars that are drawn now."""


class IncompleteError(Exception):
    """Part of the work could not be done although the input was accepted: exit code 1, the message, no traceback."""


class StoppedError(Exception):
    """The user or the system asked to stop; the state is saved. Exit code 130."""


def run(
    command: Callable[..., None],
    *,
    lists: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parse ``argv`` (default: that of the process), call ``command``, and exit the process with its exit code.

    ``lists`` names the options that take several values in a row (``-c 2d 3d_fullres``), each with the regular
    expression that further values must match. ``defaults`` names the options whose value may be left out, each with
    the value that it then has.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # before torch is imported: its threads read it once
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=_HELP)

    @functools.wraps(command)
    def guarded(*args: Any, **options: Any) -> None:
        sys.exit(_exit_code(lambda: command(*args, **options)))

    app.command()(guarded)
    given = with_defaults(sys.argv[1:] if argv is None else argv, defaults or {})
    app(args=spread_lists(given, lists or {}))
    sys.exit(EXIT_DONE)


_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


def _exit_code(call: Callable[[], None]) -> int:
    """Run a command and return its exit code; print errors to stderr, mistakes of the user without a traceback."""
    try:
        call()
    except (KeyboardInterrupt, StoppedError) as stop:
        print(f"interrupted. {stop}".rstrip(), file=sys.stderr)
        return EXIT_INTERRUPTED
    except IncompleteError as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_INTERNAL
    except UserError as error:
        lines = str(error).splitlines()
        print(
            f"{len(lines)} errors:" if len(lines) > 1 else "error:",
            *lines,
            sep="\n  " if lines[1:] else " ",
            file=sys.stderr,
        )
        return EXIT_USER
    except AutosegError as error:  # neither the user's mistake nor a bug: a full disk, a dead worker
        log.debug("traceback of the error", exc_info=True)
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_INTERNAL
    except BrokenPipeError:  # the reader of stdout ended early, as `| head` does; the interpreter must not flush to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("stopped: found a broken pipe; the program that read the output has ended.", file=sys.stderr)
        return EXIT_INTERNAL
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        if error.filename is None:
            traceback.print_exc()
            return EXIT_INTERNAL
        log.debug("traceback of the error", exc_info=True)
        path = re.sub(r"(^|/)\.\d+\.tmp\.", r"\1", str(error.filename))  # name without that of the temporary file
        reason = (error.strerror or type(error).__name__).lower()
        print(f"error: {path}: cannot access: {reason}. Check the path and its permissions.", file=sys.stderr)
        return EXIT_USER
    except Exception as error:
        if not lacks_room(error, Path.cwd()):
            traceback.print_exc()
            return EXIT_INTERNAL
        log.debug("traceback of the error", exc_info=True)
        print(f"failed: {no_room(getattr(error, 'filename', None) or 'a file', error)}", file=sys.stderr)
        return EXIT_INTERNAL
    return EXIT_DONE


def with_defaults(argv: Sequence[str], defaults: Mapping[str, str]) -> list[str]:
    """Return the arguments with a value after each option of ``defaults`` that is followed by an option, or by none."""
    completed: list[str] = []
    for argument, following in zip_longest(argv, argv[1:]):
        completed.append(argument)
        if argument in defaults and (following is None or following.startswith("-")):
            completed.append(defaults[argument])
    return completed


def spread_lists(argv: Sequence[str], lists: Mapping[str, str]) -> list[str]:
    """Turn ``-c a b`` into ``-c a -c b`` for the options in ``lists``; a value must match the option's pattern."""
    spread: list[str] = []
    option: str | None = None
    values = 0
    for token in argv:
        if token in lists:
            option, values = token, 0
            spread.append(token)
        elif option is not None and (values == 0 or re.fullmatch(lists[option], token)):
            spread.extend([token] if values == 0 else [option, token])
            values += 1
        else:
            option = None
            spread.append(token)
    return spread


def check_picture(output: Path | None) -> None:
    """Raise ``ConfigError`` unless the file of a picture, if one is given, ends in .png and is no folder."""
    if output is None or (output.suffix.lower() == ".png" and not output.is_dir()):
        return
    found, better = f"the ending {output.suffix!r}", output.with_suffix(".png")
    if output.is_dir():
        found, better = "a folder", output / "picture.png"
    raise ConfigError(f"-o {output}: found {found}, expected a file that ends in .png. Write -o {quote(str(better))}.")


def workspace(root: Path | None) -> Workspace:
    """Return the workspace: ``--root``, otherwise ``$AUTOSEG_ROOT``, otherwise ``./autoseg_workspace``."""
    return Workspace(root or Path(os.environ.get("AUTOSEG_ROOT", "autoseg_workspace")))


def load_dataset(space: Workspace, given: str) -> Dataset:
    """Return the data set that a command line names, with the masks of experts fused.

    Imports are inside, so that --help is quick.
    """
    from autoseg.dataset.dataset import Dataset

    return with_fused_labels(space, Dataset.load(find_dataset(space, given)))


def with_fused_labels(space: Workspace, dataset: Dataset, workers: int | None = None) -> Dataset:
    """Return a data set with label files instead of the masks of experts, which are fused if they have changed."""
    if not any(case.experts for case in dataset.cases):
        return dataset
    from autoseg.interop.expert_labels import with_fused_labels

    with progress("fuse", quiet=log.getEffectiveLevel() > logging.INFO) as report:
        folder = space.preprocessed(dataset.name)
        return with_fused_labels(dataset, folder, workers=n_workers(workers), progress=report)


def find_dataset(space: Workspace, given: str) -> Path:
    """Return the folder (or dataset.json) that a command line names; a run's file is first made a data set.

    See :func:`autoseg.interop.run_data.dataset_of_run_file`.
    """
    if not given.endswith(RUN_FILE_ENDING):
        return space.find_dataset(given)
    from autoseg.interop.run_data import dataset_of_run_file

    with progress("convert", quiet=log.getEffectiveLevel() > logging.INFO) as report:
        return dataset_of_run_file(Path(given), space, report)


class ConfigFiles(NamedTuple):
    """Files with settings; None where there is none."""

    user: Path | None
    """For all runs of the user."""
    run: Path | None
    """For this run."""


def config_files(space: Workspace, dataset: Dataset, given: str, config: Path | None) -> ConfigFiles:
    """Return the files with settings: the user's, and that of the run.

    That of the run is ``--config``, otherwise the argument DATASET (``given``) if it is a run's file. Raises
    ``ConfigError`` if both are run's files, or if ``config`` describes another data set.
    """
    from autoseg.core.config_levels import user_file
    from autoseg.interop.run_data import check_same_dataset

    is_run_file = given.endswith(RUN_FILE_ENDING)
    if is_run_file and config is not None:
        raise ConfigError(f"--config {config}: {given} holds settings of a run, too. Leave one out, or join the files.")
    if config is not None:
        check_same_dataset(config, space, dataset.folder)
    return ConfigFiles(user_file(os.environ), Path(given) if is_run_file else config)


def n_workers(given: Given | None) -> Given | int:
    """Return the number of worker processes: as given, otherwise one per core. A cluster is returned as it is."""
    return available_cores() if given is None else given


@contextmanager
def workers_of(
    given: int | None,
    cluster: str | None,
    paths: Sequence[Path],
    *,
    output: Path | None = None,
    resource: str | None = None,
) -> Iterator[Workers | None]:
    """Yield what ``-j`` says, or the workers of ``--cluster``, which must see the files and folders ``paths``.

    They must see the folder ``output``, too, which is made for them, and removed at the end if nothing was written.
    Raises ``ConfigError`` if both are given, and as :func:`autoseg.core.cluster.open_cluster`, also for ``resource``.
    """
    if cluster is None:
        yield given
        return
    if given is not None:
        raise ConfigError("-j: found with --cluster, which has workers of its own, expected one of them. Leave out -j.")
    from autoseg.core.cluster import open_cluster

    made = [] if output is None else [path for path in (output, *output.parents) if not path.exists()]
    try:
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
        with open_cluster(cluster, [*paths, *([] if output is None else [output])], resource=resource) as opened:
            yield opened
    finally:
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def set_up_logging(*, verbose: bool = False, quiet: bool = False) -> None:
    """Send the messages of autoseg to stderr, one plain line each."""
    level = logging.WARNING if quiet and not verbose else logging.DEBUG if verbose else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LevelFormatter())
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


class _LevelFormatter(logging.Formatter):
    """Formatter that puts the level before warnings and errors, not before information."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


def print_json(value: Any) -> None:
    """Print a result as JSON on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Yield a progress function: a bar with the remaining time on a terminal, otherwise lines at most 20 s apart.

    A terminal on which nothing can be drawn over (TERM=dumb) gets lines, too.
    """
    console = Console(stderr=True)
    if quiet:
        yield silent
    elif console.is_terminal and not console.is_dumb_terminal:
        columns = (
            bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(), bars.TimeRemainingColumn(), bars.TextColumn("{task.fields[what]}"),
        )  # fmt: skip
        with bars.Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=None, what="")
            _BARS.append(bar)
            try:
                yield lambda done, total, what: bar.update(task, completed=done, total=total, what=what)
            finally:
                _BARS.remove(bar)
    else:
        with plain_lines(title) as report:
            yield report


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the bars of :func:`progress` from drawing, so that a user can type."""
    for bar in _BARS:
        bar.stop()
    try:
        yield
    finally:
        for bar in _BARS:
            bar.start()


def stages(*, quiet: bool) -> Stages:
    """Return the function that shows the stages of long work; with ``quiet`` it shows nothing."""
    return functools.partial(progress, quiet=quiet)
