"""Time and memory of autoseg beside nnU-Net and the libraries it stands on, side by side in one run.

python scripts/benchmarks/benchmark.py resample_image export --against nnunetv2-python ENV/bin/python

Each side runs in a process of its own with one thread, in turn, after one run that is not counted (a run that takes
more than 5 s is counted, and not repeated). Ratios are medians over the rounds of their seconds over ours.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from benchmark_rows import ROWS
from benchmark_rows.rounds import Outcome, run_variant
from benchmark_rows.row import Row, Variant

from autoseg.cli import common
from autoseg.core.errors import AutosegError, ConfigError

PEER = "nnunetv2-python"
HEADINGS = ("row", "ours, s", "theirs, s", "ratio", "wanted", "memory, GB", "theirs, GB", "check")


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(benchmark)


def benchmark(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME ...", help=f"Among {', '.join(ROWS)}.")] = None,
    *,
    against: Annotated[
        tuple[str, str] | None,
        typer.Option("--against", metavar=f"{PEER} PATH", help="Interpreter of an environment with nnunetv2==2.8.1."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with totalseg_examples/; rows on real files are left out without it.", exists=True),
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for inputs and outputs (default: a temporary one).")] = None,
    json_: common.JsonOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Measure the rows NAME (default: all) and print a table; exit 1 if a check of correctness fails."""
    unknown = [name for name in names or () if name not in ROWS]
    if unknown:
        raise ConfigError(f"benchmark: found no row {', '.join(unknown)}, expected some of {', '.join(ROWS)}.")
    peer = peer_python(against)
    chosen = names or list(ROWS)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="benchmark_") as temporary:
        folder = work or Path(temporary)
        variants = {name: usable_variants(ROWS[name], data) for name in chosen}
        total = sum(map(len, variants.values()))
        with common.progress("benchmark", quiet=quiet) as report:
            for name in chosen:
                for index, variant in enumerate(variants[name]):
                    outcomes.append(run_variant(name, ROWS[name], variant, folder / f"{name}_{index}", peer))
                    report(len(outcomes), total, f"{name}: {variant.name}")
    if json_:
        common.print_json({"rows": [asdict(outcome) for outcome in outcomes]})
    else:
        print("\n".join(table(outcomes)))
    wrong = [f"{outcome.row}, {outcome.variant}: {outcome.check}" for outcome in outcomes if not outcome.holds]
    if wrong:
        raise AutosegError("benchmark: the sides do not agree.\n" + "\n".join(wrong))


def usable_variants(row: Row, data: Path | None) -> list[Variant]:
    """Return the variants of a row, those on a real file (setting ``file``, below ``data``) only where it is there."""
    usable = []
    for variant in row.variants:
        name = variant.settings.get("file")
        if name is None:
            usable.append(variant)
        elif data is not None and (data / name).is_file():
            usable.append(replace(variant, settings={**variant.settings, "file": str((data / name).resolve())}))
    return usable


def peer_python(against: tuple[str, str] | None) -> Path | None:
    """Return the interpreter that ``--against nnunetv2-python PATH`` names; None without it."""
    if against is None:
        return None
    if against[0] != PEER:
        raise ConfigError(f"--against: found {against[0]!r}, expected '{PEER} PATH'. It is the one peer there is.")
    path = Path(against[1])
    if not os.access(path, os.X_OK):
        raise ConfigError(f"--against {PEER}: found no program {path}, expected a Python interpreter. Check the path.")
    return path


def table(outcomes: list[Outcome]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|" + "---:|" * (len(HEADINGS) - 2) + "---|"]
    for one in outcomes:
        cells = (
            f"{one.row}: {one.variant}",
            f"{one.ours_s:.3g}",
            _number(one.theirs_s),
            _number(one.ratio),
            (one.wanted or "-") + ("" if one.reached else " (missed)"),
            f"{one.ours_gb:.2f}",
            _number(one.theirs_gb),
            one.check + ("" if one.holds else " (WRONG)"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
