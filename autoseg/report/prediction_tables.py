"""Predicted quality and uncertainty of cases, from the tables beside their predictions; both may be missing."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autoseg.core.errors import EvaluationError

QUALITY_FILE, UNCERTAINTY_FOLDER, UNCERTAINTY_FILE = "quality.csv", "uncertainty", "uncertainty.json"
MAP = "entropy"
"""Map of the uncertainty that is shown: of the mean probabilities."""


@dataclass(frozen=True, slots=True)
class PredictedDice:
    """Estimated Dice of a class in a case."""

    case: str
    head: str
    """Name of the class; "" if the estimate is of all classes together."""
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class QualityTable:
    """Content of quality.csv."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    estimates: tuple[PredictedDice, ...] = ()
    """Of the rows with a case and a number ``predicted_dice``, in the order of the file."""
    unlike: tuple[tuple[str, str], ...] = ()
    """Case and reason of the cases that are marked as unlike the training data."""

    @property
    def by_case(self) -> dict[str, float]:
        """Case -> mean of its estimates over classes."""
        values: dict[str, list[float]] = {}
        for estimate in self.estimates:
            values.setdefault(estimate.case, []).append(estimate.value)
        return {case: sum(own) / len(own) for case, own in values.items()}


class MeanEntropy(BaseModel):
    """Mean uncertainty over some voxels."""

    model_config = ConfigDict(frozen=True)

    entropy: float | None = None


class EnsembleMembers(BaseModel):
    """Networks that an uncertainty follows from."""

    model_config = ConfigDict(frozen=True)

    kind: str = ""
    number: int = 1


class CaseEntropy(BaseModel):
    """Uncertainty of one case."""

    model_config = ConfigDict(frozen=True)

    members: EnsembleMembers = EnsembleMembers()
    image: MeanEntropy = MeanEntropy()
    foreground: MeanEntropy = MeanEntropy()


class UncertaintyTable(BaseModel):
    """What a page shows of uncertainty.json."""

    model_config = ConfigDict(frozen=True)

    cases: dict[str, CaseEntropy] = {}


def read_quality(folder: Path) -> QualityTable | None:
    """Read quality.csv in a folder of predictions; None if there is none.

    Columns are found by their names, whatever their order; all may be missing. Raises ``EvaluationError`` if the file$
    is no table.
    """
    path = folder / QUALITY_FILE
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise EvaluationError(f"{path}: cannot be read as a table ({error}). Predict again, or remove it.") from error
    if not lines:
        return QualityTable((), ())
    columns, rows = tuple(lines[0]), tuple(tuple(row + [""] * (len(lines[0]) - len(row))) for row in lines[1:])
    entries = [dict(zip(columns, row, strict=False)) for row in rows]
    unlike = {entry.get("case", ""): entry.get("reason", "") for entry in entries if entry.get("is_unlike") == "yes"}
    estimates = [estimate for entry in entries if (estimate := _estimate(entry)) is not None]
    return QualityTable(columns, rows, tuple(estimates), tuple(unlike.items()))


def read_uncertainty(folder: Path) -> UncertaintyTable:
    """Read the means of the uncertainty maps beside predictions; empty if there are none that can be read."""
    path = folder / UNCERTAINTY_FOLDER / UNCERTAINTY_FILE
    try:
        return UncertaintyTable.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return UncertaintyTable()


def uncertainty_map(folder: Path, case: str, endings: Sequence[str]) -> Path | None:
    """Return the map of a case: ``uncertainty/entropy/<case><ending>``, or ``uncertainty/<case>_entropy<ending>``."""
    inside = folder / UNCERTAINTY_FOLDER
    places = [
        path for ending in endings for path in (inside / MAP / f"{case}{ending}", inside / f"{case}_{MAP}{ending}")
    ]
    return next((path for path in places if path.is_file()), None)


def _estimate(entry: Mapping[str, str]) -> PredictedDice | None:
    """Return the estimate of a row; None without a case or a number."""
    value, low, high = (_number(entry.get(name, "")) for name in ("predicted_dice", "low", "high"))
    if not entry.get("case") or value is None:
        return None
    interval = None if low is None or high is None else (low, high)
    return PredictedDice(entry["case"], entry.get("class", ""), value, interval)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value else None
