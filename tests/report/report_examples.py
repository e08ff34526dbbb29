"""Small folders of predictions, of a run and of fused masks, for pages about them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from objects import UNLABELLED, write_objects
from toy import write_toy_dataset

from autoseg.evaluation import evaluate_folder
from autoseg.io.images import read_labels, write_labels, write_values
from autoseg.report.history import EpochRecord, write_history

SHAPES = {"2d": (1, 24, 20), "3d": (8, 16, 14)}


def write_predictions(dataset: Path, folder: Path) -> None:
    """Write predictions of a toy data set, each moved by one voxel more than the one before, and summary.json."""
    for number, path in enumerate(sorted((dataset / "labelsTr_dense").iterdir())):
        labels, geometry = read_labels(path)
        write_labels(folder / path.name, np.roll(labels, number, axis=-1), geometry)
    (folder / "dataset.json").write_text((dataset / "dataset.json").read_text())
    evaluate_folder(dataset / "labelsTr", folder).write(folder / "summary.json")


def predictions(folder: Path, *, n_cases: int = 3, shape: str = "3d", sparse: bool = False) -> Path:
    """Write a toy data set and predictions of it; return the folder of the predictions, case 0 of which is right."""
    dataset = write_toy_dataset(folder / "Dataset007_Toy", n_cases=n_cases, shape=SHAPES[shape], sparse=sparse)
    write_predictions(dataset, folder / "predicted")
    return folder / "predicted"


def object_predictions(folder: Path, *, is_flat: bool, per_class: int | None = None) -> Path:
    """Write a data set of objects and predictions of it, in which the last case has two objects merged into one.

    With ``per_class`` there are two classes, of which every other object has one.
    """
    keys = {} if per_class is None else {"labels": {"background": 0, "cell": 1, "dark": 2}}
    keys |= {} if per_class is None else {"instances_per_class": per_class}
    dataset = write_objects(folder / "Dataset008_Cells", is_flat=is_flat, n_cases=2, n_test=0, **keys)
    for path in sorted((dataset / "labelsTr").iterdir()):
        values, geometry = read_labels(path)
        if per_class is not None:
            is_object = (values > 0) & (values != UNLABELLED)
            values = np.where(is_object, (1 + values % 2) * per_class + values % per_class, values).astype(np.uint16)
            write_labels(path, values, geometry)
        predicted = np.where(values == UNLABELLED, 0, values).astype(np.uint16)
        if path.name.startswith("c1"):
            one, other = np.unique(predicted[predicted > 0])[:2]
            predicted[predicted == other] = one
        write_labels(folder / "predicted" / path.name, predicted, geometry)
    (folder / "predicted" / "dataset.json").write_text((dataset / "dataset.json").read_text())
    evaluate_folder(dataset / "labelsTr", folder / "predicted").write(folder / "predicted" / "summary.json")
    return folder / "predicted"


def add_uncertainty(folder: Path, *, kind: str = "folds") -> None:
    """Write maps of uncertainty beside predictions: 0 in the first case, more in each further one."""
    table = {}
    paths = sorted(path for path in folder.iterdir() if path.name.startswith("toy"))
    for number, path in enumerate(paths):
        labels, geometry = read_labels(path)
        level = number / len(paths)
        values = np.full((1, *labels.shape), level, dtype=np.float32)
        ending = ".tif" if path.suffix == ".png" else ".nii.gz"
        case = path.name.partition(".")[0]
        write_values(folder / "uncertainty" / "entropy" / f"{case}{ending}", values, geometry)
        table[case] = {"members": {"kind": kind, "number": 3}, "foreground": {"entropy": level}}
    (folder / "uncertainty" / "uncertainty.json").write_text(json.dumps({"cases": table}))


def add_quality(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write quality.csv beside predictions."""
    with (folder / "quality.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def records(n: int, **more: object) -> list[EpochRecord]:
    """Return a history of ``n`` lines."""
    return [
        EpochRecord(
            epoch=index, iteration=10 * index, dice=0.1 * index, dice_smooth=0.05 * index, learning_rate=0.1 / index,
            train_loss=2 / index, validation_loss=None if index == 2 else 2.1 / index, seconds=30.0, scored_on="dense",
            dice_per_head={"bright": 0.1 * index, "brighter": None}, **more,
        )
        for index in range(1, n + 1)
    ]  # fmt: skip


def write_fold(folder: Path, dataset: Path | None, *, iterations: int = 30, **more: object) -> Path:
    """Write the files of a fold; with a data set its validation, too."""
    folder.mkdir(parents=True, exist_ok=True)
    write_history(folder / "history.jsonl", records(3, **more))
    settings = {
        "iterations": iterations, "optimizer": {"name": "muon"}, "fold": folder.name.removeprefix("fold_"),
        "train_cases": ["a", "b"], "val_cases": ["c"], "origins": {"optimizer.name": "--set", "iterations": "run.toml"},
        "environments": [{"iteration": 0, "versions": {"autoseg": "0.1.0", "torch": "2.9.1"}, "threads": 1}],
        "commands": [{"iteration": 0, "command": "autoseg_train 7 0 --set 'a <b>'"}],
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(settings))
    if dataset is not None:
        write_predictions(dataset, folder / "validation")
    return folder
