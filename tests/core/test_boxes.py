"""Boxes, blocks, and boxes that overhang an array."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.core.boxes import Box, block_at, blocks, n_blocks, read_overhanging

SMALL = st.tuples(*(st.integers(1, 6),) * 3)
FAR = st.tuples(*(st.integers(-30, 30),) * 3)


def boxes(start, shape):
    return Box(start, tuple(at + length for at, length in zip(start, shape, strict=True)))


def padded(array, shape, box, **options):
    """The box of the array padded by NumPy until it holds the box."""
    before = [max(0, -start) for start in box.start]
    after = [max(0, stop - edge) for stop, edge in zip(box.stop, shape, strict=True)]
    wide = np.pad(array, [(0, 0), *zip(before, after, strict=True)], **options)
    return wide[(slice(None), *box.shifted(tuple(before)).slices)]


@given(shape=SMALL, start=FAR, size=st.tuples(*(st.integers(0, 9),) * 3))
def test_boxes_that_overhang_are_reflected_as_numpy_pads(shape, start, size):
    array = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    box = boxes(start, size)
    expected = padded(array, shape, box, mode="reflect")
    found = read_overhanging(lambda inner: array[(slice(None), *inner.slices)], shape, box)
    assert found.dtype == array.dtype
    assert np.array_equal(found, expected)


@given(shape=SMALL, start=FAR, size=st.tuples(*(st.integers(0, 9),) * 3))
def test_boxes_that_overhang_are_filled_with_a_value(shape, start, size):
    array = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    box = boxes(start, size)
    found = read_overhanging(lambda inner: array[(slice(None), *inner.slices)], shape, box, outside=-1)
    assert np.array_equal(found, padded(array, shape, box, constant_values=-1))


def test_no_more_is_read_than_the_voxels_that_a_reflected_box_needs():
    asked = []

    def read(box):
        asked.append(box)
        return np.zeros((1, *box.shape))

    read_overhanging(read, (100, 864, 864), Box((-4, 700, 0), (104, 900, 64)))
    assert asked == [Box((0, 700, 0), (100, 864, 64))]


@given(shape=SMALL, size=SMALL)
def test_every_voxel_lies_in_exactly_one_block(shape, size):
    counts = np.zeros(shape, dtype=int)
    for block in blocks(Box.whole(shape), size):
        counts[block.slices] += 1
    assert (counts == 1).all()
    grid = n_blocks(shape, size)
    by_index = [block_at(index, shape, size) for index in product(*map(range, grid))]
    assert by_index == list(blocks(Box.whole(shape), size))


@given(start=FAR, shape=SMALL, size=SMALL)
def test_parts_of_a_box_lie_in_one_block_each_and_tile_it(start, shape, size):
    box = boxes(start, shape)
    parts = list(blocks(box, size))
    assert sum(part.n_voxels for part in parts) == box.n_voxels
    for part in parts:
        assert part.intersection(box) == part
        first = [at // length for at, length in zip(part.start, size, strict=True)]
        assert first == [(stop - 1) // length for stop, length in zip(part.stop, size, strict=True)]


def test_an_empty_box_has_no_blocks():
    assert list(blocks(Box((1, 2, 3), (1, 5, 5)), (2, 2, 2))) == []


def test_a_box_of_another_place_has_no_voxel_in_common():
    assert Box((0, 0, 0), (2, 2, 2)).intersection(Box((5, 0, 0), (7, 2, 2))).n_voxels == 0


def test_a_box_grows_on_both_sides_and_moves():
    box = Box((4, 5, 6), (7, 8, 9)).grown((1, 0, 2))
    assert box == Box((3, 5, 4), (8, 8, 11))
    assert box.relative_to(Box((3, 3, 3), (9, 9, 9))) == Box((0, 2, 1), (5, 5, 8))
    assert str(box) == "[3:8, 5:8, 4:11]"


def test_a_negative_coordinate_is_no_index():
    with pytest.raises(ValueError, match="negative"):
        _ = Box((-1, 0, 0), (1, 1, 1)).slices


def test_the_end_of_a_box_lies_behind_its_start():
    with pytest.raises(ValueError, match="end lies before"):
        Box((0, 0, 3), (1, 1, 2))
