"""Separation of objects: those that touch are parted, whatever their number, in 2-D and 3-D, by distances in mm."""

from __future__ import annotations

import time

import numpy as np
import pytest

from autoseg.tasks.separation import SeparationSettings, as_units, separate

DEFAULTS = SeparationSettings()


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    axes = zip(np.indices(shape), centre, spacing, strict=True)
    return sum(((axis - middle) * edge) ** 2 for axis, middle, edge in axes) <= radius**2


def certain(mask: np.ndarray) -> np.ndarray:
    return as_units(mask.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "centres", "spacing"),
    [
        ((60, 80), ((30, 25), (30, 50)), (1.0, 1.0)),
        ((1, 60, 80), ((0, 30, 25), (0, 30, 50)), (999.0, 1.0, 1.0)),
        ((20, 60, 80), ((10, 30, 25), (10, 30, 50)), (3.0, 1.0, 1.0)),
        ((60, 80), ((30, 25), (30, 50)), (0.001, 0.001)),
    ],
)
def test_two_objects_that_overlap_a_little_are_parted_halfway(shape, centres, spacing):
    radius = 14 * spacing[-1]
    masks = [ball(shape, centre, radius, spacing) for centre in centres]
    objects = separate(masks[0] | masks[1], certain(masks[0] | masks[1]), spacing, DEFAULTS)
    assert objects.dtype == np.uint16 and set(np.unique(objects)) == {0, 1, 2}
    np.testing.assert_array_equal(objects > 0, masks[0] | masks[1])
    left = objects[centres[0]]
    for number, mask in ((left, masks[0] & ~masks[1]), (3 - left, masks[1] & ~masks[0])):
        assert (objects[mask] == number).mean() > 0.97


def test_distances_are_measured_in_mm():
    """Along z the planes are 4 mm apart: a rod of 3 planes is as long as 12 voxels of a plane, and no row of discs."""
    mask = np.zeros((5, 20, 20), dtype=bool)
    mask[1:4, 4:16, 4:16] = True
    assert separate(mask, certain(mask), (4.0, 1.0, 1.0), DEFAULTS).max() == 1


def test_probability_parts_what_distance_cannot():
    mask = np.zeros((20, 41), dtype=bool)
    mask[4:16, 2:39] = True  # a bar
    probability = np.where(mask, 0.9, 0.0)
    probability[:, 20] = 0.2  # and a boundary across it
    objects = separate(mask, as_units(probability), (1, 1), DEFAULTS)
    assert objects.max() == 2 and objects[10, 5] != objects[10, 35]
    np.testing.assert_array_equal(objects > 0, mask)
    assert separate(mask, certain(mask), (1, 1), DEFAULTS).max() == 1


def test_an_object_without_a_core_is_kept_and_one_below_the_minimum_size_is_not():
    mask = np.zeros((10, 30), dtype=bool)
    mask[2:5, 2:5] = mask[2:8, 10:16] = mask[2:4, 22:24] = True
    probability = np.where(mask, 0.9, 0)
    probability[:, :6] *= 0.3  # nothing of the first is certain
    objects = separate(mask, as_units(probability), (1, 1), DEFAULTS)
    assert objects[3, 3] and objects[5, 12] and not objects[3, 22] and objects.max() == 2


def test_objects_that_share_only_a_corner_are_two():
    mask = np.zeros((8, 8), dtype=bool)
    mask[1:4, 1:4] = mask[4:7, 4:7] = True
    objects = separate(mask, certain(mask), (1, 1), DEFAULTS)
    assert objects.max() == 2 and objects[3, 3] != objects[4, 4]


@pytest.mark.parametrize("shape", [(7, 9), (3, 7, 9), (1, 7, 9)])
def test_no_object_and_a_case_full_of_one(shape):
    spacing = (1.0,) * len(shape)
    empty, full = np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)
    assert not separate(empty, certain(empty), spacing, DEFAULTS).any()
    assert (separate(full, certain(full), spacing, DEFAULTS) == 1).all()


def test_seventy_thousand_objects_have_numbers_of_their_own_within_a_minute():
    tile = ball((5, 5), (1.5, 1.5), 1.6, (1.0, 1.0))
    mask = np.tile(tile, (265, 265))
    started = time.process_time()
    objects = separate(mask, certain(mask), (1, 1), DEFAULTS)
    assert objects.max() == 265**2 > 65535 and objects.dtype == np.uint32
    np.testing.assert_array_equal(objects > 0, mask)
    assert time.process_time() - started < 60
