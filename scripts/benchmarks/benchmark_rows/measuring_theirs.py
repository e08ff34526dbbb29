"""nnU-Net's side of the row on fingerprints."""

from __future__ import annotations

import multiprocessing.pool
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmark_rows.cases import DATASET


def fingerprint(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Extract the fingerprint; a thread does what its pool of one process would, so that no start-up is timed."""
    os.environ.update(
        {"nnUNet_raw": str(folder), "nnUNet_preprocessed": str(folder / "p"), "nnUNet_results": str(folder / "r")}
    )
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor

    pools = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=multiprocessing.pool.ThreadPool))
    fingerprint_extractor.multiprocessing = pools
    extractor = fingerprint_extractor.DatasetFingerprintExtractor(DATASET, num_processes=1)
    extractor.show_progress_bar = False

    def run() -> Any:
        found = extractor.run(overwrite_existing=True)
        properties = found["foreground_intensity_properties_per_channel"]
        found["foreground_intensity_properties_per_channel"] = {str(key): item for key, item in properties.items()}
        return {key: _plain(value) for key, value in found.items()}

    return run


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return float(value)
