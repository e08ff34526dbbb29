"""Tables of the agreement of experts: per image and expert, per expert, and between experts."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.annotation.agreement import foreground_mean
from autoseg.annotation.staple import Float64Array
from autoseg.core.atomic import write_json, write_text

EXPERTS_CSV, MEAN_CSV, AGREEMENT_CSV, REPORT = "experts.csv", "experts_mean.csv", "agreement.csv", "experts.json"

PRECISION = ("average_precision_50", "average_precision_50_95")
"""Columns for instances."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of the E experts of one image with the fused labels and with each other, for K classes."""

    name: str
    """Of the masks."""
    case: str
    """Name of the case: that of the image, or of the masks where there are no images."""
    experts: tuple[str, ...]
    dice: Float64Array
    """(E, K), 0 to 1, with the fused labels; NaN for a class in neither."""
    sensitivity: Float64Array
    """(E, K), 0 to 1, estimated."""
    specificity: Float64Array
    """(E, K), 0 to 1, estimated."""
    pairs: Float64Array
    """(E, E), 0 to 1: mean Dice of two experts over foreground classes; NaN without any."""
    decided: float
    """Share of voxels with a single class, 0 to 1; 0 without voxels."""
    unknown: float
    """Share of voxels that may be any class, 0 to 1; 0 without voxels."""
    precision: Float64Array | None
    """(E, 2), 0 to 1: average precision of the instances of each expert against those of the fused mask, at an
    intersection over union of 0.5, and its mean over 0.5 to 0.95; NaN without any. None if masks hold no instances."""
    is_settled: bool
    """False if STAPLE ended before its estimate had settled."""

    @property
    def mean_dice(self) -> Float64Array:
        """(E,) mean over foreground classes; NaN without any."""
        return foreground_mean(self.dice)


def write_tables(
    folder: Path, agreements: Sequence[Agreement], class_names: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Write the tables as CSV; and all of them with ``settings`` as JSON."""
    write_text(folder / EXPERTS_CSV, _csv(_rows(agreements, class_names)))
    write_text(folder / MEAN_CSV, _csv(mean_rows(agreements, class_names)))
    experts, matrix = agreement_matrix(agreements)
    write_text(
        folder / AGREEMENT_CSV,
        _csv(
            [{"expert": name} | dict(zip(experts, row, strict=True)) for name, row in zip(experts, matrix, strict=True)]
        ),
    )
    write_json(folder / REPORT, report(agreements, class_names, settings))


def report(agreements: Sequence[Agreement], class_names: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings and agreement as JSON; scores of classes that are nowhere are null."""
    experts, matrix = agreement_matrix(agreements)
    return _without_nan(
        {
            "settings": dict(settings),
            "classes": list(class_names),
            "experts": mean_rows(agreements, class_names),
            "agreement": {"experts": experts, "mean_dice": matrix},
            "images": {
                item.name: {
                    "case": item.case,
                    "experts": list(item.experts),
                    "decided": item.decided,
                    "unknown": item.unknown,
                    "is_settled": item.is_settled,
                    "mean_dice": item.mean_dice.tolist(),
                }
                for item in agreements
            },
        }
    )


def mean_rows(agreements: Sequence[Agreement], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row for each expert: number of images, mean and standard deviation of every score over images.

    NaN for scores that no image has.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(agreements, class_names):
        rows.setdefault(row["expert"], []).append(row)
    means = []
    for expert in sorted(rows):
        mean: dict[str, Any] = {"expert": expert, "images": len(rows[expert])}
        for key in [key for key in rows[expert][0] if key not in ("file", "expert")]:
            numbers = np.array([row[key] for row in rows[expert] if not math.isnan(row[key])])
            mean[key] = float(numbers.mean()) if numbers.size else math.nan
            mean[f"{key}_std"] = float(numbers.std()) if numbers.size else math.nan
        means.append(mean)
    return means


def agreement_matrix(agreements: Sequence[Agreement]) -> tuple[list[str], list[list[float]]]:
    """Return the experts, and the Dice (E, E) of two experts, averaged over foreground classes, then over images.

    NaN for experts without a common image.
    """
    experts = sorted({name for item in agreements for name in item.experts})
    scores: dict[tuple[str, str], list[float]] = {}
    for item in agreements:
        for i, one in enumerate(item.experts):
            for j, other in enumerate(item.experts):
                if not math.isnan(item.pairs[i, j]):
                    scores.setdefault((one, other), []).append(float(item.pairs[i, j]))
    matrix = [[_mean(scores.get((one, other), [])) for other in experts] for one in experts]
    return experts, matrix


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan


def _rows(agreements: Iterable[Agreement], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row for each image and expert."""
    rows = []
    names = class_names
    for item in agreements:
        for index, expert in enumerate(item.experts):
            row: dict[str, Any] = {"file": item.name, "expert": expert, "mean_dice": float(item.mean_dice[index])}
            tables = {"dice": item.dice, "sensitivity": item.sensitivity, "specificity": item.specificity}
            for score, table in tables.items():
                row |= {f"{score}_{name}": float(value) for name, value in zip(names, table[index], strict=True)}
            if item.precision is not None:
                row |= dict(zip(PRECISION, item.precision[index].tolist(), strict=True))
            rows.append(row)
    return rows


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; NaN is an empty field."""
    text = StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        )
    return text.getvalue()


def _without_nan(value: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values with None for NaN."""
    clean: dict[str, Any] = json.loads(json.dumps(value), parse_constant=lambda _: None)
    return clean
