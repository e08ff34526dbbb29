"""The check names what label files hold where nobody looked, and what to write; then every way in says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the name that its documentation gives it)

from autoseg.dataset.dataset import Dataset
from autoseg.evaluation import evaluate_folder
from autoseg.inspection.integrity import IntegrityReport, check_dataset
from autoseg.inspection.painting_check import _shown
from autoseg.inspection.survey import survey_dataset
from autoseg.preprocessing.read_case import read_case

SHAPES = {"2d": (12, 14), "3d": (6, 12, 14)}
IGNORED = {"background": 0, "cell": 1, "ignore": 2}


@pytest.fixture(params=["2d", "3d"])
def shape(request) -> tuple[int, ...]:
    return SHAPES[request.param]


def truth(shape: tuple[int, ...], case: int) -> np.ndarray:
    """0 background, 1 cell, 2 nobody looked."""
    return np.random.default_rng(case).integers(0, 3, shape)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def lay_out(folder: Path, shape: tuple[int, ...], values: list[float], dtype: type, **keys: Any) -> Path:
    """Write three cases whose label files hold ``values`` for background, cell, and where nobody looked."""
    for case in range(3):
        image = np.random.default_rng(10 + case).normal(size=shape).astype(np.float32)
        save(folder / f"imagesTr/k{case}_0000.mha", image)
        save(folder / f"labelsTr/k{case}.mha", np.array(values)[truth(shape, case)].astype(dtype))
    describe(folder, {"channel_names": {"0": "EM"}, "numTraining": 3, "file_ending": ".mha"} | keys)
    return folder


def describe(folder: Path, keys: dict[str, Any]) -> None:
    file = folder / "dataset.json"
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | keys))


def check(folder: Path) -> IntegrityReport:
    dataset, faults = Dataset.examine(folder)
    return check_dataset(dataset, known_faults=faults)


CELL = {"background": 0, "cell": 1}
WAYS: list[tuple[str, list[float], type, dict[str, Any]]] = [
    ("0 below background", [1, 2, 0], np.uint8, {"labels": {"background": 1, "cell": 2}, "unlabelled": 0}),
    ("0 ignored", [1, 2, 0], np.uint8, {"labels": {"ignore": 0, "background": 1, "cell": 2}}),
    ("-1", [0, 1, -1], np.int16, {"labels": CELL}),
    ("-1 ignored", [0, 1, -1], np.int8, {"labels": CELL | {"ignore": -1}}),
    ("-1 without sign", [0, 1, 255], np.uint8, {"labels": CELL}),
    ("-1 in two bytes", [0, 1, 65535], np.uint16, {"labels": CELL}),
    ("-1 in floats", [0, 1, -1], np.float32, {"labels": CELL}),
    ("NaN", [0, 1, np.nan], np.float32, {"labels": IGNORED}),
    ("NaN, no ignore", [0, 1, np.nan], np.float64, {"labels": CELL}),
    ("NaN beside another", [0, 1, np.nan], np.float32, {"labels": CELL, "unlabelled": -1}),
    ("0 undeclared", [1, 2, 0], np.uint8, {"labels": {"background": 1, "cell": 2}, "unlabelled": None}),
    ("0 beside another", [1, 2, 0], np.uint8, {"labels": {"background": 1, "cell": 2}, "unlabelled": 255}),
    ("a set of all", [0, 1, 7], np.uint8, {"labels": CELL, "label_sets": {"7": ["background", "cell"]}}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("values", "dtype", "keys"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS])
def test_who_follows_the_check_trains_on_what_was_drawn(tmp_path, shape, values, dtype, keys):
    """The same codes as of files with background 0, cell 1 and ignore 2."""
    folder = lay_out(tmp_path / "toy", shape, values, dtype, **keys)
    for fault in check(folder).faults:
        written = re.search(r'write (".*?[\d}l"])(?=[.;]| in dataset\.json)', fault.fix)
        assert written is not None and "unlabelled" in fault.fix + str(keys), fault
        describe(folder, json.loads("{" + written[1] + "}"))
    assert check(folder).faults == ()
    usual = lay_out(tmp_path / "usual", shape, [0, 1, 2], np.uint8, labels=IGNORED)
    dataset, other = Dataset.load(folder), Dataset.load(usual)
    for mine, theirs in zip(dataset.cases, other.cases, strict=True):
        target, expected = read_case(mine, dataset.labels).target, read_case(theirs, other.labels).target
        assert target is not None and expected is not None
        np.testing.assert_array_equal(target.codes, expected.codes)
        np.testing.assert_array_equal(target.label_sets, expected.label_sets)
    assert check(folder).cases == check(usual).cases
    mine_, theirs_ = (survey_dataset(item).measures for item in (dataset, other))
    assert [(case.drawn, case.n_foreground) for case in mine_.values()] == [
        (case.drawn, case.n_foreground) for case in theirs_.values()
    ]


def test_several_undeclared_values_are_told_so_that_all_can_be_written(tmp_path):
    folder = lay_out(tmp_path, (6, 12, 14), [0, -1, np.nan], np.float32, labels=CELL)
    fixes = [fault.fix for fault in check(folder).faults]
    assert '"unlabelled": "nan"' in fixes[0] and '"label_sets": {"-1": ["background", "cell"]}' in fixes[1]


def test_a_value_that_cannot_be_declared_is_to_be_stored_otherwise(tmp_path):
    folder = lay_out(tmp_path, (6, 12, 14), [0, 1, 2**32 - 1], np.uint32, labels=CELL)
    (fault,) = check(folder).faults
    assert "-1 stored without a sign" in fault.where and "unlabelled" not in fault.fix


def test_infinite_labels_are_no_unlabelled_ones(tmp_path):
    folder = lay_out(tmp_path, (6, 12, 14), [0, 1, np.inf], np.float32, labels=CELL, unlabelled="nan")
    assert all("whole numbers (inf)" in fault.found for fault in check(folder).faults)


def test_a_mask_of_nan_is_refused(tmp_path):
    folder = lay_out(tmp_path, (6, 12, 14), [0, 1, 0], np.uint8, labels=CELL, valid_mask_folder="masks")
    for case in range(3):
        save(folder / f"masks/k{case}.mha", np.where(truth((6, 12, 14), case) == 2, np.nan, 1).astype(np.float32))
    faults = check(folder).faults
    assert len(faults) == 3 and all("nan" in fault.found and "In a mask" in fault.fix for fault in faults)


@pytest.mark.parametrize(
    ("name", "is_told"),
    [("masksTr", True), ("valid_masks", True), ("annotatedTr", True), ("ROI", True), ("labels_old", False)],
)
def test_masks_that_are_not_mentioned_are_told(tmp_path, shape, name, is_told):
    folder = lay_out(tmp_path, shape, [0, 1, 0], np.uint8, labels=CELL)
    for case in range(3):
        save(folder / f"{name}/k{case}.mha", (truth(shape, case) != 2).astype(np.uint8))
    told = [warning for warning in check(folder).warnings if "valid_mask_folder" in warning]
    assert len(told) == is_told
    if is_told:
        assert f'write "valid_mask_folder": "{name}"' in told[0]
        describe(folder, {"valid_mask_folder": name})
        report = check(folder)
        assert not report.faults and not any("valid_mask_folder" in warning for warning in report.warnings)
        drawn = sum(int((truth(shape, case) != 2).sum()) for case in range(3))
        assert sum(case.drawn for case in report.cases.values()) == drawn
        describe(folder, {"valid_mask_folder": None})
        assert not any("valid_mask_folder" in warning for warning in check(folder).warnings)


def test_masks_of_other_cases_are_not_meant(tmp_path):
    folder = lay_out(tmp_path, (12, 14), [0, 1, 0], np.uint8, labels=CELL)
    save(folder / "masksTr/elsewhere.mha", np.ones((12, 14), np.uint8))
    assert not any("valid_mask_folder" in warning for warning in check(folder).warnings)


def test_references_are_scored_where_somebody_looked(tmp_path, shape):
    """By hand: everything predicted as cell; only drawn voxels count."""
    for name, values, dtype, keys in (
        WAYS[0],
        ("NaN", [0, 1, np.nan], np.float32, {"labels": CELL, "unlabelled": "nan"}),
    ):
        folder = lay_out(tmp_path / name, shape, list(values), dtype, **keys)
        for case in range(3):
            save(folder / f"predictions/k{case}.mha", np.full(shape, values[1], np.uint8))
        summary = evaluate_folder(folder / "labelsTr", folder / "predictions", Dataset.load(folder))
        key = str(int(values[1]))
        for case, metrics in enumerate(summary.metric_per_case):
            cell, background = ((truth(shape, case) == value).sum() for value in (1, 0))
            assert metrics.metrics[key].Dice == pytest.approx(2 * cell / (2 * cell + background))


REGIONS = {"spot": 3, "core": [2, 3], "whole": [1, 2, 3]}


def test_regions_that_the_order_loses_are_told_with_their_dice(tmp_path, shape):
    """Each value once per 3 voxels: without spot and core, both lose all; whole comes back."""
    folder = lay_out(
        tmp_path, shape, [0, 2, 3], np.uint8, labels={"background": 0} | REGIONS, regions_class_order=[3, 2, 1]
    )
    (told,) = [warning for warning in check(folder).warnings if "regions_class_order" in warning]
    assert "'spot' with a Dice of 0.000 (here 1.000), 'core' with a Dice of 0.000 (here 1.000)" in told
    assert "'whole'" not in told
    written = re.search(r"Write (.*), which keeps all regions", told)
    assert written is not None
    describe(folder, json.loads("{" + written[1] + "}"))
    assert not any("regions_class_order" in warning for warning in check(folder).warnings)
    assert survey_dataset(Dataset.load(folder)).report.warnings == check(folder).warnings


def test_a_region_that_loses_a_few_voxels_is_not_said_to_lose_none():
    assert [_shown(dice) for dice in (None, 0.5, 0.9994, 0.99996, 1.0)] == [
        "no voxel", "0.500", "0.999", "more than 0.999", "1.000",
    ]  # fmt: skip
