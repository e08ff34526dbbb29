"""Operations for electron microscopy, one by one, beside what reading the same patches from a compressed file takes."""

from __future__ import annotations

import json
from pathlib import Path

from benchmark_rows.patches import make
from benchmark_rows.row import Finding, Row, Settings, Variant

STACK = {"patch": [17, 257, 257], "patches": 12, "channels": 1, "shapes": [[64, 512, 512]], "is_sparse": False}
NAMES = (
    "rotate", "rescale", "flip", "elastic", "missing_section", "misalignment", "cut_noise", "cut_blur", "motion_blur",
    "missing_parts", "grayscale",
)  # fmt: skip
FLOOR = 1 / 0.3
"""No operation is to take more than 0.3 of the reading."""


def check(folder: Path, settings: Settings) -> Finding:
    """About as many patches were changed as the probability of the operation says."""
    changed, number = json.loads((folder / "ours.json").read_text())
    return Finding(f"{changed} of {number} patches changed", 0 < changed <= number)


EM = Row(
    title="operations for electron microscopy at their default probabilities, beside reading the patches from HDF5",
    variants=tuple(Variant(name, {**STACK, "operation": name}, floor=FLOOR) for name in NAMES),
    make=make,
    ours="em_ours:operation",
    theirs="em_theirs:reading",
    is_foreign=False,
    check=check,
    limit="one copy where voxels are only copied; four neighbouring reads where sections are turned or scaled",
)
