"""Predicted quality of segmentations without a reference: what is known of a model, and what it says of a case."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoseg.core.atomic import atomic_path, write_text
from autoseg.core.findings import counted, listed
from autoseg.evaluation.likeness import CaseFeatures, Likeness, Verdict
from autoseg.evaluation.predicted_dice import DiceCurve

QUALITY_FOLDER, QUALITY_TABLE = "quality", "quality.csv"
"""Folder of the records of cases, one JSON file each, and the table made of them, beside predictions."""
TARGETS = {"dense": "Dice", "annotated voxels": "Dice on annotated voxels"}
"""Name of what is predicted, by the references behind it."""

COLUMNS = (
    "case", "class", "target", "predicted_dice", "low", "high", "soft_dice_confidence", "pairwise_dice", "volume",
    "unit", "unlike_training", "is_unlike", "reason",
)  # fmt: skip
"""Of the table."""

Unit = Literal["ml", "pixels"]


class Quality(BaseModel):
    """Section ``quality`` of a calibration: results of a model in cases that it was not trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    curves: tuple[DiceCurve, ...]
    """One per foreground head of the data set, in order."""
    likeness: Likeness
    folds: tuple[str, ...]
    """Folds whose validation was used."""
    n_cases: int
    """Cases with a Dice behind the curves."""

    def __str__(self) -> str:
        """Return a line for the log."""
        known = [f"{curve.name} +-{curve.half_width:.3f}" for curve in self.curves if curve.half_width is not None]
        unknown = [curve.name for curve in self.curves if curve.half_width is None]
        parts = [listed(known)] if known else []
        if unknown:
            parts.append(f"too few cases so far for {listed(unknown)}")
        like = "" if self.likeness.reason is None else ", too few for the likeness of images"
        return f"predicted Dice: {'; '.join(parts)} ({counted(self.likeness.n_cases, 'case')}{like})"

    def curve(self, name: str) -> DiceCurve | None:
        """Return the curve of a class or region; None if it is not known."""
        return next((curve for curve in self.curves if curve.name == name), None)


class HeadQuality(BaseModel):
    """Predicted quality of one class or region of a case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    """As in summary.json."""
    name: str
    soft_dice_confidence: float | None
    """0 to 1; None if its probability is 0 everywhere."""
    pairwise_dice: float | None
    """Mean Dice of pairs of members, 0 to 1; None with one member, or if members were not compared."""
    n_voxels: int
    """Voxels predicted as it."""
    volume: float
    unit: Unit
    predicted_dice: float | None = None
    """0 to 1; None if nothing is predicted as it, or too few cases are known."""
    low: float | None = None
    """Lower end of the 90 % interval."""
    high: float | None = None
    target: str = TARGETS["dense"]
    """Name of what ``predicted_dice`` predicts: a Dice on annotated voxels says nothing of the others."""
    occurrence: float | None = None
    """Share of the scored training cases in which it occurs."""

    @property
    def expected(self) -> float:
        """Number by which cases are sorted: the predicted Dice, otherwise the confidence.

        Where nothing is predicted, the Dice is 0 if the class is there and undefined if it is not; then it is the share
        of the training cases in which the class does not occur.
        """
        if self.n_voxels == 0:
            return 0.0 if self.occurrence is None else 1 - self.occurrence
        known = self.soft_dice_confidence if self.predicted_dice is None else self.predicted_dice
        return 0.0 if known is None else known


class CaseQuality(BaseModel):
    """Record of the predicted quality of a case, ``quality/<case>.json`` beside its prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    file: str
    """Name of the prediction."""
    n_members: int
    """Networks whose mean predicts the case."""
    heads: tuple[HeadQuality, ...]
    """One per foreground head."""
    features: CaseFeatures
    verdict: Verdict | None = None
    """Likeness to the training cases; None if it is not known."""

    def head(self, name: str) -> HeadQuality | None:
        """Return the quality of a class or region by name; None if there is no such."""
        return next((head for head in self.heads if head.name == name), None)

    def write(self, folder: Path) -> None:
        """Write the record beside the predictions in ``folder``, atomically."""
        write_text(record_path(folder, self.case), self.model_dump_json(indent=1) + "\n")


def record_path(folder: Path, case: str) -> Path:
    """Return the path of the record of a case, beside its prediction in ``folder``."""
    return folder / QUALITY_FOLDER / f"{case}.json"


def judged(record: CaseQuality, quality: Quality | None) -> CaseQuality:
    """Return a record with what the model's quality says of it; without one, as it is."""
    if quality is None:
        return record
    verdict = quality.likeness.judge(record.features)
    return record.model_copy(update={"heads": judged_heads(record.heads, quality), "verdict": verdict})


def judged_heads(heads: Sequence[HeadQuality], quality: Quality | None) -> tuple[HeadQuality, ...]:
    """Return the heads of a case with their predicted Dice; as they are where the model's quality is not known."""
    curves = [None if quality is None else quality.curve(head.name) for head in heads]
    return tuple(head if curve is None else _with_dice(head, curve) for head, curve in zip(heads, curves, strict=True))


def _with_dice(head: HeadQuality, curve: DiceCurve) -> HeadQuality:
    confidence = head.soft_dice_confidence
    estimate = None if confidence is None or head.n_voxels == 0 else curve.estimate(confidence)
    dice, low, high = (None, None, None) if estimate is None else estimate
    known = {"predicted_dice": dice, "low": low, "high": high, "target": TARGETS[curve.scored_on]}
    return head.model_copy(update={**known, "occurrence": curve.occurrence})


def records_in(folder: Path) -> Iterator[CaseQuality]:
    """Yield the records beside the predictions in ``folder``, by name; without any, nothing.

    A record that cannot be read, or whose prediction is no longer there, is left out.
    """
    for path in sorted((folder / QUALITY_FOLDER).glob("*.json")):
        try:
            record = CaseQuality.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if (folder / record.file).is_file():
            yield record


def read_records(folder: Path) -> tuple[CaseQuality, ...]:
    """Return the records of :func:`records_in`."""
    return tuple(records_in(folder))


def write_quality_table(path: Path, records: Iterable[CaseQuality]) -> None:
    """Write ``quality.csv``: a row per case and class, worst first; unknown numbers are empty cells.

    Rows are sorted by :attr:`HeadQuality.expected`, then by the pairwise Dice, ascending; those without pairwise Dice
    come after those of the same expectation that have one. Memory holds the text of the table, and one record. Without
    records there is no table: one that exists is removed.
    """
    lines = sorted((_rank(record, head), _line(_row(record, head))) for record in records for head in record.heads)
    if not lines:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        file.write(_line(COLUMNS))
        file.writelines(line for _, line in lines)


def _rank(record: CaseQuality, head: HeadQuality) -> tuple[float, float, str]:
    return head.expected, math.inf if head.pairwise_dice is None else head.pairwise_dice, record.case


def _line(cells: Iterable[object]) -> str:
    """Return a line of a CSV file, with its end; None is an empty cell."""
    text = StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _row(record: CaseQuality, head: HeadQuality) -> tuple[object, ...]:
    """Return the cells of ``COLUMNS``."""
    verdict = record.verdict
    return (
        record.case,
        head.name,
        head.target,
        *(_rounded(value) for value in (head.predicted_dice, head.low, head.high)),
        _rounded(head.soft_dice_confidence),
        _rounded(head.pairwise_dice),
        f"{head.volume:.6g}",
        head.unit,
        None if verdict is None else _rounded(verdict.score),
        None if verdict is None else "yes" if verdict.is_unlike else "no",
        None if verdict is None else verdict.reason,
    )


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
