"""Several folds of one command line: a queue that gives each free device the next fold, as a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.cli.children import Child, Children, children
from autoseg.cli.common import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    IncompleteError,
    StoppedError,
    log,
    n_workers,
    print_json,
)
from autoseg.cli.plain_lines import duration_text
from autoseg.cli.processes import check_gpus, share_of_workers
from autoseg.cli.threads import share_of_threads
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted, listed
from autoseg.core.workspace import parse_fold
from autoseg.tasks.regression import Regression

if TYPE_CHECKING:
    import typer

    from autoseg.core.workspace import Workspace
    from autoseg.dataset.dataset import Dataset
    from autoseg.training.run_config import RunOptions

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Variable with the GPUs that a process may use."""

Slot = Mapping[str, str]
"""Environment variables by which a process has a device, or several, of its own."""


@dataclass(frozen=True, slots=True)
class Line:
    """The command line, without its folds."""

    dataset: str
    """As it was typed."""
    options: tuple[str, ...]
    """As they were typed, without --resume, --overwrite, --seeds, --jobs, --threads, -j and --json."""
    resume: bool
    overwrite: bool
    workers: int | None
    threads: int | None
    as_json: bool
    device: str
    gpus: int | None
    """Per fold; None: one, or what the device is."""
    jobs: int | None
    """Folds at a time; None: as many as there are GPUs, on the CPU one."""

    @classmethod
    def of(cls, context: typer.Context) -> Line:
        """Return what was typed, as far as it is not a fold."""
        values = context.params
        flags = {name: values[name] for name in ("resume", "overwrite", "workers", "threads", "as_json", "jobs")}
        options = given_options(context, without={*flags, "seeds"})
        return cls(values["dataset"], options, **flags, device=values["device"], gpus=values["gpus"])

    def arguments(self, folds: Sequence[str], *further: str) -> list[str]:
        """Return the arguments of autoseg_train for some folds."""
        return [self.dataset, *folds, *self.options, *further]

    def command(self, folds: Sequence[str], *further: str) -> str:
        """Return the command line that trains some folds."""
        workers = [] if self.workers is None else ["-j", str(self.workers)]
        threads = [] if self.threads is None else ["--threads", str(self.threads)]
        jobs = [] if self.jobs is None or len(folds) == 1 else ["--jobs", str(self.jobs)]
        return shlex.join(["autoseg_train", *self.arguments(folds, *jobs, *threads, *workers, *further)])


def given_options(context: typer.Context, *, without: Collection[str]) -> tuple[str, ...]:
    """Return the options that were typed, as tokens of a command line; ``without`` has names of parameters."""
    tokens: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        is_typed = source is not None and source.name == "COMMANDLINE"
        if parameter.param_type_name != "option" or not is_typed or name in without:
            continue
        value = context.params[name]
        for item in value if isinstance(value, (list, tuple)) else [value]:
            tokens += [parameter.opts[0]] if item is True else [parameter.opts[0], str(item)]
    return tuple(tokens)


def train_folds(space: Workspace, dataset: Dataset, options: RunOptions, folds: Sequence[str], line: Line) -> None:
    """Train several folds, each in a process of its own: as many at a time as there are slots, in their order.

    What a process prints goes to ``fold_<k>.log`` beside the folder of its fold. A fold that fails does not stop the
    others. SIGINT and SIGTERM reach all that run, which save; no other is begun. With --resume, finished folds are left
    out. At the end a table has the result of each.

    Raises
    ------
    UserError
        What is wrong with any of them, before one is begun.
    StoppedError
        If they were asked to stop.
    IncompleteError
        If some are not finished: names them, and the command that goes on.
    """
    slots = device_slots(line.device, line.gpus, line.jobs)
    works = _check(space, dataset, options, folds, line)
    queue = _Queue(line, len(slots), deque(work for work in works if not work.is_finished), deque(slots))
    with children() as started:
        queue.run(started)
    if line.as_json:
        print_json({work.fold: work.scores() for work in works})
    else:
        _print_table(works, Regression.score_name if dataset.labels.targets else "Dice")
    unfinished = [work.fold for work in works if not work.is_finished]
    if not unfinished:
        return
    further = f"Go on with what is not finished: {line.command(unfinished, '--resume')}"
    if started.were_stopped:
        raise StoppedError(f"Not finished: {_named(unfinished)}. {further}")
    raise IncompleteError(
        f"{len(unfinished)} of {counted(len(folds), 'fold')} not finished: {_named(unfinished)}. {further}"
    )


def device_slots(device: str, gpus: int | None, jobs: int | None) -> list[Slot]:
    """Return what each fold that runs at a time may use, ``jobs`` slots: in turn each GPU, or ``gpus`` of them.

    Without ``jobs`` each GPU, or group of them, is one slot. A single device, or none but the CPU, gives slots without
    variables.
    """
    import torch

    if gpus is not None and gpus > 1:
        check_gpus(gpus, device)
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    visible = [name for name in os.environ.get(VISIBLE, "").split(",") if name] or [str(i) for i in range(count)]
    size = gpus or 1
    groups: list[Slot] = [
        {VISIBLE: ",".join(visible[start : start + size])} for start in range(0, count - size + 1, size)
    ] or [{}]
    return [groups[i % len(groups)] for i in range(jobs or len(groups))]


