"""Preprocessing of a CT case by one process, of a small data set by two, and once more when nothing has changed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmark_rows.cases import DATASET, ct_case, small_case, write_dataset
from benchmark_rows.row import Finding, Row, Settings, Variant

TOLERANCE = 1e-4
"""Of normalised intensities."""
IDENTICAL = 0.9999
ROOT = "workspace"
CONFIGURATION = "3d_fullres"


def make_case(folder: Path, settings: Settings) -> None:
    """Write a data set of one CT, and the fingerprint (as nnU-Net's) of a data set of another spacing."""
    case = ct_case(settings["shape"], settings["organs"], seed=0)
    write_dataset(folder, [case], settings["spacing"], "CT")
    intensities = {"mean": 70.0, "median": 60.0, "std": 90.0, "min": -900.0, "max": 500.0}
    fingerprint = {
        "spacings": [settings["target"]],
        "shapes_after_crop": [settings["shape"]],
        "foreground_intensity_properties_per_channel": {
            "0": {**intensities, "percentile_00_5": -60.0, "percentile_99_5": 310.0}
        },
        "median_relative_size_after_cropping": 1.0,
    }
    (folder / "fingerprint.json").write_text(json.dumps(fingerprint))


def make_theirs(folder: Path, dataset: Path) -> None:
    """Write nnU-Net's plans for the fingerprint of :func:`make_case`."""
    from autoseg.interop.nnunet_plans import plan_like_nnunet

    content, fingerprint = (
        json.loads(path.read_text()) for path in (dataset / "dataset.json", folder / "fingerprint.json")
    )
    plans = plan_like_nnunet(content, fingerprint, dataset_name=dataset.name)
    (folder / "nnunet_plans.json").write_text(json.dumps(plans))


def make_case_and_plans(folder: Path, settings: Settings) -> None:
    """Write the data set and what both sides plan from."""
    make_case(folder, settings)
    make_theirs(folder, folder / DATASET)


def check_case(folder: Path, settings: Settings) -> Finding:
    """Largest difference of normalised intensities, and share of identical labels."""
    ours, theirs = np.load(folder / "ours.npz"), np.load(folder / "theirs.npz")
    if ours["image"].shape != theirs["image"].shape:
        return Finding(f"shapes {ours['image'].shape} and {theirs['image'].shape}", False)
    error = float(np.abs(ours["image"] - theirs["image"]).max())
    same = float((ours["codes"] == np.maximum(theirs["codes"][0], 0)).mean())  # nnU-Net: -1 outside of the body
    text = f"largest difference {error:.1e}, {100 * same:.4f} % of the labels identical"
    return Finding(text, error < TOLERANCE and same >= IDENTICAL)


def make_small_cases(folder: Path, settings: Settings) -> None:
    """Write a data set of small cases."""
    cases = [small_case(seed) for seed in range(settings["cases"])]
    write_dataset(folder, cases, (1.0, 1.0, 1.0), settings.get("channel", "MR"))


def make_preprocessed_cases(folder: Path, settings: Settings) -> None:
    """Write a data set of small cases and preprocess it."""
    make_small_cases(folder, settings)
    subprocess.run(command(folder), check=True, capture_output=True)


def check_dataset(folder: Path, settings: Settings) -> Finding:
    """Both have cached every case."""
    found = {which: json.loads((folder / f"{which}.json").read_text()) for which in ("ours", "theirs")}
    text = ", ".join(f"{n} cases by {which}" for which, n in found.items())
    return Finding(text, set(found.values()) == {settings["cases"]})


def command(folder: Path) -> list[str]:
    """Return our command line for the data set in ``folder``."""
    program = str(Path(sys.executable).parent / "autoseg_plan_and_preprocess")
    return [program, str(folder / DATASET), "--root", str(folder / ROOT), "-j", "2"]


def check_second_run(folder: Path, settings: Settings) -> Finding:
    """After one label file is changed, exactly its case is preprocessed again."""
    image, labels = small_case(0)
    labels[: len(labels) // 2] = 0
    write_dataset(folder / "other", [(image, labels)], (1.0, 1.0, 1.0), "MR")
    name = "labelsTr/case_000.nii.gz"
    (folder / "other" / DATASET / name).replace(folder / DATASET / name)
    run = subprocess.run(command(folder), capture_output=True, encoding="utf-8", check=False)
    counts = re.findall(r"(\w+): (\d+) cases preprocessed, (\d+) were up to date", run.stderr)
    redone = {name: int(done) for name, done, _ in counts}
    text = "redone after a change: " + (", ".join(f"{name} {n}" for name, n in redone.items()) or "nothing")
    kept = {int(kept) for _, _, kept in counts}
    return Finding(text, bool(counts) and set(redone.values()) == {1} and kept == {settings["cases"] - 1})


CT = {"shape": [200, 256, 256], "organs": 15, "spacing": [1.5, 0.8, 0.8], "target": [1.2, 0.9, 0.9]}

CASE = Row(
    title="preprocessing of a CT case, from its files to the cache, beside nnU-Net's DefaultPreprocessor",
    variants=(
        Variant("13 M voxels, 15 organs, 200x256x256 to 250x228x228", CT, floor=6),
        Variant(
            "anisotropic, 60x320x320 of 5 mm slices",
            {"shape": [60, 320, 320], "organs": 15, "spacing": [5.0, 0.8, 0.8], "target": [4.0, 0.7, 0.7]},
            floor=6,
        ),
    ),
    make=make_case_and_plans,
    ours="preprocessing_ours:case",
    theirs="preprocessing_theirs:case",
    check=check_case,
    limit="inflating the files, one resampling of image and labels, writing 4 + 1 bytes a voxel",
    rounds=1,
)
COMMAND = Row(
    title="planning and preprocessing of small cases through both command lines, two processes each",
    variants=(Variant("40 cases of the size of a hippocampus", {"cases": 40}, floor=3),),
    make=make_small_cases,
    ours="preprocessing_ours:command_line",
    theirs="preprocessing_theirs:command_line",
    check=check_dataset,
    limit="start of the interpreter and of two workers; flushing four files per case to the disk",
    rounds=1,
)
AGAIN = Row(
    title="a second run with nothing changed",
    variants=(
        Variant("100 small cases", {"cases": 100}, max_seconds=2),
        Variant("the same as CT", {"cases": 100, "channel": "CT"}, max_seconds=2),
    ),
    make=make_preprocessed_cases,
    ours="preprocessing_ours:again",
    check=check_second_run,
    limit="start of the interpreter; a stat of every file and reading every CASE.json",
)
