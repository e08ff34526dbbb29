"""Data sets of tests whose label files hold numbers, unknown in a part of the voxels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Labels
from autoseg.dataset.task_section import target_labels
from autoseg.io.images import write_values

NO_NUMBER = -999
DEPTH = target_labels(("depth",), NO_NUMBER)
TWO: Labels = target_labels(("depth", "height"), None)


def write_regression(folder: Path, *, is_flat: bool = False, n_cases: int = 6, n_test: int = 2, **keys: Any) -> Path:
    """Write a data set whose target is 50 - 10 times the smoothed image; test cases are known everywhere.

    In training cases a third of the field of view is NaN, and three tenths of the other voxels have ``NO_NUMBER``.
    """
    rng = np.random.default_rng(0)
    shape, ending = ((1, 48, 48), ".tif") if is_flat else ((10, 24, 24), ".nii.gz")
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
    for index in range(n_cases + n_test):
        image = ndimage.gaussian_filter(rng.normal(size=shape), [0 if is_flat else 1, 2, 2])
        image /= image.std()
        target = 50 - 10 * ndimage.gaussian_filter(image, [0, 1, 1])
        part = "Ts" if index >= n_cases else "Tr"
        if part == "Tr":
            target[rng.random(shape) < 0.3] = NO_NUMBER
            target[:, :, : shape[2] // 3] = np.nan
        geometry = Geometry(
            spacing=(999.0, 1.0, 1.0) if is_flat else (2.0 + index % 2, 1.0, 1.0), ndim=2 + (not is_flat)
        )
        write_values(folder / f"images{part}" / f"c{index}_0000{ending}", image[None].astype(np.float32), geometry)
        write_values(folder / f"labels{part}" / f"c{index}{ending}", target[None].astype(np.float32), geometry)
    content = {
        "channel_names": {"0": "noNorm"}, "task": "regression", "targets": ["depth"], "unlabelled": NO_NUMBER,
        "numTraining": n_cases, "file_ending": ending, **keys,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder
