"""What a reading of the files gave, case by case, so that the next run reads only the cases that changed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.annotation.inspection import CaseAnnotation
from autoseg.core.atomic import atomic_path
from autoseg.core.case import Shape3
from autoseg.core.dataset import CaseFiles, Dataset
from autoseg.planning.case_check import Finding
from autoseg.planning.fingerprint import CaseMeasure
from autoseg.planning.intensities import Sketch
from autoseg.preprocessing.freshness import file_stamp, short_hash

SURVEY_FILE = "dataset_survey.npz"
SURVEY_VERSION = 1
"""Raised whenever the same files would be found or measured otherwise."""
_OF_OTHERS = ("cases", "dataset", "numTraining")
"""Keys of dataset.json that change with other cases; what they say of a case itself counts."""


@dataclass(frozen=True, slots=True)
class KeptCase:
    """What one reading of a case gave; only of cases without faults."""

    stamp: str
    """Of what it was read from, see :func:`case_stamp`."""
    finding: Finding
    measure: CaseMeasure | None


def case_stamp(dataset: Dataset, case: CaseFiles, n_knots: int) -> str:
    """Return a hash that changes with the files of a case, with what dataset.json says of it, and with ``n_knots``.

    Files count with name, size and time of modification, as in the fingerprint of a cached case.
    """
    said = {key: value for key, value in dataset.json.items() if key not in _OF_OTHERS}
    own = dict(dataset.json.get("cases", {})).get(case.name)
    return short_hash([SURVEY_VERSION, n_knots, [file_stamp(path) for path in case.files], said, own])


def load_survey(path: Path) -> dict[str, KeptCase]:
    """Return case -> what was kept of it; nothing if the file is missing, damaged or of another version."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            entries = _File.model_validate_json(bytes(arrays["entries"])).cases
            points, weights = arrays["points"], arrays["weights"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return {}
    kept = {}
    start = 0
    for name, entry in entries.items():
        sketches, start = _sketches(entry, points, weights, start)
        kept[name] = KeptCase(entry.stamp, entry.finding(), entry.to_measure(sketches))
    return kept


def save_survey(path: Path, cases: Mapping[str, KeptCase]) -> None:
    """Write what is known of some cases, atomically."""
    entries = _File(cases={name: _Entry.of(case) for name, case in cases.items()}).model_dump_json().encode()
    sketches = [one for case in cases.values() if case.measure for one in case.measure.intensities if one is not None]
    points, weights = ([getattr(one, name) for one in sketches] for name in ("points", "weights"))
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            entries=np.frombuffer(entries, dtype=np.uint8),
            points=np.concatenate([np.zeros(0, np.float32), *points]),
            weights=np.concatenate([np.zeros(0, np.float64), *weights]),
        )


class _Summary(BaseModel):
    """A sketch but for its arrays."""

    model_config = ConfigDict(frozen=True)

    count: float
    mean: float
    variance: float
    minimum: float
    maximum: float
    n_points: int


class _Measure(BaseModel):
    model_config = ConfigDict(frozen=True)

    spacing: tuple[float, float, float]
    shape_after_crop: Shape3
    relative_size: float
    annotated: float
    heads: tuple[int, ...]
    n_foreground: int
    intensities: tuple[_Summary | None, ...]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True)

    stamp: str
    warnings: tuple[str, ...]
    annotation: CaseAnnotation | None
    parts: tuple[tuple[bool, ...], ...] | None
    measure: _Measure | None

    @classmethod
    def of(cls, case: KeptCase) -> _Entry:
        finding, measure = case.finding, case.measure
        return cls(
            stamp=case.stamp,
            warnings=finding.warnings,
            annotation=finding.annotation,
            parts=None if finding.parts is None else finding.parts.tolist(),
            measure=None if measure is None else _measure(measure),
        )

    def finding(self) -> Finding:
        parts = None if self.parts is None else np.array(self.parts, dtype=bool)
        return Finding(warnings=self.warnings, annotation=self.annotation, parts=parts)

    def to_measure(self, sketches: tuple[Sketch | None, ...]) -> CaseMeasure | None:
        if self.measure is None:
            return None
        return CaseMeasure(**self.measure.model_dump(exclude={"intensities"}), intensities=sketches)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True)

    cases: dict[str, _Entry]


def _measure(measure: CaseMeasure) -> _Measure:
    summaries = tuple(
        None
        if one is None
        else _Summary(
            count=one.count, mean=one.mean, variance=one.variance, minimum=one.minimum, maximum=one.maximum,
            n_points=len(one.points),
        )
        for one in measure.intensities
    )  # fmt: skip
    return _Measure(
        spacing=measure.spacing, shape_after_crop=measure.shape_after_crop, relative_size=measure.relative_size,
        annotated=measure.annotated, heads=measure.heads, n_foreground=measure.n_foreground, intensities=summaries,
    )  # fmt: skip


def _sketches(
    entry: _Entry, points: NDArray[np.float32], weights: NDArray[np.float64], start: int
) -> tuple[tuple[Sketch | None, ...], int]:
    """Return the sketches of an entry, whose arrays begin at ``start``, and where those of the next one begin."""
    found: list[Sketch | None] = []
    for summary in () if entry.measure is None else entry.measure.intensities:
        if summary is None:
            found.append(None)
            continue
        stop = start + summary.n_points
        own = slice(start, stop)
        found.append(
            Sketch(**summary.model_dump(exclude={"n_points"}), points=points[own].copy(), weights=weights[own].copy())
        )
        start = stop
    return tuple(found), start
