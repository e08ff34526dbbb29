"""Mutex watershed: the partition of the algorithm as published, in any order of offsets, and nothing without it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from objects import draw_objects

from autoseg.core.errors import ConfigError
from autoseg.evaluation.instances import match_instances
from autoseg.tasks.mutex import is_installed, missing_offsets, part_by_affinities
from autoseg.tasks.separation import renumbered

FLAT = ((0, -3, 0), (0, -1, 0), (0, 0, 1), (0, 0, 4))
DEEP = ((-1, 0, 0), (0, 2, 0), (0, -1, 0), (0, 0, -1), (0, 0, -3), (2, 0, 0))
SHAPES = pytest.mark.parametrize(
    ("shape", "offsets"), [((1, 12, 14), FLAT), ((5, 7, 8), DEEP)], ids=["2d", "3d"]
)  # fmt: skip


def edges_of(mask, affinities, offsets, top):
    """Return the pairs within the mask as (weight, is attractive, channel, voxel, other voxel), the surest first."""
    edges = []
    for channel, offset in enumerate(offsets):
        is_attractive = sum(map(abs, offset)) == 1
        for voxel in map(tuple, np.argwhere(mask).tolist()):
            other = tuple(int(at) for at in np.add(voxel, offset))
            if all(0 <= at < edge for at, edge in zip(other, mask.shape, strict=True)) and mask[other]:
                affinity = int(affinities[channel][voxel])
                edges.append((affinity if is_attractive else top - affinity, is_attractive, channel, voxel, other))
    return sorted(edges, key=lambda edge: (-edge[0], not edge[1], *edge[2:]))


def by_definition(mask, affinities, offsets, top):
    """Return the objects by algorithm 1 of arXiv 1904.12654, with sets of voxels and a set of forbidden pairs."""
    voxels = list(map(tuple, np.argwhere(mask).tolist()))
    cluster, forbidden = {voxel: {voxel} for voxel in voxels}, set()
    for _, is_attractive, _, voxel, other in edges_of(mask, affinities, offsets, top):
        one, two = cluster[voxel], cluster[other]
        if one is two:
            continue
        if not is_attractive:
            forbidden.add(frozenset((voxel, other)))
        elif not any(frozenset((a, b)) in forbidden for a in one for b in two):
            one |= two
            cluster.update(dict.fromkeys(two, one))
    objects = np.zeros(mask.shape, dtype=np.uint32)
    for number, voxel in enumerate(voxels, start=1):
        if not objects[voxel]:
            for member in cluster[voxel]:
                objects[member] = number
    return renumbered(objects, 0)


def exact(objects, offsets, top=255):
    """Return the affinities (A, z, y, x) of objects, 0 where a pair leaves the array."""
    affinities = np.zeros((len(offsets), *objects.shape), dtype=np.uint8)
    for channel, offset in enumerate(offsets):
        for voxel in np.argwhere(objects).tolist():
            other = np.add(voxel, offset)
            if (other >= 0).all() and (other < objects.shape).all():
                affinities[(channel, *voxel)] = top * (objects[tuple(other)] == objects[tuple(voxel)])
    return affinities


@SHAPES
@pytest.mark.parametrize("levels", [7, 256], ids=["many-ties", "few-ties"])
def test_the_partition_is_that_of_the_published_algorithm(shape, offsets, levels):
    top, n_objects = levels - 1, []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        mask = rng.random(shape) < rng.choice([0.6, 0.9, 1.1])
        affinities = rng.integers(0, levels, (len(offsets), *shape)).astype(np.uint8)
        objects = renumbered(part_by_affinities(mask, affinities, offsets, top=top), 0)
        np.testing.assert_array_equal(objects, by_definition(mask, affinities, offsets, top))
        np.testing.assert_array_equal(objects > 0, mask)
        n_objects.append(objects.max())
    assert min(n_objects) > 2 and max(n_objects) < mask.size / 2


@SHAPES
def test_exact_affinities_give_the_objects_that_touch(shape, offsets):
    objects = draw_objects((1, 40, 44) if shape[0] == 1 else (14, 24, 24), 5.0, 1)
    parted = renumbered(part_by_affinities(objects > 0, exact(objects, offsets), offsets, top=255), 0)
    assert match_instances(parted, objects).average_precision() == 1
    np.testing.assert_array_equal(parted > 0, objects > 0)


@SHAPES
def test_one_object_stays_one_and_no_object_is_none(shape, offsets):
    whole = np.ones(shape, dtype=bool)
    affinities = exact(whole, offsets)
    assert (renumbered(part_by_affinities(whole, affinities, offsets, top=255), 0) == 1).all()
    assert not part_by_affinities(~whole, affinities, offsets, top=255).any()
    one = np.zeros(shape, dtype=bool)
    one[0, 3, 4] = True
    assert (part_by_affinities(one, affinities, offsets, top=255) > 0).sum() == 1


def test_offsets_that_cannot_part_objects_are_named():
    assert missing_offsets(DEEP, (5, 7, 8)) is None and missing_offsets(FLAT, (1, 7, 8)) is None
    assert missing_offsets(((-1, 0, 0), (0, -1, 0), (0, 0, -1)), (5, 7, 8)) == "a longer one along z"
    assert missing_offsets(((-1, 0, 0), *FLAT), (5, 7, 8)) == "a longer one along z"
    assert missing_offsets(FLAT, (2, 7, 8)) == "one of one voxel along z"
    assert missing_offsets(((0, 0, 1), (0, -9, 0)), (1, 7, 8)) == "one of one voxel along y"


def test_objects_that_touch_along_an_axis_without_longer_pairs_are_always_joined():
    objects = np.ones((4, 3, 3), dtype=np.uint16)
    objects[2:] = 2
    for offsets, expected in ((((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -2, 0)), 1), (DEEP, 2)):
        parted = part_by_affinities(objects > 0, exact(objects, offsets), offsets, top=255)
        assert len(np.unique(parted)) == expected


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    assert is_installed()
    monkeypatch.setitem(sys.modules, "bioimage_cpp.segmentation", None)
    with pytest.raises(ConfigError, match=r"pip install 'autoseg\[mutex\]'"):
        part_by_affinities(np.ones((1, 2, 2), bool), np.zeros((4, 1, 2, 2), np.uint8), FLAT, top=255)
