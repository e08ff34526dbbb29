"""Parts, columns and layers of a volume hold every voxel once, in whole shards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.core.boxes import Box, blocks
from autoseg.inference.volume_units import Part, box_of_part, columns, units

EDGES = st.tuples(*[st.integers(1, 40)] * 3)
SHARDS = st.tuples(*[st.integers(3, 12)] * 3)
PATCH = (4, 8, 8)


def owners(boxes, shape):
    """How many of the boxes hold each voxel."""
    count = np.zeros(shape, dtype=int)
    for box in boxes:
        count[box.slices] += 1
    return count


def is_whole(box, shape, shard):
    return all(start % length == 0 for start, length in zip(box.start, shard, strict=True)) and all(
        stop % length == 0 or stop == edge for stop, edge, length in zip(box.stop, shape, shard, strict=True)
    )


@given(shape=EDGES, shard=SHARDS, n_parts=st.integers(1, 30))
def test_parts_are_boxes_of_whole_shards_that_tile_the_volume(shape, shard, n_parts):
    boxes = [box_of_part(shape, shard, PATCH, Part(index + 1, n_parts)) for index in range(n_parts)]
    there = [box for box in boxes if box.n_voxels]
    assert (owners(there, shape) == 1).all()
    assert all(is_whole(box, shape, shard) for box in there)
    n_shards = math.prod(math.ceil(edge / length) for edge, length in zip(shape, shard, strict=True))
    assert len(there) == min(n_parts, n_shards)


def test_a_volume_is_halved_where_most_windows_lie():
    assert box_of_part((100, 100, 400), (10, 10, 10), (8, 8, 8), Part(1, 2)) == Box((0, 0, 0), (100, 100, 200))
    assert box_of_part((100, 100, 100), (10, 10, 10), (1, 8, 8), Part(2, 2)) == Box((50, 0, 0), (100, 100, 100))


@given(shape=EDGES, shard=SHARDS, along=st.integers(0, 2), most=st.integers(1, 3000), n_parts=st.integers(1, 4))
def test_columns_tile_a_part_and_are_as_few_as_fit(shape, shard, along, most, n_parts):
    box = box_of_part(shape, shard, PATCH, Part(1, n_parts))

    def fits(size):
        return math.prod(size) // size[along] <= most

    found = columns(box, shard, along, PATCH, fits)
    assert (owners(found, shape)[box.slices] == 1).all() and owners(found, shape).sum() == box.n_voxels
    assert all(is_whole(column, shape, shard) for column in found)
    assert all(column.shape[along] == box.shape[along] for column in found)
    widest = max(found, key=lambda column: column.n_voxels)
    one_shard = all(widest.shape[axis] <= shard[axis] for axis in range(3) if axis != along)
    assert fits(widest.shape) or one_shard
    assert len(found) == 1 or not fits(box.shape)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_only_stretches_of_layers_that_are_not_done_are_left(is_reversed):
    column, shard = Box((0, 8, 0), (40, 24, 8)), (8, 8, 8)
    done = {Box((8, 8, 0), (16, 16, 8)), Box((8, 16, 0), (16, 24, 8)), Box((24, 8, 0), (32, 16, 8))}
    left = units([column], shard, 0, is_reversed=is_reversed, is_done=lambda box: box in done)
    assert [unit.box for unit in left] == [Box((0, 8, 0), (8, 24, 8)), Box((16, 8, 0), (40, 24, 8))]
    starts = [layer.start[0] for layer in left[1].layers]
    assert starts == ([32, 24, 16] if is_reversed else [16, 24, 32])
    assert all(shard_box.n_voxels == 512 for layer in left[1].layers for shard_box in blocks(layer, shard))


def test_nothing_is_left_of_what_is_done():
    assert not units([Box.whole((8, 8, 8))], (8, 8, 8), 0, is_reversed=False, is_done=lambda box: True)


def test_a_part_is_named_in_messages_as_people_count():
    assert repr(Part(2, 8)) == "part 2 of 8"
