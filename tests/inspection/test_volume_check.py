"""A case that is too large for memory is checked and measured by blocks: as one in memory, if all blocks are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.dataset.dataset import Dataset
from autoseg.inspection import sampled_volume
from autoseg.inspection.integrity import check_dataset
from autoseg.inspection.measure import extract_fingerprint
from autoseg.inspection.survey import survey_dataset
from autoseg.preprocessing import volume_size

SHAPE = (10, 40, 50)


def write(folder: Path, image: np.ndarray, labels: np.ndarray, **keys: object) -> Dataset:
    folder.mkdir(exist_ok=True)
    np.save(folder / "image.npy", image)
    np.save(folder / "labels.npy", labels)
    content = {
        "channel_names": {"0": "EM"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "unlabelled": 255,
        "boxes": {"all": {"image": "image.npy", "label": "labels.npy"}},
    }
    for name in ("image", "labels"):
        (folder / f"{name}.json").write_text('{"spacing": [2, 1, 1]}')
    (folder / "dataset.json").write_text(json.dumps({**content, **keys}))
    return Dataset.load(folder)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, SHAPE).astype(np.uint8)
    labels[::3] = 255
    return rng.integers(1, 200, SHAPE).astype(np.uint8) + 20 * (labels == 1).astype(np.uint8), labels


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(volume_size, "IN_MEMORY_VOXELS", 0)
    monkeypatch.setattr(sampled_volume, "BLOCK", (2, 16, 16))
    monkeypatch.setattr(sampled_volume, "LABEL_BLOCK", (4, 16, 16))


def test_all_blocks_together_give_what_the_whole_gives(tmp_path, arrays, monkeypatch, request):
    dataset = write(tmp_path, *arrays)
    memory, in_memory = survey_dataset(dataset), extract_fingerprint(dataset)
    request.getfixturevalue("large")
    boxes, in_boxes = survey_dataset(dataset), extract_fingerprint(dataset)
    assert boxes.report.faults == memory.report.faults == ()
    assert boxes.report.cases == memory.report.cases
    assert boxes.report.warnings == memory.report.warnings
    approximate = {"annotated_in_slices": {}}
    assert in_boxes.model_copy(update=approximate) == in_memory.model_copy(update=approximate)


def test_sampled_labels_are_multiplied_up_and_say_so(tmp_path, arrays, large, monkeypatch):
    monkeypatch.setattr(sampled_volume, "READ_LABELS", 0)
    monkeypatch.setattr(sampled_volume, "N_BLOCKS", 20)
    image, labels = arrays
    report = check_dataset(write(tmp_path, image, labels))
    assert report.cases["all"].voxels == pytest.approx(labels.size, rel=0.01)
    assert report.cases["all"].drawn == pytest.approx((labels != 255).sum(), rel=0.2)
    assert any("labels were sampled" in warning for warning in report.warnings)
    assert report.cases == check_dataset(write(tmp_path, image, labels)).cases


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image, labels: (image, labels[:5]), "labels of shape (5, 40, 50)"),
        (lambda image, labels: (np.zeros_like(image), labels), "intensities that differ"),
        (lambda image, labels: (np.where(image > 100, np.nan, image), labels), "finite intensities"),
        (lambda image, labels: (image, np.where(labels == 2, 9, labels)), "only declared values"),
        (lambda image, labels: (np.stack([image, image]), labels), "1, as in channel_names"),
        (lambda image, labels: (image, labels + 0.5), "integers"),
    ],
    ids=["shape", "empty", "nan", "undeclared", "channels", "fractions"],
)
def test_faults_are_found(tmp_path, arrays, large, change, message):
    report = survey_dataset(write(tmp_path, *change(*arrays))).report
    assert message in " ".join(map(str, report.faults)), report.faults


def test_voxels_that_are_not_finite_are_named(tmp_path, arrays, large):
    image, labels = arrays[0].astype(np.float32), arrays[1]
    image[4:6, 20, 30:33] = np.inf
    image[9, 39, 49] = np.nan
    (fault,) = survey_dataset(write(tmp_path, image, labels)).report.faults
    assert fault.found == "1 NaN and 6 infinite voxels in channel 0, the first in [4:6, 20:21, 30:32] (z, y, x)"


@pytest.mark.parametrize("is_large", [False, True])
def test_a_blank_image_is_used_and_named(tmp_path, arrays, is_large, request):
    """A blank section, or a box beside the sample, is an image like any other."""
    if is_large:
        request.getfixturevalue("large")
    report = survey_dataset(write(tmp_path, np.full_like(arrays[0], 7), arrays[1])).report
    assert not report.faults
    assert "image of case 'all' (image.npy): constant, every voxel is 7." in " ".join(report.warnings)


def test_promises_and_numbers_are_refused_with_the_remedy(tmp_path, arrays, large):
    dataset = write(tmp_path, *arrays, annotation_protocol={"classes_complete_in": "case"})
    (fault,) = survey_dataset(dataset).report.faults
    assert "annotation_protocol" in str(fault) and "Give boxes" in str(fault)
    (fault,) = volume_size.refused(dataset.cases[0], replace(dataset.labels, targets=("a",)))
    assert "targets of a regression" in str(fault)
