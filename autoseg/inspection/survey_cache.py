"""Stored results of the survey, case by case, so that the next run reads only the cases that changed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from autoseg.core.atomic import atomic_path
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.inspection.case_check import CaseCheck
from autoseg.inspection.case_measure import CaseMeasure
from autoseg.preprocessing.freshness import case_stamps, short_hash

SURVEY_FILE = "dataset_survey.npz"
SURVEY_VERSION = 7
"""Number to be raised when the same files are checked or measured differently, or results are stored differently."""
_OF_OTHERS = ("cases", "dataset", "numTraining")
"""Keys left out of a case's hash, because they also change when other cases do. The case's own part is hashed
separately."""


@dataclass(frozen=True, slots=True)
class CachedCase:
    """Results of reading one case; stored only for cases without faults."""

    stamp: str
    """Hash of the sources of the results, see :func:`case_stamp`."""
    check: CaseCheck
    measure: CaseMeasure | None


_CASES = TypeAdapter(dict[str, CachedCase])


def case_stamp(dataset: Dataset, case: CaseFiles, n_knots: int) -> str:
    """Return a hash of the files of a case, of what dataset.json states about it, and of ``n_knots``.

    A file counts with its name, size and time of modification, as in the fingerprint of a cached case.
    """
    shared = {key: value for key, value in dataset.json.items() if key not in _OF_OTHERS}
    own = dict(dataset.json.get("cases", {})).get(case.name)
    return short_hash([SURVEY_VERSION, n_knots, case_stamps(case), shared, own])


def load_survey(path: Path) -> dict[str, CachedCase]:
    """Return case -> stored results; empty if the file is missing, damaged or of another version."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as parts:
            return _CASES.validate_json(bytes(parts["cases"]), context=parts["arrays"].data)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return {}


def save_survey(path: Path, cases: Mapping[str, CachedCase]) -> None:
    """Write the results of some cases in one step: a killed process leaves the old file or the new one.

    Cases are written by name, so that the file does not depend on the order in which workers ended.
    """
    arrays = bytearray()
    content = _CASES.dump_json(dict(sorted(cases.items())), context=arrays)
    with atomic_path(path) as temporary:
        np.savez(temporary, cases=np.frombuffer(content, dtype=np.uint8), arrays=np.frombuffer(arrays, dtype=np.uint8))
