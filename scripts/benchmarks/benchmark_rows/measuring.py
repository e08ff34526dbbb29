"""The fingerprint of a data set, and how much memory a large CT takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmark_rows.cases import DATASET, ct_case, write_dataset, write_nifti
from benchmark_rows.preprocessing import make_case
from benchmark_rows.row import Finding, Row, Settings, Variant

TOLERANCE = 1e-3
"""Of percentiles, relative."""
PERCENTILES = ("percentile_00_5", "median", "percentile_99_5")


def make_cts(folder: Path, settings: Settings) -> None:
    """Write a data set of some CTs of different size."""
    z, y, x = settings["shape"]
    shapes = [(z + 8 * index, y, x - 8 * index) for index in range(settings["cases"])]
    cases = [ct_case(shape, settings["organs"], seed) for seed, shape in enumerate(shapes)]
    write_dataset(folder, cases, (1.5, 0.8, 0.8), "CT")


def check_fingerprint(folder: Path, settings: Settings) -> Finding:
    """Compare percentiles, by their largest relative difference, and shapes and spacings."""
    ours, theirs = (json.loads((folder / f"{which}.json").read_text()) for which in ("ours", "theirs"))
    key = "foreground_intensity_properties_per_channel"
    mine, other = ours[key]["0"], theirs[key]["0"]
    error = max(abs(mine[name] - other[name]) / abs(other[name]) for name in PERCENTILES)
    same = all(np.allclose(ours[name], theirs[name]) for name in ("shapes_after_crop", "spacings"))
    return Finding(f"percentiles differ by {100 * error:.3f} %", error <= TOLERANCE and same)


def make_large_ct(folder: Path, settings: Settings) -> None:
    """Write a CT whose slices are those of a small one, again and again."""
    shape = settings["shape"]
    image, labels = ct_case((16, *shape[1:]), settings["organs"], seed=0)
    which = np.arange(shape[0]) // 4 % 16
    make_case(folder, {**settings, "shape": [4, 8, 8]})  # the smallest that has the plan
    dataset = folder / DATASET
    write_nifti(dataset / "imagesTr" / f"case_000_0000{settings['ending']}", image[which], settings["spacing"])
    write_nifti(dataset / "labelsTr" / f"case_000{settings['ending']}", labels[which], settings["spacing"])
    for path in (dataset / "imagesTr" / "case_000_0000.nii.gz", dataset / "labelsTr" / "case_000.nii.gz"):
        if settings["ending"] != ".nii.gz":
            path.unlink()
    content = json.loads((dataset / "dataset.json").read_text()) | {"file_ending": settings["ending"]}
    content["labels"] = {"background": 0, **{f"organ_{n}": n for n in range(1, settings["organs"] + 1)}}
    (dataset / "dataset.json").write_text(json.dumps(content))


def check_large(folder: Path, settings: Settings) -> Finding:
    """Hold the shape of the case, as measured or as cached, against that which the spacings give."""
    found = json.loads((folder / "ours.json").read_text())
    return Finding(f"shape {'x'.join(map(str, found))}", found == settings["expected"])


LARGE = {"shape": [800, 512, 512], "spacing": [1.0, 0.8, 0.8], "organs": 15, "ending": ".nii"}
TO_1_5 = {"target": [1.5, 1.5, 1.5], "expected": [533, 273, 273]}
THICK = {"shape": [400, 512, 512], "spacing": [2.0, 0.8, 0.8]}

FINGERPRINT = Row(
    title="fingerprint of CTs in one process, beside nnU-Net's (its pool of processes replaced by a thread)",
    variants=(Variant("4 cases of 8 M voxels", {"cases": 4, "shape": [120, 256, 256], "organs": 15}, floor=3),),
    make=make_cts,
    ours="measuring_ours:fingerprint",
    theirs="measuring_theirs:fingerprint",
    check=check_fingerprint,
    limit="inflating the files; counting integers, or sorting the foreground of each case",
    rounds=1,
)
MEMORY = Row(
    title="peak memory of one process with one CT of 512x512x800",
    variants=(
        Variant("check and measure", {**LARGE, **TO_1_5, "expected": [800, 512, 512]}, bound_gb=4),
        Variant("preprocess, 0.8x0.8x1 to 1.5 mm", {**LARGE, **TO_1_5, "is_cached": True}, bound_gb=4),
        Variant(
            "preprocess 512x512x400 of 2 mm to 0.8 mm",
            {**LARGE, **THICK, "target": [0.8, 0.8, 0.8], "expected": [1000, 512, 512], "is_cached": True},
            bound_gb=4,
        ),
    ),
    make=make_large_ct,
    ours="measuring_ours:large",
    check=check_large,
    limit="the image as stored, once more as float32, and what is written",
    rounds=1,
)
