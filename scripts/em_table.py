"""Scores and table of ``measure_em.py``: the membranes of held-out sections, and the cells that they part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.evaluation.contingency import Contingency
from autoseg.evaluation.partitions import PartitionCounts, count_partitions
from autoseg.io.images import read_labels

SCORES = {
    "dice": "Dice of the membrane",
    "rand_error": "adapted Rand error",
    "split": "VI, split",
    "merge": "VI, merged",
    "missed_thin": "missed, thin",
    "missed_wide": "missed, wide",
}
"""Field of :class:`EmRun` -> its column; Dice is better if higher, the others if lower."""
WIDE = 6
"""Steps from a voxel to its neighbours after which nothing is left of a membrane that is cut across."""


@dataclass(frozen=True)
class EmRun:
    """One training, and the mean of its scores over the held-out sections."""

    every: int
    """Every so manieth section was annotated."""
    n_sections: int
    """Sections trained on."""
    system: str
    """Key of the row."""
    seed: int
    processor_seconds: float
    """Of the training process, its workers not counted."""
    dice: float
    """Of the membrane, 0 to 1."""
    rand_error: float
    """Adapted Rand error of the cells, 0 to 1."""
    split: float
    """Variation of information, bits per voxel of the reference's cells: cells that are split."""
    merge: float
    """Cells that are merged."""
    missed_thin: float
    """Share of the voxels of thin membranes that are not predicted, 0 to 1."""
    missed_wide: float
    """The same of wide membranes, which lie in the plane of the section or are filled spots."""

    def as_json(self) -> dict[str, Any]:
        """Return the run as plain values."""
        return asdict(self)


def section_scores(references: Path, predictions: Path, cases: Sequence[str], ending: str) -> dict[str, float]:
    """Return the scores of label maps with membranes, from ``rand_error`` on.

    Those of the cells are means over the cases, the shares of missed voxels are those of all cases together.
    """
    maps = [[read_labels(folder / f"{case}{ending}")[0] for folder in (references, predictions)] for case in cases]
    counts = [count_cells(*pair) for pair in maps]
    missed = np.sum([count_missed(*pair) for pair in maps], axis=0)
    thin, wide = missed[:, 0] / np.maximum(1, missed[:, 1])
    means = {
        name: mean(0.0 if (value := getattr(count, name)) is None else value for count in counts)
        for name in ("rand_error", "split", "merge")
    }
    return means | {"missed_thin": float(thin), "missed_wide": float(wide)}


def count_missed(reference: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.int64]:
    """Return a row for thin and one for wide parts of the membrane: voxels that are not predicted, and all; (2, 2).

    Wide are the voxels that stay if the membrane of each section (axis -3) is made thinner by ``WIDE`` voxels on both
    sides and then wider again.
    """
    structure = ndimage.generate_binary_structure(2, 1)[None]
    membrane, found = reference.reshape(-1, *reference.shape[-2:]) != 0, prediction.reshape(-1, *reference.shape[-2:])
    wide = ndimage.binary_opening(membrane, structure, WIDE)
    parts = (membrane & ~wide, wide)
    return np.array([[np.count_nonzero(part & (found == 0)), np.count_nonzero(part)] for part in parts])


def count_cells(reference: NDArray[Any], prediction: NDArray[Any]) -> PartitionCounts:
    """Return how two maps of membranes (*S), not 0 there, divide the voxels of the reference's cells.

    Cells are what membranes part: connected components of the other voxels, which share faces. Only voxels of the
    reference's cells count, so that a membrane may be thinner than the reference's, as long as it has no gap. Where a
    membrane is predicted in a cell, its voxels are in no cell for the Rand error, and in one of their own for the
    variation of information.
    """
    drawn, predicted = cells(reference), cells(prediction)
    return count_partitions(Contingency.of(predicted, drawn, drawn != 0))


def cells(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Return numbers of the connected components of voxels with the value 0, (*S); 0 elsewhere."""
    numbers: NDArray[np.int32] = ndimage.label(labels == 0)[0]
    return numbers


def grouped(runs: Iterable[EmRun]) -> dict[tuple[int, str], list[EmRun]]:
    """Return (every, system) -> runs, by seed."""
    groups: dict[tuple[int, str], list[EmRun]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        groups.setdefault((run.every, run.system), []).append(run)
    return groups


def markdown(runs: Iterable[EmRun], titles: Mapping[str, str]) -> str:
    """Return a row for each annotation and system, in the order of ``titles``: mean and range over the seeds."""
    groups = grouped(runs)
    lines = [f"| sections annotated | system | seeds | {' | '.join(SCORES.values())} |"]
    lines.append("|---|---|---" + "|---:" * len(SCORES) + "|")
    for every, system in sorted(groups, key=lambda key: (key[0], list(titles).index(key[1]))):
        group = groups[every, system]
        seeds = ", ".join(str(run.seed) for run in group)
        cells_of_row = [spread([getattr(run, name) for run in group]) for name in SCORES]
        first = f"{'all' if every == 1 else f'every {every}.'} ({group[0].n_sections})"
        lines.append(f"| {first} | {titles[system]} | {seeds} | {' | '.join(cells_of_row)} |")
    return "\n".join(lines)


def pairs(runs: Iterable[EmRun], titles: Mapping[str, str], first: str = "autoseg") -> str:
    """Return each system minus ``first`` in pairs of equal seeds: mean, range, and in how many it is better."""
    groups = grouped(runs)
    lines = ["| sections annotated | minus autoseg | pairs | Dice (range) | better | Rand error (range) | better |"]
    lines.append("|---" * 2 + "|---:" * 5 + "|")
    for every, system in sorted(groups, key=lambda key: (key[0], list(titles).index(key[1]))):
        base = {run.seed: run for run in groups.get((every, first), [])}
        both = [(run, base[run.seed]) for run in groups[every, system] if run.seed in base]
        if system == first or not both:
            continue
        dice = [run.dice - other.dice for run, other in both]
        rand = [run.rand_error - other.rand_error for run, other in both]
        shown = [
            f"{len(both)}", spread(dice, "+"), f"{sum(value > 0 for value in dice)}", spread(rand, "+"),
            f"{sum(value < 0 for value in rand)}",
        ]  # fmt: skip
        first_cell = "all" if every == 1 else f"every {every}."
        lines.append(f"| {first_cell} | {titles[system]} | {' | '.join(shown)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], sign: str = "") -> str:
    """Return mean (smallest to largest) of at least one value."""
    middle = f"{mean(values):{sign}.3f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{sign}.3f} to {max(values):{sign}.3f})"
