"""A model whose objects are parted by the mutex watershed is compared by label maps that are."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from exact_affinities import predictor
from objects import draw_objects

from autoseg.assist import own_separation, pair_predictions
from autoseg.assist.find_best import FindBestOptions, find_best
from autoseg.assist.trained_folds import find_trained_models
from autoseg.core.atomic import write_json
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation.instances import match_instances
from autoseg.inference.blockwise import read_box
from autoseg.inference.folder import PredictionReport, read_files
from autoseg.io.images import read_labels, write_labels
from autoseg.nn.checkpoint import load_checkpoint, save_checkpoint
from autoseg.tasks.separation import SeparationSettings

NAME = "Dataset001_Cells"
FOLDS = {"0": ("a", "b"), "1": ("c",)}
OPTIONS = FindBestOptions(device="cpu", workers=0)
GEOMETRY = Geometry(spacing=(FLAT_SPACING, 1.0, 1.0), ndim=2)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Two models of exact affinities, whose validations have merged all objects; "good" parts them by mutex."""
    space = Workspace(tmp_path)
    raw, exact = space.raw(NAME), predictor(tmp_path / "m", 2)
    cases = [case for val in FOLDS.values() for case in val]
    for index, case in enumerate(cases):
        objects = draw_objects((1, 40, 44), 5.0, index)
        for place, values in ((f"imagesTr/{case}_0000", objects), (f"labelsTr/{case}", objects)):
            write_labels(raw / f"{place}.nii.gz", values, GEOMETRY)
        for name in ("good", "plain"):
            fold = next(fold for fold, val in FOLDS.items() if case in val)
            merged = (objects > 0).astype(np.uint8)
            write_labels(space.model(NAME, "2d", name) / f"fold_{fold}/validation/{case}.nii.gz", merged, GEOMETRY)
    write_json(raw / "dataset.json", {**exact.model.dataset.json, "numTraining": len(cases)})
    splits = [{"train": [case for case in cases if case not in val], "val": list(val)} for val in FOLDS.values()]
    write_json(raw / "splits_final.json", splits)
    weights = load_checkpoint(tmp_path / "m" / "fold_0" / "checkpoint_final.pt")
    for name in ("good", "plain"):
        for fold, split in zip(FOLDS, splits, strict=True):
            folder = space.model(NAME, "2d", name) / f"fold_{fold}"
            save_checkpoint(folder / "checkpoint_final.pt", weights)
            write_json(folder / "training.json", {"train_cases": split["train"], "val_cases": split["val"]})
    tuned = {"method": "mutex", "core": 0.9, "neck": 0.5, "min_size": 10_000}
    write_json(space.model(NAME, "2d", "good") / "separation.json", tuned)
    monkeypatch.setattr(own_separation, "load_fold", lambda model, fold, *more: loaded(exact, fold))
    return space


def loaded(exact, fold):
    """Return a predictor whose model says which fold it is, and that it was tuned."""
    return replace(exact, model=replace(exact.model, folds=(fold,), separation=SeparationSettings(min_size=10_000)))


def test_each_model_is_compared_by_its_own_method_with_default_settings(workspace, monkeypatch):
    found = find_best(workspace, Dataset.load(workspace.raw(NAME)), OPTIONS)
    scores = {model.members: model.foreground for model in found.choice.ranking}
    assert found.choice.chosen == ("good__2d",) and scores[("good__2d",)] == 1 and scores[("plain__2d",)] < 0.5
    maps = workspace.results(NAME) / "find_best" / "good__2d"
    assert {path.name for path in maps.glob("*.nii.gz")} == {"a.nii.gz", "b.nii.gz", "c.nii.gz"}
    assert not (workspace.results(NAME) / "find_best" / "plain__2d").exists()
    reference, prediction = (read_labels(path / "c.nii.gz")[0] for path in (workspace.raw(NAME) / "labelsTr", maps))
    assert match_instances(prediction, reference).average_precision() == 1

    used = []
    monkeypatch.setattr(own_separation, "load_fold", lambda model, fold, *more: used.append((model.name, fold)))
    assert find_best(workspace, Dataset.load(workspace.raw(NAME)), OPTIONS).choice == found.choice
    assert not used


def test_only_cases_of_folds_that_were_trained_again_are_predicted_again(workspace, monkeypatch):
    dataset, exact = Dataset.load(workspace.raw(NAME)), own_separation.load_fold(None, "0")
    find_best(workspace, dataset, OPTIONS)
    folder, used = workspace.model(NAME, "2d", "good"), []
    maps = {case: workspace.results(NAME) / "find_best" / "good__2d" / f"{case}.nii.gz" for case in "abc"}
    before = {case: path.stat().st_mtime_ns for case, path in maps.items()}
    later = before["c"] + 1
    os.utime(folder / "fold_1" / "checkpoint_final.pt", ns=(later, later))
    monkeypatch.setattr(
        own_separation, "load_fold", lambda model, fold, *more: used.append((model.name, fold)) or loaded(exact, fold)
    )
    find_best(workspace, dataset, OPTIONS)
    assert used == [("good__2d", "1")]
    assert {case for case, path in maps.items() if path.stat().st_mtime_ns != before[case]} == {"c"}


def test_boxes_of_volumes_are_read_as_parts_and_again_when_their_validation_changed(workspace, tmp_path, monkeypatch):
    dataset, read, box_maps = Dataset.load(workspace.raw(NAME)), {}, tmp_path / "maps"
    (model,) = find_trained_models(workspace, dataset, names=["good"]).models

    def predict_files(group, images, folder, **options):
        ((case, _),) = images.items()
        read[case] = options["read"]
        write_labels(folder / f"{case}.nii.gz", np.zeros((1, 40, 44), np.uint8), GEOMETRY)
        return PredictionReport(done=(case,))

    monkeypatch.setattr(pair_predictions, "predict_files", predict_files)
    own_separation.predicted_by_mutex(model, dataset, box_maps, boxes={"a"})
    assert read == {"a": read_box, "b": read_files, "c": read_files}
    read.clear()
    own_separation.predicted_by_mutex(model, dataset, box_maps, boxes={"a"})
    assert not read
    later = (box_maps / "good__2d" / "a.nii.gz").stat().st_mtime_ns + 10**9
    os.utime(model.predictions["a"], ns=(later, later))  # of another box
    own_separation.predicted_by_mutex(model, dataset, box_maps, boxes={"a"})
    assert read == {"a": read_box}
