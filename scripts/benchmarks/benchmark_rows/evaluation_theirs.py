"""nnU-Net's side of the evaluation: what each of its worker processes does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_rows.evaluation import COUNTS


def counts(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Score every case with ``compute_metrics``."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, str(folder))
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    classes = list(range(1, settings["classes"]))

    def run() -> dict[str, dict[str, list[int]]]:
        found = {}
        for case in range(settings["cases"]):
            files = [str(folder / side / f"case_{case}.nii.gz") for side in ("reference", "prediction")]
            metrics = compute_metrics(files[0], files[1], SimpleITKIO(), classes)["metrics"]
            found[f"case_{case}"] = {
                str(key): [int(of_class[name]) for name in COUNTS] for key, of_class in metrics.items()
            }
        return found

    return run
