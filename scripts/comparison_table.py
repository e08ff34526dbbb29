"""Rows of a comparison from the results of its runs, and the table that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """What one training of one system gave."""

    system: str
    """Key of the system, as ``nnunet``."""
    limit: str
    """``"iterations"``, or ``"time"`` if the run ended with the seconds that autoseg needed."""
    seed: int
    iterations: int
    """Optimiser steps done."""
    training_seconds: float
    """From building the network to the last checkpoint, validation on patches included."""
    prediction_seconds: float
    n_parameters: int
    precision: str
    dense: Mapping[str, float | None] | None
    """Dice on dense references: ``foreground`` and each class or region; None without such references."""
    annotated: Mapping[str, float | None] | None
    """The same on the annotated voxels of the validation cases; None if the data set is dense."""

    def as_json(self) -> dict[str, Any]:
        """Return the run as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Spread:
    """Mean, lowest and highest value over the seeds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """The runs of one system of equal length, over the seeds."""

    system: str
    limit: str
    seeds: tuple[int, ...]
    iterations: Spread
    training_seconds: Spread
    seconds_per_iteration: float
    dense: Spread | None
    annotated: Spread | None

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return asdict(self)


def summarise(runs: Iterable[Run]) -> list[Row]:
    """Return one row per system and limit, in order of first appearance."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.system, run.limit), []).append(run)
    return [_row(group) for group in groups.values()]


def _row(group: Sequence[Run]) -> Row:
    seconds = [run.training_seconds for run in group]
    return Row(
        system=group[0].system,
        limit=group[0].limit,
        seeds=tuple(run.seed for run in group),
        iterations=_spread([run.iterations for run in group]),
        training_seconds=_spread(seconds),
        seconds_per_iteration=sum(seconds) / max(1, sum(run.iterations for run in group)),
        dense=_dice([run.dense for run in group]),
        annotated=_dice([run.annotated for run in group]),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(sum(values) / len(values), min(values), max(values))


def _dice(scores: Sequence[Mapping[str, float | None] | None]) -> Spread | None:
    """Return the spread of the foreground Dice; None unless every run has one."""
    known = [value for score in scores if score is not None and (value := score["foreground"]) is not None]
    return _spread(known) if known and len(known) == len(scores) else None


def markdown(rows: Iterable[Row], titles: Mapping[str, str]) -> str:
    """Return the table; ``titles`` gives the text for each system. Ranges are over the seeds."""
    header = (
        "system", "length of the run", "seeds", "iterations", "training s", "s / iteration",
        "Dice, dense references", "Dice, annotated voxels",
    )  # fmt: skip
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * 2 + " ---: |" * (len(header) - 2)]
    for row in rows:
        cells = (
            titles[row.system],
            f"equal {row.limit}",
            str(len(row.seeds)),
            _shown(row.iterations, 0),
            _shown(row.training_seconds, 0),
            f"{row.seconds_per_iteration:.3f}",
            _shown(row.dense, 3),
            _shown(row.annotated, 3),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return "-"
    mean, low, high = (f"{value:.{digits}f}" for value in (spread.mean, spread.low, spread.high))
    return mean if low == high else f"{mean} ({low} to {high})"
