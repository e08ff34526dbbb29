"""Our side of the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoseg.dataset.labels import Head, Labels
from autoseg.evaluation import evaluate_files
from benchmark_rows.evaluation import COUNTS


def counts(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Score every case, means and their intervals included."""
    heads = tuple(
        Head(str(value), (value,), (value,), is_background=value == 0) for value in range(settings["classes"])
    )
    labels = Labels(tuple(range(len(heads))), tuple(head.name for head in heads), heads)
    names = [f"case_{case}" for case in range(settings["cases"])]
    pairs = {name: tuple(folder / side / f"{name}.nii.gz" for side in ("reference", "prediction")) for name in names}

    def run() -> dict[str, dict[str, list[int]]]:
        summary = evaluate_files({name: (pair[0], pair[1]) for name, pair in pairs.items()}, labels)
        return {
            case.case: {key: [getattr(metrics, name) for name in COUNTS] for key, metrics in case.metrics.items()}
            for case in summary.metric_per_case
        }

    return run
