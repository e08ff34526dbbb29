"""Every informative code keeps a bounded, uniform, reproducible sample of its voxels."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.preprocessing.locations import find_locations, sample_size

LABEL_SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1]], bool)  # 3: unknown, 4: either


@pytest.mark.parametrize(
    ("count", "expected"), [(0, 0), (7, 7), (10_000, 10_000), (20_000, 10_000), (2_000_001, 20_001)]
)
def test_sample_size_follows_the_rule(count, expected):
    assert sample_size(count) == expected


@pytest.mark.parametrize("shape", [(12, 13, 14), (1, 40, 50)], ids=["3d", "2d"])
def test_small_codes_keep_all_their_voxels_in_ascending_order(shape):
    codes = np.random.default_rng(0).integers(0, 5, shape).astype(np.uint8)
    locations = find_locations(codes, LABEL_SETS)
    assert set(locations.slices) == {0, 1, 2, 4}, "unknown voxels are not informative"
    for code, (start, stop) in locations.slices.items():
        np.testing.assert_array_equal(locations.indices[start:stop], np.flatnonzero(codes == code))
    assert locations.counts == {code: int((codes == code).sum()) for code in range(5)}
    assert locations.indices.dtype == np.int32


def test_large_codes_keep_a_uniform_sample_without_repeats():
    codes = np.zeros((30, 40, 50), np.uint8)
    codes[:, :, 25:] = 2
    locations = find_locations(codes, LABEL_SETS)
    for code, (start, stop) in locations.slices.items():
        run = locations.indices[start:stop]
        assert len(run) == 10_000
        assert (np.diff(run) > 0).all()
        assert (codes.ravel()[run] == code).all()
        assert abs(run.mean() / codes.size - 0.5) < 0.02


def test_the_sample_depends_on_the_map_only():
    codes = np.random.default_rng(0).integers(0, 2, (40, 40, 40)).astype(np.uint8)
    first, second = find_locations(codes, LABEL_SETS), find_locations(codes.copy(), LABEL_SETS)
    np.testing.assert_array_equal(first.indices, second.indices)


def test_a_case_without_informative_voxels_has_no_locations():
    locations = find_locations(np.full((2, 3, 4), 3, np.uint8), LABEL_SETS)
    assert (len(locations.indices), locations.slices, locations.counts) == (0, {}, {3: 24})
    assert find_locations(np.zeros((0, 3, 4), np.uint8), LABEL_SETS).counts == {}
