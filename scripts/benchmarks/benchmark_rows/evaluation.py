"""Evaluation of label files: one joint histogram against a pass per class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmark_rows.row import Finding, Row, Settings, Variant

COUNTS = ("TP", "FP", "FN", "TN")


def make_files(folder: Path, settings: Settings) -> None:
    """Write ``reference`` and ``prediction`` of each case as .nii.gz: ellipsoids, and the same a little off."""
    from autoseg.core.geometry import Geometry
    from autoseg.io.images import write_labels

    shape = tuple(settings["shape"])
    grid = np.ogrid[tuple(slice(edge) for edge in shape)]
    for case in range(settings["cases"]):
        rng = np.random.default_rng(case)
        labels = np.zeros(shape, dtype=np.uint8)
        for value in range(1, settings["classes"]):
            centre = [rng.uniform(0.1, 0.9) * edge for edge in shape]
            radius = [rng.uniform(0.05, 0.15) * edge for edge in shape]
            distance = sum(((axis - middle) / r) ** 2 for axis, middle, r in zip(grid, centre, radius, strict=True))
            labels[np.asarray(distance) < 1] = value
        for side, values in (("reference", labels), ("prediction", np.roll(labels, (1, 2, -1), axis=(0, 1, 2)))):
            write_labels(folder / side / f"case_{case}.nii.gz", values, Geometry(spacing=(1.5, 0.8, 0.8)))


def check_counts(folder: Path, settings: Settings) -> Finding:
    """Whether every count of every class in every case is the same."""
    ours, theirs = (json.loads((folder / f"{side}.json").read_text()) for side in ("ours", "theirs"))
    n_counts = sum(len(of_class) for case in ours.values() for of_class in case.values())
    expected = settings["cases"] * (settings["classes"] - 1) * len(COUNTS)
    return Finding(
        f"{n_counts} counts {'identical' if ours == theirs else 'differ'}", ours == theirs and n_counts == expected
    )


def _variant(classes: int, cases: int, floor: float) -> Variant:
    return Variant(f"{classes} classes, {cases} cases of 200x256x256",
                   {"classes": classes, "cases": cases, "shape": [200, 256, 256]}, floor=floor)  # fmt: skip


EVALUATION = Row(
    title="evaluation of label files, beside nnU-Net's compute_metrics",
    variants=(_variant(3, 4, 1.5), _variant(30, 4, 9), _variant(117, 4, 50)),
    make=make_files,
    ours="evaluation_ours:counts",
    theirs="evaluation_theirs:counts",
    check=check_counts,
    limit="inflating two files a case; comparing neighbours in each; 0.1 s for the intervals of 117 means",
    rounds=1,
)
