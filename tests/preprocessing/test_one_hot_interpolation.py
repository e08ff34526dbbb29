"""Weights summed code by code decide as those of neighbours do, and are used only where it pays."""

from __future__ import annotations

import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation
from scipy import ndimage

from autoseg.preprocessing import one_hot_interpolation, resample_codes
from autoseg.preprocessing.axes import AxisPart

CASES = [
    ((31,), (20,)),
    ((40, 33), (27, 51)),
    ((20, 21, 22), (27, 29, 31)),
    ((20, 21, 22), (10, 14, 11)),
    ((20, 21, 22), (27, 21, 11)),
    ((1, 60, 60), (1, 90, 41)),
    ((6, 2, 1), (7, 9, 4)),
]


def _crumbs(shape, n_codes, dtype=np.uint8, seed=0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 0.8)
    return np.digitize(noise, np.quantile(noise, np.linspace(0, 1, n_codes + 1)[1:-1])).astype(dtype)


@pytest.mark.parametrize("separate_axis", [None, 0])
@pytest.mark.parametrize("n_codes", [2, 3, 7])
@pytest.mark.parametrize(("before", "after"), CASES, ids=str)
def test_one_hot_maps_and_neighbours_decide_alike(before, after, n_codes, separate_axis, monkeypatch):
    codes = _crumbs(before, n_codes)
    monkeypatch.setattr(one_hot_interpolation, "_NEIGHBOUR_COST", 0)
    by_neighbours = resample_codes(codes, after, unknown=None, separate_axis=separate_axis)
    monkeypatch.setattr(one_hot_interpolation, "_NEIGHBOUR_COST", 10**9)
    monkeypatch.setattr(one_hot_interpolation, "CACHED_VOXELS", 125)
    summed = resample_codes(codes, after, unknown=None, separate_axis=separate_axis)
    np.testing.assert_array_equal(summed, by_neighbours)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int64])
def test_a_fragmented_map_of_any_type_follows_batchgenerators(dtype):
    codes = _crumbs((33, 34, 35), 4, dtype) * dtype(100)
    if np.issubdtype(dtype, np.signedinteger):
        codes -= dtype(100)
    result = resample_codes(codes, (41, 40, 44), unknown=None)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, resize_segmentation(codes, (41, 40, 44), order=1))


def _whole(source, result):
    return [AxisPart.whole(n, m) for n, m in zip(source.shape, result.shape, strict=True)]


def test_only_slabs_where_it_pays_are_decided():
    source, result = np.zeros((30, 40, 40), np.uint8), np.full((45, 60, 60), 9, np.uint8)
    source[20:] = _crumbs((10, 40, 40), 3)
    contested = np.zeros(result.shape, bool)
    contested[:30, 0, 0] = True
    contested[31:] = True
    one_hot_interpolation.decide_by_one_hot(source, result, contested, (0, 1, 2), _whole(source, result))
    assert (result[:9] == 9).all() and contested[:9, 0, 0].all(), "too few contested voxels"
    assert set(np.unique(result[36:])) == {0, 1, 2}
    assert contested[36:].mean() < 0.05, "only close calls are left"


def test_with_many_codes_votes_are_left_to_be_counted():
    source = np.random.default_rng(0).integers(0, 60, (12, 12, 12)).astype(np.uint8)
    result, contested = np.zeros((15, 15, 15), np.uint8), np.ones((15, 15, 15), bool)
    one_hot_interpolation.decide_by_one_hot(source, result, contested, (0, 1, 2), _whole(source, result))
    assert contested.all() and not result.any()
