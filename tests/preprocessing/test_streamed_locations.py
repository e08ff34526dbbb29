"""Locations that are drawn in one pass over boxes are a uniform sample, whatever the boxes; counts are exact."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.boxes import Box, blocks
from autoseg.preprocessing import streamed_locations
from autoseg.preprocessing.locations import find_locations
from autoseg.preprocessing.streamed_locations import StreamedLocations, count_codes, places_of

LABEL_SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], bool)  # 3: unknown


def streamed(codes, block):
    found = StreamedLocations(codes.shape)
    for box in blocks(Box.whole(codes.shape), block):
        found.add(codes[box.slices], box, LABEL_SETS)
    return found.finish()


@pytest.mark.parametrize("shape", [(12, 13, 14), (1, 40, 50)], ids=["3d", "2d"])
def test_codes_of_few_voxels_keep_all_of_them(shape):
    codes = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)
    expected, found = find_locations(codes, LABEL_SETS), streamed(codes, (5, 8, 8))
    assert found.counts == expected.counts
    assert found.slices == expected.slices
    np.testing.assert_array_equal(found.indices, expected.indices)
    assert found.indices.dtype == np.int64


def test_codes_of_many_voxels_keep_a_uniform_sample(monkeypatch):
    monkeypatch.setattr(streamed_locations, "MOST_LOCATIONS", 500)
    codes = np.zeros((40, 50, 60), np.uint8)
    codes[:, :, 30:] = 2
    codes[20:, :25] = 3
    found = streamed(codes, (8, 16, 16))
    assert found.counts == {0: 45_000, 2: 45_000, 3: 30_000}
    assert found.slices == {0: (0, 500), 2: (500, 1000)}
    for code, (start, stop) in found.slices.items():
        run = found.indices[start:stop]
        assert (np.diff(run) > 0).all()
        assert (codes.ravel()[run] == code).all()
        z = np.unravel_index(run, codes.shape)[0]
        assert (z < 20).mean() == pytest.approx(2 / 3, abs=0.08)
    np.testing.assert_array_equal(found.indices, streamed(codes, (8, 16, 16)).indices)


def test_a_map_without_informative_voxels_has_no_locations():
    found = streamed(np.full((3, 4, 5), 3, np.uint8), (2, 4, 4))
    assert (len(found.indices), found.slices, found.counts) == (0, {}, {3: 60})
    assert StreamedLocations((0, 3, 3)).finish().counts == {}


@pytest.mark.parametrize("highest", [4, 60, 300])
def test_counts_are_those_of_numpy(highest):
    codes = np.random.default_rng(0).integers(2, highest, (9, 10, 11)).astype(np.uint16)
    values, counts = np.unique(codes, return_counts=True)
    assert count_codes(codes) == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert count_codes(codes[:0]) == {}


@pytest.mark.parametrize("n_ranks", [0, 1, 3, 2000])
def test_places_are_those_of_the_ranks(n_ranks):
    rng = np.random.default_rng(0)
    mask = rng.random((10, 70, 90)) < 0.3
    ranks = np.sort(rng.choice(np.count_nonzero(mask), n_ranks, replace=False))
    np.testing.assert_array_equal(places_of(mask, ranks), np.flatnonzero(mask)[ranks])
