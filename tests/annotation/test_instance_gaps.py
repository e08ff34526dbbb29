"""Instances stay apart when only their class is kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from autoseg.annotation.instance_gaps import separated


@pytest.mark.parametrize("shape", [(60, 50), (14, 20, 18)], ids=["2d", "3d"])
def test_no_component_holds_two_instances(shape):
    generator = np.random.default_rng(0)
    seeds = np.zeros(shape, dtype=np.int64)
    places = generator.choice(seeds.size, 40, replace=False)
    seeds.flat[places] = generator.choice(2**40, 40, replace=False) + 1
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    instances = seeds[tuple(nearest)] * (generator.random(shape) < 0.97)
    mask = separated(instances)
    components, n_components = ndimage.label(mask, structure=np.ones((3,) * len(shape)))
    for component in range(1, n_components + 1):
        assert len(np.unique(instances[components == component])) == 1
    assert mask.sum() > 0.2 * mask.size
    assert not mask[instances == 0].any()


def test_instances_that_touch_at_one_corner_are_separated_by_one_voxel():
    instances = np.zeros((8, 8), dtype=np.uint8)
    instances[1:4, 1:4] = 1
    instances[4:7, 4:8] = 2
    mask = separated(instances)
    removed = (instances > 0) & ~mask
    assert np.argwhere(removed).tolist() == [[4, 4]]  # of the larger one


def test_instances_apart_are_as_they_were():
    instances = np.zeros((4, 9, 9), dtype=np.uint16)
    instances[:, 1:3, 1:3] = 300
    instances[:, 4:8, 4:8] = 7
    np.testing.assert_array_equal(separated(instances), instances > 0)


def test_the_numbers_of_instances_of_different_sizes_do_not_matter():
    edges = np.cumsum([0, *range(2, 9)])
    rows = np.searchsorted(edges, np.arange(edges[-1]), side="right")
    instances = np.tile(rows[:, None], (1, 5))
    names = np.random.default_rng(1).permutation(np.arange(1, len(edges) + 1)) * 1000
    np.testing.assert_array_equal(separated(instances), separated(names[instances - 1]))


@pytest.mark.parametrize("value", [0, 5])
def test_one_instance_or_none(value):
    instances = np.full((3, 4), value)
    np.testing.assert_array_equal(separated(instances), instances > 0)


def test_seventy_thousand_instances():
    instances = np.kron(np.arange(1, 70_001).reshape(280, 250), np.ones((3, 3), dtype=np.int64))
    mask = separated(instances)
    _, n_components = ndimage.label(mask, structure=np.ones((3, 3)))
    assert n_components == 70_000  # at least the voxel in the centre of each
