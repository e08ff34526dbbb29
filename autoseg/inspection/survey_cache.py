"""What a reading of the files gave, case by case, so that the next run reads only the cases that changed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from autoseg.core.atomic import atomic_path
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.inspection.case_check import Finding
from autoseg.inspection.measure import CaseMeasure
from autoseg.preprocessing.freshness import file_stamp, short_hash

SURVEY_FILE = "dataset_survey.npz"
SURVEY_VERSION = 5
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


_CASES = TypeAdapter(dict[str, KeptCase])


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
        with path.open("rb") as file, np.load(file, allow_pickle=False) as parts:
            return _CASES.validate_json(bytes(parts["cases"]), context=parts["arrays"].data)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return {}


def save_survey(path: Path, cases: Mapping[str, KeptCase]) -> None:
    """Write what is known of some cases, atomically."""
    arrays = bytearray()
    content = _CASES.dump_json(dict(cases), context=arrays)
    with atomic_path(path) as temporary:
        np.savez(temporary, cases=np.frombuffer(content, dtype=np.uint8), arrays=np.frombuffer(arrays, dtype=np.uint8))
