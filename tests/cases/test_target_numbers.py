"""Label files of a regression hold numbers; what is unknown in them is NaN, whatever the file holds there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from regression import DEPTH, NO_NUMBER, TWO

from autoseg.cases.label_codes import read_annotation, read_label_file
from autoseg.core.errors import DatasetError, FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import CaseFiles
from autoseg.io.images import write_labels, write_values

GEOMETRY = Geometry(spacing=(1.0, 1.0, 1.0))
SHAPE = (2, 3, 4)


def label_file(path: Path, numbers: np.ndarray) -> Path:
    write_values(path, numbers.astype(np.float32), GEOMETRY)
    return path


@pytest.fixture
def numbers() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    values[0, 0, 0, 0], values[0, 1, 1, 1] = np.nan, NO_NUMBER
    return values


def test_nan_and_the_declared_number_are_unknown_and_all_others_known(tmp_path, numbers):
    content = read_label_file(label_file(tmp_path / "a.nii.gz", numbers), DEPTH)
    expected = np.where(numbers == NO_NUMBER, np.nan, numbers)
    np.testing.assert_array_equal(content.numbers, expected)
    assert ((content.drawn == 1) == np.isfinite(expected[0])).all()


def test_without_a_declared_number_every_number_is_known(tmp_path, numbers):
    content = read_label_file(label_file(tmp_path / "a.nii.gz", numbers), replace(DEPTH, no_number=None))
    np.testing.assert_array_equal(content.numbers, numbers)


def test_codes_tell_where_a_number_is_known_inside_the_mask(tmp_path, numbers):
    mask = np.ones(SHAPE, dtype=np.uint8)
    mask[:, 2] = 0
    write_labels(tmp_path / "mask.nii.gz", mask, GEOMETRY)
    files = CaseFiles("a", (), label_file(tmp_path / "a.nii.gz", numbers), valid_mask=tmp_path / "mask.nii.gz")
    target = read_annotation(files, replace(DEPTH, has_masks=True), SHAPE)
    is_known = np.isfinite(numbers[0]) & (numbers[0] != NO_NUMBER) & (mask == 1)
    np.testing.assert_array_equal(np.isfinite(target.numbers[0]), is_known)
    np.testing.assert_array_equal(target.numbers[0][is_known], numbers[0][is_known])
    np.testing.assert_array_equal(target.codes == 1, is_known)
    assert (target.codes[~is_known] == target.undrawn).all() and target.label_sets[target.undrawn].all()


def test_a_voxel_is_annotated_if_one_of_several_targets_is_known(tmp_path, numbers):
    second = np.full_like(numbers, np.nan)
    second[0, 0, 0, 0] = 3
    content = read_label_file(label_file(tmp_path / "a.mha", np.concatenate([numbers, second])), TWO)
    assert (content.drawn == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda numbers: np.concatenate([numbers, numbers]), r"2 channels.*expected 1.*depth"),
        (lambda numbers: numbers / np.float32(0), "infinite numbers"),
    ],
    ids=["channels", "infinite"],
)
def test_what_is_no_map_of_the_targets_is_refused(tmp_path, numbers, change, message):
    with np.errstate(divide="ignore"):
        path = label_file(tmp_path / "a.nii.gz", change(numbers))
    with pytest.raises(FileFormatError, match=message):
        read_label_file(path, DEPTH)


def test_numbers_on_another_grid_than_the_image_are_refused(tmp_path, numbers):
    files = CaseFiles("a", (), label_file(tmp_path / "a.nii.gz", numbers))
    with pytest.raises(DatasetError, match=r"labels of shape \(2, 3, 4\).*the image, \(2, 3, 5\)"):
        read_annotation(files, DEPTH, (2, 3, 5))