@dataclass
class _Work:
    """A fold on the command line, and what became of it."""

    fold: str
    folder: Path
    is_finished: bool
    result: str
    """For the table."""
    seconds: float | None = None

    @property
    def log(self) -> Path:
        """File with what its process prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def scores(self) -> Any:
        """Return the content of its summary.json; None if there is none."""
        path = self.folder / "validation" / "summary.json"
        return json.loads(path.read_text(encoding="utf-8")) if self.is_finished and path.is_file() else None

    def end(self, code: int, seconds: float) -> None:
        """Note the exit code of its process, and how long it ran."""
        self.is_finished, self.seconds = code == EXIT_DONE, seconds
        if code == EXIT_DONE:
            self.result = "finished"
        elif code == EXIT_INTERRUPTED:
            self.result = "stopped"
        elif code < 0:
            self.result = f"killed by {signal.Signals(-code).name}"
        else:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
            self.result = next((text.strip() for text in reversed(lines) if text.strip()), f"exit code {code}")


def _check(space: Workspace, dataset: Dataset, options: RunOptions, folds: Sequence[str], line: Line) -> list[_Work]:
    """Return what there is to do, and raise what is wrong with any fold."""
    from autoseg.core.ranks import Ranks
    from autoseg.sampling.loader import share_of_batch
    from autoseg.training.batches import batch_size
    from autoseg.training.prepare import check_folder, check_start, prepare_fold
    from autoseg.training.resuming import is_finished

    names = [str(parse_fold(fold)) for fold in folds]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{_named(twice)}: found more than once, expected each fold once.")
    works = []
    for name in names:
        request = prepare_fold(space, dataset, replace(options, fold=name))
        check_start(request, resume=line.resume, overwrite=line.overwrite)
        share_of_batch(batch_size(request), Ranks(size=line.gpus or 1))
        is_done = line.resume and not line.overwrite and is_finished(request.folder, request.config)
        if not is_done and (line.resume or not line.overwrite):  # overwriting is left to the process of the fold
            check_folder(request.folder, resume=line.resume, overwrite=line.overwrite, command=line.command(folds))
        works.append(_Work(name, request.folder, is_done, "was finished" if is_done else "not begun"))
    return works


@dataclass
class _Queue:
    """Folds that wait for a slot, or run in one."""

    line: Line
    size: int
    """Number of slots."""
    waiting: deque[_Work]
    free: deque[Slot]
    _running: list[tuple[_Work, Child, Slot, float]] = field(default_factory=list)
    """Fold, its process, its slot, and when it began."""

    def run(self, started: Children) -> None:
        """Run all folds, until the last has ended or the user asks for the end."""
        while self._running or (self.waiting and not started.were_stopped):
            while self.waiting and self.free and not started.were_stopped:
                self._start(started, self.waiting.popleft(), self.free.popleft())
            for entry in list(self._running):
                work, process, slot, begun = entry
                if process.poll() is None:
                    continue
                self._running.remove(entry)
                self.free.append(slot)
                work.end(process.returncode, time.monotonic() - begun)
                log.info("fold %s after %s: %s", work.fold, duration_text(work.seconds or 0), work.result)
            time.sleep(0.1)

    def _start(self, started: Children, work: _Work, slot: Slot) -> None:
        """Start the process of a fold, with its share of workers and threads."""
        line = self.line
        flags = [*(["--resume"] if line.resume else []), *(["--overwrite"] if line.overwrite else [])]
        workers = str(share_of_workers(n_workers(line.workers), self.size))
        arguments = line.arguments([work.fold], "-j", workers, *flags)
        is_shared = self.size > 1 or line.threads is not None
        threads = share_of_threads(self.size * (line.gpus or 1), line.threads) if is_shared else {}
        work.log.parent.mkdir(parents=True, exist_ok=True)
        with work.log.open("ab" if line.resume else "wb") as output:
            process = started.start(arguments, {**threads, **slot}, output=output)
        log.info("fold %s begins%s: %s", work.fold, f" on GPU {slot[VISIBLE]}" if slot else "", work.log)
        self._running.append((work, process, slot, time.monotonic()))


def _print_table(works: Sequence[_Work], metric: str) -> None:
    """Print the result of each fold: how it ended, its mean ``metric`` over foreground or targets, how long it ran."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("fold", "result")
    for title in (metric, "time"):
        table.add_column(title, justify="right")
    for work in works:
        score = ((work.scores() or {}).get("foreground_mean") or {}).get(metric)
        shown = ["-" if score is None else f"{score:.4f}", "-" if work.seconds is None else duration_text(work.seconds)]
        table.add_row(work.fold, escape(work.result), *shown)
    Console(highlight=False, width=None if sys.stdout.isatty() else 150).print(table)


def _named(folds: Sequence[str]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {listed(folds, len(folds))}"
