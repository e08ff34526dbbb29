"""Places where no case is annotated, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.annotation.label_counts import count_values
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import Labels
from autoseg.inspection.coverage import N_BINS, annotated_parts, describe_gaps, gaps, share_in_slices

IGNORE = 3


def make(**keys) -> Labels:
    content = {"labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": IGNORE}, "file_ending": ".png"}
    return Dataset.from_json({"channel_names": {"0": "CT"}} | content | keys, name="toy", folder=None).labels


def parts_of(values: np.ndarray, labels: Labels, case: str = "a") -> np.ndarray:
    return annotated_parts(values, count_values(values), labels, case)


def test_a_slice_covers_the_parts_that_it_reaches_into():
    values = np.full((10, 40, 1), IGNORE, dtype=np.uint8)
    values[3, 20:24] = 0
    along_z, along_y, along_x = parts_of(values, make())
    assert np.flatnonzero(along_z).tolist() == [6, 7]
    assert np.flatnonzero(along_y).tolist() == [10, 11]
    assert along_x.all()


def test_a_flat_image_is_covered_across():
    values = np.full((1, 20, 30), IGNORE, dtype=np.uint8)
    values[0, 0, 0] = 2
    along_z, along_y, along_x = parts_of(values, make())
    assert along_z.all()
    assert along_y.tolist() == along_x.tolist() == [True] + [False] * (N_BINS - 1)


def test_a_dense_case_is_covered_and_an_empty_one_is_not():
    assert parts_of(np.zeros((4, 5, 6), dtype=np.uint8), make()).all()
    assert not parts_of(np.full((4, 5, 6), IGNORE, dtype=np.uint8), make()).any()


def test_what_is_only_absent_is_not_drawn_and_what_none_of_the_annotated_classes_has_is():
    values = np.full((20, 20, 20), IGNORE, dtype=np.uint8)
    assert not parts_of(values, make(cases={"a": {"absent": ["tumour"]}})).any()
    values[5] = 0
    (along_z, *_) = parts_of(values, make(cases={"a": {"annotated": ["liver"]}}))
    assert np.flatnonzero(along_z).tolist() == [5]


@pytest.mark.parametrize(
    ("uncovered", "expected"),
    [([], []), ([0, 1], []), ([0, 1, 2], [(0, 15)]), ([4, 5, 6, 7, 18, 19], [(20, 40)]), (range(20), [(0, 100)])],
)
def test_gaps_of_fifteen_percent_are_named(uncovered, expected):
    assert gaps(~np.isin(np.arange(N_BINS), list(uncovered))) == expected


def test_cases_fill_each_others_gaps():
    first, second = np.zeros((2, 3, N_BINS), dtype=bool)
    first[:, :10], second[1:, 10:] = True, True
    assert describe_gaps([first, second]) == {0: "50 to 100 %"}
    assert describe_gaps([]) == {}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_whole_slices_are_told_from_strokes_along_any_axis(axis):
    informative = np.array([True, True, False])
    codes = np.full((9, 12, 15), 2, dtype=np.uint8)
    across = [slice(None)] * 3
    across[axis] = 4
    codes[tuple(across)] = 1
    assert share_in_slices(codes, informative) == 1.0
    n_slice = codes.size // codes.shape[axis]
    codes[tuple(across)][3:] = 2  # less than half of the slice is left
    assert share_in_slices(codes, informative) == 0.0
    codes[tuple(across)] = 0
    codes[0, 0, 0] = codes[8, 0, 0] = codes[8, 11, 14] = 1  # a few points elsewhere, at least one of them
    apart = sum(corner[axis] != 4 for corner in ((0, 0, 0), (8, 0, 0), (8, 11, 14)))
    assert share_in_slices(codes, informative) == pytest.approx(n_slice / (n_slice + apart))


def test_slices_of_three_directions_are_whole_slices():
    codes = np.full((20, 20, 20), 1, dtype=np.uint8)
    codes[3], codes[:, 7], codes[:, :, 11] = 0, 0, 0
    assert share_in_slices(codes, np.array([True, False])) == 1.0


def test_a_line_through_a_flat_image_is_no_slice():
    codes = np.full((1, 20, 30), 1, dtype=np.uint8)
    codes[0, 5] = 0
    informative = np.array([True, False])
    assert share_in_slices(codes, informative) == 0.0
    assert share_in_slices(np.ascontiguousarray(codes.transpose(1, 2, 0)), informative) == 0.0
    assert share_in_slices(np.zeros((1, 20, 30), dtype=np.uint8), informative) == 1.0
    assert share_in_slices(np.zeros((20, 30, 1), dtype=np.uint8), informative) == 1.0
    assert share_in_slices(np.ones((3, 20, 30), dtype=np.uint8), informative) == 0.0
    assert share_in_slices(np.ones((0, 0, 0), dtype=np.uint8), informative) == 0.0
