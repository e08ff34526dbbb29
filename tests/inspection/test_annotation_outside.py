"""Nothing is cropped where annotated foreground would be lost; what is lost of background is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autoseg.cases.cache import CaseCache, open_case
from autoseg.cases.case import Case
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.integrity import check_dataset
from autoseg.inspection.survey import survey_dataset
from autoseg.io.images import read_image, write_labels
from autoseg.planning import extract_fingerprint, plan
from autoseg.preprocessing import preprocess
from autoseg.preprocessing.runner import preprocess_dataset, stale_cases

ENDINGS = {"2d": ".png", "3d": ".nii.gz"}
EVERY_SHAPE = pytest.mark.parametrize("kind", ENDINGS)
N_EMPTY = 5
"""Rows at the border where every image is 0."""


def lay_out(folder: Path, kind: str, draw, labels=None, **more) -> Dataset:
    """Four cases; ``draw(labels, index)`` changes a map of background in place, (z, y, x)."""
    shape = (1, 20, 16) if kind == "2d" else (6, 20, 16)
    geometry = Geometry(spacing=(999.0, 1.0, 1.0) if kind == "2d" else (2.0, 1.0, 1.0), ndim=int(kind[0]))
    for index, name in enumerate("abcd"):
        image = np.random.default_rng(index).integers(50, 100, shape).astype(np.uint8)
        image[:, :N_EMPTY] = 0
        drawn = np.zeros(shape, np.uint8)
        drawn[:, 8:12, 4:9] = 1
        draw(drawn, index)
        write_labels(folder / f"imagesTr/{name}_0000{ENDINGS[kind]}", image, geometry)
        write_labels(folder / f"labelsTr/{name}{ENDINGS[kind]}", drawn, geometry)
    content = {
        "channel_names": {"0": "MR"}, "numTraining": 4, "file_ending": ENDINGS[kind],
        "labels": labels or {"background": 0, "organ": 1, "air": 2, "ignore": 9},
    } | more  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


def nothing(drawn, index):
    pass


def air_in_one(drawn, index):
    if index == 1:
        drawn[:, :2] = 2


@EVERY_SHAPE
def test_one_case_with_foreground_outside_is_enough(tmp_path, kind):
    dataset = lay_out(tmp_path / "Toy", kind, air_in_one)
    n_slices = 1 if kind == "2d" else 6
    fingerprint = extract_fingerprint(dataset)
    assert fingerprint.foreground_outside == {"b": n_slices * 2 * 16}
    assert set(fingerprint.shapes_after_crop) == {(n_slices, 20, 16)}
    assert fingerprint.median_relative_size_after_cropping == 1
    planned = plan(dataset, fingerprint, "small")
    assert not planned.crop
    assert not preprocess_dataset(dataset, planned, "2d", tmp_path / "2d").failed
    for case in dataset.cases:
        record = open_case(tmp_path / "2d", case.name).entry.record
        assert record.shape_after_crop == record.shape_before_crop
        image, geometry = read_image(case.images)
        alone = preprocess(Case(case.name, image, geometry), planned, planned.configuration("2d"), unknown=None)
        assert alone.record.shape == record.shape
        np.testing.assert_array_equal(alone.image, open_case(tmp_path / "2d", case.name).image)
    entry = open_case(tmp_path / "2d", "b").entry
    assert entry.code_counts[2] == n_slices * 2 * 16


@EVERY_SHAPE
def test_without_it_cases_are_cropped_as_ever(tmp_path, kind):
    dataset = lay_out(tmp_path / "Toy", kind, nothing)
    fingerprint = extract_fingerprint(dataset)
    n_slices = 1 if kind == "2d" else 6
    assert fingerprint.foreground_outside == {}
    assert fingerprint.background_outside == dict.fromkeys("abcd", n_slices * N_EMPTY * 16)
    assert set(fingerprint.shapes_after_crop) == {(n_slices, 15, 16)}
    assert fingerprint.median_relative_size_after_cropping == 0.75
    assert plan(dataset, fingerprint, "small").crop


@pytest.mark.parametrize(
    ("value", "is_foreground"), [(5, True), (6, False), (9, False)], ids=["two classes", "or background", "ignored"]
)
@EVERY_SHAPE
def test_a_set_counts_as_foreground_where_background_is_none_of_its_classes(tmp_path, kind, value, is_foreground):
    def draw(drawn, index):
        drawn[:, :N_EMPTY] = 9
        drawn[:, :3] = value

    sets = {"5": ["organ", "air"], "6": ["background", "air"]}
    labels = {"background": 0, "organ": 1, "air": 2, "ignore": 9}
    dataset = lay_out(tmp_path, kind, draw, labels, label_sets=sets)
    fingerprint = extract_fingerprint(dataset)
    assert bool(fingerprint.foreground_outside) == is_foreground
    assert fingerprint.background_outside == {}
    assert survey_dataset(dataset).report.as_json()["notes"] == []


@EVERY_SHAPE
def test_the_check_says_so_with_names_and_numbers(tmp_path, kind):
    number = 32 if kind == "2d" else 192
    (warning,) = check_dataset(lay_out(tmp_path / "x", kind, air_in_one)).warnings
    assert warning.startswith(f"x: {number} voxels in 1 cases are annotated as foreground")
    assert f"b ({number} voxels). Therefore no case is cropped" in warning
    report = check_dataset(lay_out(tmp_path / "y", kind, nothing))
    assert not [line for line in report.warnings if "cropped" in line]
    (note,) = report.notes
    assert note.startswith(f"y: {4 * number * 5 // 2} voxels in 4 cases are annotated as background")
    assert ": a (" in note


@EVERY_SHAPE
def test_what_a_mask_hides_is_not_annotated(tmp_path, kind):
    def draw(drawn, index):
        drawn[:, :2] = 2

    lay_out(tmp_path, kind, draw)
    for name in "abcd":
        mask = np.ones((1 if kind == "2d" else 6, 20, 16), np.uint8)
        mask[:, :N_EMPTY] = 0
        geometry = Geometry(spacing=(999.0, 1.0, 1.0) if kind == "2d" else (2.0, 1.0, 1.0), ndim=int(kind[0]))
        write_labels(tmp_path / f"masksTr/{name}{ENDINGS[kind]}", mask, geometry)
    content = json.loads((tmp_path / "dataset.json").read_text()) | {"valid_mask_folder": "masksTr"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    dataset = Dataset.load(tmp_path)
    assert extract_fingerprint(dataset).crop
    assert not [line for line in check_dataset(dataset).warnings if "cropped" in line]


def test_a_cache_of_cropped_cases_is_stale_for_a_plan_that_does_not_crop(tmp_path):
    dataset = lay_out(tmp_path / "Toy", "3d", air_in_one)
    planned = plan(dataset, extract_fingerprint(dataset), "small")
    preprocess_dataset(dataset, planned.model_copy(update={"crop": True}), "2d", tmp_path / "2d")
    stale = stale_cases(dataset, planned, "2d", CaseCache.read(tmp_path / "2d", "abcd"), "abcd")
    assert stale == dict.fromkeys("abcd", "plan changed")
