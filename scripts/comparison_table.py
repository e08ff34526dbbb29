"""Rows of a comparison from the results of its runs, and the table that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autoseg.evaluation.bootstrap import Interval, ScoreArray, difference_intervals, mean_scores
from autoseg.evaluation.comparison import CASES_FOR_A_VERDICT


@dataclass(frozen=True)
class Run:
    """Result of one training of one system."""

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
    dense_per_case: Mapping[str, Mapping[str, float | None]] | None = None
    """Case -> class or region -> Dice on its dense reference; None in results of earlier versions."""
    processor_seconds: float | None = None
    """Processor time of the training process, its workers not counted; None in results of earlier versions."""

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
class Lead:
    """Mean Dice of the first row minus that of another, on dense references and over the seeds that both have."""

    mean: float
    interval: Interval | None
    """95 %, by bootstrap over cases that resamples both systems alike. What another seed would give is not in it."""
    n_cases: int
    seeds: tuple[int, ...]

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0, with enough cases for that to mean something."""
        has_zero = self.interval is None or self.interval[0] <= 0 <= self.interval[1]
        return self.n_cases >= CASES_FOR_A_VERDICT and not has_zero


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
    lead: Lead | None = None
    """Of the first row over this one; None for the first row itself, and where a run does not hold its cases."""

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return asdict(self)


def summarise(runs: Iterable[Run]) -> list[Row]:
    """Return one row per system and limit, in order of first appearance, each compared with the first."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.system, run.limit), []).append(run)
    first = next(iter(groups.values()), [])
    return [_row(group, None if group is first else lead_of(first, group)) for group in groups.values()]


def lead_of(runs: Sequence[Run], others: Sequence[Run]) -> Lead | None:
    """Compare the runs of two systems case by case, each case by its mean over the seeds that both systems have.

    None if they have no seed in common, if a run does not hold the Dice of its cases, or if cases or classes differ.
    """
    seeds = tuple(sorted({run.seed for run in runs} & {run.seed for run in others}))
    tables = [_per_case([run for run in group if run.seed in seeds]) for group in (runs, others)]
    ours, theirs = tables
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return None
    difference = mean_scores(ours[1])[-1] - mean_scores(theirs[1])[-1]
    if np.isnan(difference):
        return None
    interval = difference_intervals(ours[1], theirs[1])[-1]
    return Lead(float(difference), interval, len(ours[1]), seeds)


def _per_case(runs: Sequence[Run]) -> tuple[list[tuple[str, ...]], ScoreArray] | None:
    """Return the names of each row (case, then classes) and (N, H) Dice, the mean over the runs where it is known."""
    tables = [run.dense_per_case for run in runs]
    if not tables or any(not table for table in tables):
        return None
    rows = [(case, *sorted(classes)) for case, classes in sorted((tables[0] or {}).items())]
    if any(sorted((case, *sorted(classes)) for case, classes in (table or {}).items()) != rows for table in tables):
        return None
    scores = np.array(
        [[[(table or {})[case][name] for name in classes] for case, *classes in rows] for table in tables], dtype=float
    )
    known = ~np.isnan(scores)
    total, count = np.where(known, scores, 0.0).sum(axis=0), known.sum(axis=0)
    return rows, np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _row(group: Sequence[Run], lead: Lead | None) -> Row:
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
        lead=lead,
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(sum(values) / len(values), min(values), max(values))


def _dice(scores: Sequence[Mapping[str, float | None] | None]) -> Spread | None:
    """Return the spread of the foreground Dice; None unless every run has one."""
    known = [value for score in scores if score is not None and (value := score["foreground"]) is not None]
    return _spread(known) if known and len(known) == len(scores) else None


def markdown(rows: Iterable[Row], titles: Mapping[str, str]) -> str:
    """Return the table; ``titles`` gives the text for each system.

    Ranges behind a mean are over the seeds; the last column, there if a run holds the Dice of its cases, is the Dice of
    the first row minus that of the row, with its 95 % interval by paired bootstrap over cases.
    """
    rows = list(rows)
    header = (
        "system", "length of the run", "seeds", "iterations", "training s", "s / iteration",
        "Dice, dense references", "Dice, annotated voxels",
        *(["first row minus this one (95 %, over cases)"] if any(row.lead for row in rows) else []),
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
            *([_shown_lead(row.lead)] if len(header) == 9 else []),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return "-"
    mean, low, high = (f"{value:.{digits}f}" for value in (spread.mean, spread.low, spread.high))
    return mean if low == high else f"{mean} ({low} to {high})"


def _shown_lead(lead: Lead | None) -> str:
    if lead is None:
        return "-"
    interval = "" if lead.interval is None else " ({:+.3f} to {:+.3f})".format(*lead.interval)
    unclear = "" if lead.is_clear else ", not clear"
    return f"{lead.mean:+.3f}{interval}{unclear}"
