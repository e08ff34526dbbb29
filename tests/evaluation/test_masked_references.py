"""A valid mask limits what a reference decides, where the reference is the label file that the mask belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autoseg.core.errors import EvaluationError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation import evaluate_files, evaluate_folder
from autoseg.io.images import write_labels

SHAPE = (2, 4, 6)


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labels(path, values.astype(np.uint8), Geometry(spacing=(2.0, 1.0, 1.0)))


@pytest.fixture
def folder(tmp_path) -> Path:
    """One case: the left half is annotated and predicted right; the right half is neither."""
    folder = tmp_path / "toy"
    truth = np.zeros(SHAPE)
    truth[:, 1:3] = 1
    drawn, mask, predicted = truth.copy(), np.ones(SHAPE), truth.copy()
    mask[..., 3:] = 0
    drawn[..., 3:] = 9  # not declared
    predicted[..., 3:] = 1
    write(folder / "imagesTr/a_0000.nii.gz", np.arange(48).reshape(SHAPE))
    write(folder / "labelsTr/a.nii.gz", drawn)
    write(folder / "labelsTr_dense/a.nii.gz", truth)
    write(folder / "masksTr/a.nii.gz", mask)
    write(folder / "predictions/a.nii.gz", predicted)
    content = {"channel_names": {"0": "x"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    content |= {"numTraining": 1, "valid_mask_folder": "masksTr"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", ["folder", "data set", "searched"])
def test_nothing_outside_the_mask_counts(folder: Path, kind: str):
    given = {"folder": folder, "data set": Dataset.load(folder), "searched": None}[kind]
    summary = evaluate_folder(folder / "labelsTr", folder / "predictions", given)
    metrics = summary.metric_per_case[0].metrics["1"]
    assert (metrics.TP, metrics.FP, metrics.FN, metrics.TN) == (12, 0, 0, 12)


def test_files_are_scored_within_their_masks(folder: Path):
    pairs = {"a": (folder / "labelsTr/a.nii.gz", folder / "predictions/a.nii.gz")}
    labels = Dataset.load(folder).labels
    summary = evaluate_files(pairs, labels, masks={"a": folder / "masksTr/a.nii.gz"})
    assert summary.metric_per_case[0].metrics["1"].FP == 0


def test_other_references_have_no_mask(folder: Path):
    summary = evaluate_folder(folder / "labelsTr_dense", folder / "predictions", folder)
    assert summary.metric_per_case[0].metrics["1"].FP == 12
    (warning,) = summary.warnings
    assert warning.startswith("valid_mask_folder: not applied to 1 references")


def test_an_absent_class_is_a_false_alarm_outside_the_mask_too(folder: Path):
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"] = {"background": 0, "organ": 1, "tumour": 2}
    content["cases"] = {"a": {"absent": ["tumour"]}}
    (folder / "dataset.json").write_text(json.dumps(content))
    predicted = np.zeros(SHAPE)
    predicted[0, 0, 4:] = 2
    write(folder / "predictions/a.nii.gz", predicted)
    metrics = evaluate_folder(folder / "labelsTr", folder / "predictions", folder).metric_per_case[0].metrics
    assert metrics["2"].FP == 2 and metrics["1"].FP == 0


def test_a_missing_mask_is_named(folder: Path):
    (folder / "masksTr/a.nii.gz").unlink()
    with pytest.raises(EvaluationError, match="valid mask of case 'a'"):
        evaluate_folder(folder / "labelsTr", folder / "predictions", folder)


def test_masks_belong_to_listed_label_files_wherever_they_lie(folder: Path):
    (folder / "labelsTr").rename(folder / "drawn")
    content = json.loads((folder / "dataset.json").read_text())
    content["dataset"] = {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "drawn/a.nii.gz"}}
    (folder / "dataset.json").write_text(json.dumps(content))
    for given in (folder, Dataset.load(folder)):
        summary = evaluate_folder(folder / "drawn", folder / "predictions", given)
        assert summary.metric_per_case[0].metrics["1"].FP == 0
        assert summary.scored_on == "annotated voxels" and summary.warnings == ()


def test_a_label_file_may_be_a_link_into_a_store(folder: Path):
    (folder / "store").mkdir()
    (folder / "labelsTr/a.nii.gz").rename(folder / "store/KEY.nii.gz")
    (folder / "labelsTr/a.nii.gz").symlink_to(folder / "store/KEY.nii.gz")
    summary = evaluate_folder(folder / "labelsTr", folder / "predictions", folder)
    assert summary.metric_per_case[0].metrics["1"].FP == 0 and summary.warnings == ()
