"""How long autoseg needs, from raw files, for the Dice that nnU-Net reaches: a table from runs of compare_nnunet.py.

python scripts/time_to_dice.py WORK

WORK is the folder of comparisons with several ``--iterations``: one length of nnU-Net's runs, several of autoseg's.
Each length of ours is a run of its own, to the end of its schedule, because that is what a user could have trained
instead.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from compare_nnunet import PREPARED, TITLES
from comparison_table import Run

from autoseg.cli import common
from autoseg.core.errors import ConfigError

log = logging.getLogger("autoseg.time_to_dice")


@dataclass(frozen=True)
class Reached:
    """A run of nnU-Net, and the shortest run of autoseg with the same seed that scores as high."""

    theirs: Run
    ours: Run | None
    """None if no run does."""
    preparation: tuple[float, float]
    """Seconds from raw files to cases to train on: autoseg, nnU-Net."""

    @property
    def seconds(self) -> tuple[float | None, float]:
        """Seconds of preparation and training: autoseg (None if it does not score as high), nnU-Net."""
        ours, theirs = self.preparation
        return None if self.ours is None else ours + self.ours.training_seconds, theirs + self.theirs.training_seconds


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(table)


def table(work: Annotated[Path, typer.Argument(help="Folder of comparisons (--work of compare_nnunet.py).")]) -> None:
    """Print, for every run of nnU-Net, how long autoseg needs for the same Dice on dense references."""
    common.set_up_logging()
    print(markdown(reached(read_runs(work), read_preparation(work))))


def read_runs(work: Path) -> list[Run]:
    """Read the finished runs of a folder with equal iterations and a Dice on dense references, in order of length."""
    files = sorted((work / "runs").glob("*/result.json"))
    runs = [Run(**json.loads(path.read_text(encoding="utf-8"))) for path in files]
    kept = [run for run in runs if run.limit == "iterations" and run.dense is not None]
    if not kept:
        raise ConfigError(
            f"{work}: found no finished run that was scored on dense references, expected some of autoseg and nnU-Net. "
            "Make them with scripts/compare_nnunet.py DATASET --iterations N --work WORK."
        )
    return sorted(kept, key=lambda run: (run.seed, run.iterations))


def read_preparation(work: Path) -> tuple[float, float]:
    """Read the seconds that autoseg and nnU-Net took from raw files to cases to train on."""
    paths = (work / PREPARED, work / "nnunet" / PREPARED)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ConfigError(
            f"{missing[0]}: found no such file, expected the seconds of preparation. Start the comparison again in a "
            "new folder."
        )
    ours, theirs = (float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) for path in paths)
    return ours, theirs


def reached(runs: Sequence[Run], preparation: tuple[float, float]) -> list[Reached]:
    """Return a row for each run of nnU-Net."""
    ours = [run for run in runs if run.system == "autoseg"]
    rows = []
    for run in runs:
        if run.system in ("nnunet", "nnunet-ours"):
            enough = (own for own in ours if own.seed == run.seed and dice(own) >= dice(run))
            rows.append(Reached(run, min(enough, key=lambda own: own.iterations, default=None), preparation))
    return rows


def dice(run: Run) -> float:
    """Return the mean Dice over the foreground on dense references; 0 where there is none."""
    return (run.dense or {}).get("foreground") or 0.0


def markdown(rows: Sequence[Reached]) -> str:
    """Return the table; seconds are those of preparation + training."""
    header = (
        "nnU-Net", "seed", "its iterations", "its Dice", "its seconds", "iterations of autoseg", "its Dice",
        "its seconds", "ratio", "ratio of processor time in training",
    )  # fmt: skip
    lines = [f"| {' | '.join(header)} |", "|---" + "|---:" * (len(header) - 1) + "|"]
    for row in rows:
        ours, theirs = row.ours, row.theirs
        cells = [TITLES[theirs.system], f"{theirs.seed}", f"{theirs.iterations}", f"{dice(theirs):.3f}"]
        cells.append(f"{row.preparation[1]:.0f} + {theirs.training_seconds:.0f}")
        if ours is None:
            cells += ["not reached", "-", "-", "-", "-"]
        else:
            cells += [
                f"{ours.iterations}",
                f"{dice(ours):.3f}",
                f"{row.preparation[0]:.0f} + {ours.training_seconds:.0f}",
            ]
            own, other = row.seconds
            cells.append(f"**{other / own:.1f}**" if own else "-")
            has_both = ours.processor_seconds and theirs.processor_seconds
            cells.append(f"{theirs.processor_seconds / ours.processor_seconds:.1f}" if has_both else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
