"""The check of label files with numbers of objects, and of such that only seem to hold them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from objects import write_objects

from autoseg import Dataset
from autoseg.inspection.integrity import check_dataset
from autoseg.io.images import read_labels, write_labels


def rewritten(folder, change):
    for path in (folder / "labelsTr").iterdir():
        values, geometry = read_labels(path)
        write_labels(path, change(values), geometry)
    return folder


def test_a_sound_data_set_has_shares_of_annotation_and_no_warning_of_objects(tmp_path):
    report = check_dataset(Dataset.load(write_objects(tmp_path / "d", n_cases=2, n_test=0)))
    assert not report.faults and not any("object" in warning for warning in report.warnings)
    assert all(0.6 < case.annotated_fraction < 0.7 for case in report.cases.values())


def test_classes_in_place_of_objects_are_doubted(tmp_path):
    folder = write_objects(tmp_path / "d", n_cases=1, n_test=0)
    rewritten(folder, lambda values: ((values > 0) & (values < 65535)).astype(np.uint8))
    report = check_dataset(Dataset.load(folder))
    (warning,) = [warning for warning in report.warnings if "object" in warning]
    assert "single object, 1, in" in warning and 'remove "task": "instances"' in warning


def test_objects_in_place_of_classes_are_recognised(tmp_path):
    folder = write_objects(tmp_path / "d", n_cases=1, n_test=0)
    content = json.loads((folder / "dataset.json").read_text())
    del content["task"]
    (folder / "dataset.json").write_text(json.dumps(content))
    report = check_dataset(Dataset.load(folder))
    assert any('write "task": "instances"' in fault.fix for fault in report.faults)


@pytest.mark.parametrize("values", [[5], [3001]])
def test_numbers_of_no_class_are_faults_that_name_case_and_file(values, tmp_path):
    folder = write_objects(
        tmp_path / "d", n_cases=1, n_test=0, labels={"background": 0, "cell": 1, "nucleus": 2}, instances_per_class=1000
    )
    rewritten(folder, lambda old: np.resize(np.array(values, dtype=np.uint16), old.shape))
    faults = check_dataset(Dataset.load(folder)).faults
    (fault,) = [fault for fault in faults if "no object" in fault.found]
    assert str(values[0]) in fault.found and "c0" in fault.where and "instances_per_class" in fault.fix
