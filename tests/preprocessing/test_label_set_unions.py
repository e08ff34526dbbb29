"""Ties of known label sets become their union; nothing else changes, and no class gets lost by it."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.preprocessing import resample_codes
from autoseg.preprocessing.keep_small_annotation import find_survivors
from autoseg.preprocessing.label_set_unions import LabelSetUnions

UNKNOWN = 3
SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=bool)
"""Classes 0, 1, 2, unknown, and {1, 2}."""


def halves(left: int, right: int, n_dims: int) -> np.ndarray:
    """Two codes, the border in the middle of a voxel of the half grid, and a voxel of which nothing is known."""
    codes = np.full((12,) * n_dims, left, np.uint8)
    codes[..., 5:] = right
    codes[(-1,) * n_dims] = UNKNOWN
    return codes


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(1, 2, 4), (1, 4, 4), (4, 2, 4), (0, 1, 5), (0, 4, UNKNOWN)],
    ids=["a set there is", "nested", "nested too", "a new set", "all classes"],
)
def test_a_voxel_halfway_between_two_sets_may_be_either(left, right, expected, n_dims):
    unions = LabelSetUnions(SETS)
    codes = halves(left, right, n_dims)
    result = resample_codes(codes, (6,) * n_dims, unknown=UNKNOWN, unions=unions)
    columns = result.reshape(-1, 6)[0]
    assert columns.tolist() == [left, left, expected, right, right, right]
    assert unions.label_sets[: len(SETS)].tolist() == SETS.tolist()
    if expected >= len(SETS):
        assert unions.label_sets[expected].tolist() == (SETS[left] | SETS[right]).tolist()
    else:
        assert len(unions.label_sets) == len(SETS)
    assert result.max() < len(unions.label_sets)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_without_a_tie_and_in_dense_maps_nothing_changes(n_dims):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (12,) * n_dims).astype(np.uint8)
    for unknown in (None, UNKNOWN):
        expected = resample_codes(codes, (6,) * n_dims, unknown=unknown)
        found = resample_codes(codes, (6,) * n_dims, unknown=unknown, unions=LabelSetUnions(SETS))
        np.testing.assert_array_equal(found, expected)
    codes[rng.random(codes.shape) < 0.5] = UNKNOWN
    expected = resample_codes(codes, (17,) * n_dims, unknown=UNKNOWN)
    unions = LabelSetUnions(SETS)
    found = resample_codes(codes, (17,) * n_dims, unknown=UNKNOWN, unions=unions)
    assert (found != expected).mean() < 0.02  # ties are rare where the grids do not fit
    assert (unions.label_sets[found] | ~SETS[expected]).all()  # a set only ever grows


@pytest.mark.parametrize("shape", [(1, 30, 32), (10, 20, 22)], ids=["2d", "3d"])
def test_annotated_voxels_still_find_their_class(shape):
    rng = np.random.default_rng(1)
    lost = {"with": 0, "without": 0}
    for _ in range(10):
        coarse = rng.integers(0, 3, [-(-edge // 5) for edge in shape]).astype(np.uint8)
        codes = coarse.repeat(5, 0).repeat(5, 1).repeat(5, 2)[tuple(map(slice, shape))]
        codes[:, rng.random(shape[1]) < 0.6] = UNKNOWN
        after = tuple(max(1, edge // 2) for edge in shape)
        for kind, unions in (("with", LabelSetUnions(SETS)), ("without", None)):
            result = resample_codes(codes, after, unknown=UNKNOWN, unions=unions)
            lost[kind] += int((~find_survivors(codes, result, UNKNOWN)[1]).sum())
        assert unions is None and find_survivors(codes, result, UNKNOWN)[0].size > 100
    assert lost["with"] <= lost["without"] + 10


def test_unions_share_rows_and_end_where_codes_do():
    unions = LabelSetUnions(SETS)
    assert unions.code_of([1, 2]) == 4
    assert unions.code_of([0, 2]) == unions.code_of([2, 0]) == 5
    assert unions.code_of([5, 0]) == 5
    full = LabelSetUnions(np.concatenate([np.eye(255, dtype=bool), np.ones((1, 255), dtype=bool)]))
    assert full.code_of([3, 4]) is None
    assert full.code_of([3, 3]) == 3
    assert full.label_sets.shape == (256, 255)


def test_survivors_are_counted_by_hand():
    source = np.full((1, 1, 8), UNKNOWN, np.uint8)
    source[0, 0, [0, 3, 6]] = 1, 2, 1
    result = np.full((1, 1, 4), UNKNOWN, np.uint8)
    result[0, 0, [0, 1]] = 1, 2  # the last one is gone
    voxels, kept = find_survivors(source, result, UNKNOWN)
    assert voxels.tolist() == [0, 3, 6]
    assert kept.tolist() == [True, True, False]
    voxels, kept = find_survivors(np.full((1, 2, 2), UNKNOWN), result, UNKNOWN)
    assert voxels.shape == kept.shape == (0,)
