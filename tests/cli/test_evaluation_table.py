"""Tables of scores for a terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from autoseg.cli.evaluation_table import print_tables
from autoseg.core.geometry import Geometry
from autoseg.evaluation import evaluate_folder
from autoseg.io.images import write_labels

CONTENT = {
    "channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1}, "numTraining": 1, "file_ending": ".nii.gz",
}  # fmt: skip


@pytest.mark.parametrize(
    ("spacing", "reference", "predicted"),
    [((5e-5, 4e-6, 4e-6), "2.16e-14", "4.32e-14"), ((2.0, 1.0, 1.0), "54", "108")],
    ids=["electron microscopy", "radiology"],
)
def test_volumes_keep_their_digits_however_small_voxels_are(tmp_path, spacing, reference, predicted):
    values = np.zeros((6, 8, 8), dtype=np.uint8)
    for folder, depth in (("references", 3), ("predictions", 6)):
        (tmp_path / folder).mkdir()
        values[:depth, :3, :3] = 1
        write_labels(tmp_path / folder / "a.nii.gz", values, Geometry(spacing=spacing))
    summary = evaluate_folder(Path(tmp_path / "references"), Path(tmp_path / "predictions"), CONTENT)
    shown = Console(record=True, width=200, file=StringIO())
    print_tables(summary, shown)
    (row,) = (line for line in shown.export_text().splitlines() if "cell" in line and line.count("│") > 6)
    assert [cell.strip() for cell in row.split("│")][-3:-1] == [reference, predicted]
