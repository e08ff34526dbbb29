"""Time of preprocessing with two workers of a Dask cluster beside one, and beside processes without Dask.

python scripts/benchmarks/cluster_preprocessing.py DATASET -c 3d_fullres [--rounds 3] [--copies 4]

The workers are processes of this machine, which are started, and have imported everything, before the clock runs; two
processes without Dask are started each time. The ways run in turn, each into a folder of its own, whose files must be
the same byte by byte. Nothing else should run meanwhile. Put TMPDIR on a file system in memory to leave out the disk.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import common
from autoseg.core.cluster import open_cluster
from autoseg.core.errors import AutosegError
from autoseg.core.parallel import Workers
from autoseg.core.plan import Plan
from autoseg.dataset.dataset import Dataset
from autoseg.planning import extract_fingerprint, plan
from autoseg.preprocessing.runner import preprocess_dataset

ALONE, PAIR, ONE, TWO = "this process, all cores", "2 processes without Dask", "1 worker", "2 workers"
WANTED = 1.6


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(cluster_preprocessing)


def cluster_preprocessing(
    dataset: Annotated[Path, typer.Argument(help="Folder with a dataset.json.")],
    *,
    configuration: Annotated[str, typer.Option("-c", help="Configuration to preprocess.")] = "3d_fullres",
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each way; the median counts.")] = 3,
    copies: Annotated[int, typer.Option(min=1, help="Times that each case is taken, for data sets of few cases.")] = 1,
) -> None:
    """Measure, and print a Markdown table."""
    common.set_up_logging(quiet=True)
    data = repeated(Dataset.load(dataset), copies)
    planned = plan(data, extract_fingerprint(data))
    with ExitStack() as stack, tempfile.TemporaryDirectory() as place:
        ways: dict[str, Workers] = {ALONE: 1, PAIR: 2}
        for name, address in ((ONE, "local:1"), (TWO, "local:2")):
            ways[name] = stack.enter_context(open_cluster(address, [dataset.absolute(), Path(place)]))
            seconds(data, planned, configuration, Path(place) / f"warm {name}", ways[name])
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            folders = {name: Path(place) / f"{number} {name}" for name in ways}
            for name, workers in ways.items():
                times[name].append(seconds(data, planned, configuration, folders[name], workers))
            n_files = check_same(list(folders.values()))
    print(f"| {data.name}, {configuration}, {len(data.cases)} cases | s, median of {rounds} | ratio to 1 worker |")
    print("|---|---:|---:|")
    one = statistics.median(times[ONE])
    for name in ways:
        print(f"| {name} | {statistics.median(times[name]):.3g} | {one / statistics.median(times[name]):.2f} |")
    ratio = statistics.median(first / second for first, second in zip(times[ONE], times[TWO], strict=True))
    print(f"\nratio of 2 workers to 1, median of the rounds: {ratio:.2f} (wanted {WANTED}); {n_files} files identical")


def repeated(dataset: Dataset, copies: int) -> Dataset:
    """Return a data set in which each case occurs several times, by different names."""
    cases = [
        case if number == 0 else replace(case, name=f"{case.name}_{number}")
        for case in dataset.cases
        for number in range(copies)
    ]
    return replace(dataset, cases=tuple(cases))


def seconds(dataset: Dataset, planned: Plan, configuration: str, folder: Path, workers: Workers) -> float:
    """Return the time of preprocessing all cases into a folder; raise ``AutosegError`` if one fails."""
    start = time.perf_counter()
    report = preprocess_dataset(dataset, planned, configuration, folder, workers=workers)
    passed = time.perf_counter() - start
    if report.failed:
        raise AutosegError(f"{len(report.failed)} cases failed, the first: {next(iter(report.failed.values()))}")
    return passed


def check_same(folders: list[Path]) -> int:
    """Return the number of files of each folder; raise ``AutosegError`` unless all hold the same bytes."""
    first, *others = (
        {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} for folder in folders
    )
    if any(other != first for other in others):
        raise AutosegError("the caches differ, expected the same bytes")
    return len(first)


if __name__ == "__main__":
    main()
