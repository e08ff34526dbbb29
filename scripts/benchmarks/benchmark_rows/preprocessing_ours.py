"""Our side of the rows on preprocessing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoseg.cases.cache import open_case
from autoseg.dataset.dataset import Dataset
from autoseg.planning import load_fingerprint, plan
from autoseg.preprocessing.runner import preprocess_dataset
from benchmark_rows.cases import DATASET
from benchmark_rows.preprocessing import CONFIGURATION, ROOT, command


def case(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Preprocess the only case of the data set and open its cache."""
    dataset = Dataset.load(folder / DATASET)
    planned = plan(dataset, load_fingerprint(folder / "fingerprint.json"))
    cache = folder / "cache"
    name = dataset.case_names[0]

    def run() -> dict[str, Any]:
        (cache / f"{name}.json").unlink(missing_ok=True)
        report = preprocess_dataset(dataset, planned, CONFIGURATION, cache)
        for error in report.failed.values():
            raise error
        cached = open_case(cache, name)
        return {"image": cached.image, "codes": cached.codes}

    return run


def command_line(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Check, plan and preprocess the data set into an empty workspace; return the number of cached cases."""

    def run() -> int:
        shutil.rmtree(folder / ROOT, ignore_errors=True)
        return again(folder, settings)()  # type: ignore[no-any-return]

    return run


def again(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Run the command on a workspace that is kept; return the number of cached cases."""

    def run() -> int:
        subprocess.run(command(folder), check=True, capture_output=True, encoding="utf-8")
        return len(list((folder / ROOT / "preprocessed" / DATASET / CONFIGURATION).glob("*.json")))

    return run
