"""Our side of the rows on fingerprint and memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoseg.dataset.dataset import Dataset
from autoseg.inspection.survey import survey_dataset
from autoseg.planning import extract_fingerprint
from benchmark_rows import preprocessing_ours
from benchmark_rows.cases import DATASET


def fingerprint(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Measure all cases in this process."""
    dataset = Dataset.load(folder / DATASET)
    return lambda: extract_fingerprint(dataset).model_dump(mode="json")


def large(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Check and measure the only case, or preprocess it; return its shape."""
    if settings.get("is_cached"):
        preprocess = preprocessing_ours.case(folder, settings)
        return lambda: list(preprocess()["codes"].shape)
    dataset = Dataset.load(folder / DATASET)
    return lambda: next(list(found.shape_after_crop) for found in survey_dataset(dataset).measures.values())
