from __future__ import annotations

import numpy as np
import pytest

from autoseg.cases.case import CaseRecord
from autoseg.core.geometry import Geometry
from autoseg.preprocessing import restore
from autoseg.preprocessing.file_point import point_in_file


def record(shape, crop_high=(7, 9, 11)):
    return CaseRecord(
        case="a", geometry=Geometry(spacing=(1, 1, 1)), transpose=(2, 0, 1), shape_before_crop=(8, 10, 12),
        crop_low=(1, 3, 5), crop_high=crop_high, spacing_before=(1, 1, 1), spacing=(1, 1, 1), shape=shape,
    )  # fmt: skip


def test_a_cropped_and_transposed_voxel_is_found_in_the_file():
    kept = record((6, 6, 6))
    marked = np.zeros((6, 6, 6))
    marked[2, 0, 5] = 1
    (expected,) = np.argwhere(restore(marked, kept))
    assert point_in_file(kept, (2, 0, 5)) == tuple(expected)


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("flipped", [(True, False, False), (False, True, True), (True, True, True)])
def test_a_voxel_of_a_turned_case_is_found_in_the_file(transpose, flipped):
    """The case was cropped by other widths at both ends of every axis, so that a flip shows."""
    turned = record((6, 6, 6)).model_copy(update={"transpose": transpose, "flipped": flipped})
    marked = np.zeros((6, 6, 6))
    marked[2, 0, 5] = 1
    (expected,) = np.argwhere(restore(marked, turned))
    assert point_in_file(turned, (2, 0, 5)) == tuple(expected)


@pytest.mark.parametrize(
    ("point", "expected"), [((-0.5, -0.5, -0.5), (2.5, 4.5, 0.5)), ((11.5, 5.5, 2.5), (8.5, 10.5, 6.5))]
)
def test_the_ends_of_a_resampled_case_are_the_ends_of_its_box(point, expected):
    """Axes 0, 1, 2 of the cache are 2, 0, 1 of the file; edges of voxels lie at halves."""
    assert point_in_file(record((12, 6, 3)), point) == expected
