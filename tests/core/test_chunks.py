from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.chunks import VOXELS, chunks, slabs


@pytest.mark.parametrize("n", [0, 1, 6, 7, 8, 30])
@pytest.mark.parametrize("start", [0, 3])
def test_chunks_cover_every_item_once_in_order(n, start):
    parts = list(chunks(n, 7, start=start))
    assert np.concatenate([np.arange(n)[part] for part in parts] or [[]]).tolist() == list(range(start, n))
    assert all(part.stop - part.start == 7 for part in parts[:-1])
    assert all(part.start < part.stop <= n for part in parts)


def test_a_million_voxels_are_taken_at_a_time_unless_told_otherwise():
    assert list(chunks(VOXELS + 1)) == [slice(0, VOXELS), slice(VOXELS, VOXELS + 1)]
    assert list(slabs((5, VOXELS // 2))) == [slice(0, 2), slice(2, 4), slice(4, 5)]


@pytest.mark.parametrize(
    ("shape", "thickness"), [((6, 2, 5), 2), ((6, 50, 50), 1), ((6, 0, 4), 20), ((6,), 20), ((0, 3, 3), 2)]
)
def test_slabs_hold_as_many_planes_as_fit_and_at_least_one(shape, thickness):
    expected = [slice(first, min(first + thickness, shape[0])) for first in range(0, shape[0], thickness)]
    assert list(slabs(shape, 20)) == expected
