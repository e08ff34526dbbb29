"""Affinities of a prediction part objects on the plan's grid, wherever the file's voxels lie."""

from __future__ import annotations

import numpy as np
import pytest
from objects import draw_objects, logits_of

from autoseg import Dataset
from autoseg.cases.case import CaseRecord
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.evaluation.instances import match_instances
from autoseg.inference.affinity_map import AffinityMap
from autoseg.inference.objects import ObjectMap
from autoseg.tasks.separation import SeparationSettings, separate

MUTEX = SeparationSettings(method="mutex", min_size=0)
FLAT = ((0, -1, 0), (0, 0, -1), (0, -5, 0), (0, 0, -5))
DEEP = ((-1, 0, 0), *FLAT, (-4, 0, 0))


def labels_with(offsets):
    content = {
        "channel_names": {"0": "a"}, "task": "instances", "labels": {"background": 0, "cell": 1}, "numTraining": 1,
        "file_ending": ".nii.gz", "affinities": [list(offset) for offset in offsets],
    }  # fmt: skip
    return Dataset.from_json(content, name="d", folder=None).labels


def record_of(grid, crop):
    """The record of a case whose file has its axes swapped and flipped, and a border that was cropped."""
    steps = [1.0 if here == there else here / there for here, there in zip(grid, crop, strict=True)]
    z, y, x = crop
    return CaseRecord(
        case="c", geometry=Geometry(spacing=(1.0, 1.0, 1.0)), transpose=(2, 0, 1), flipped=(False, True, False),
        shape_before_crop=(z, y + 3, x + 2), crop_low=(0, 1, 2), crop_high=(z, y + 1, x + 2),
        spacing_before=tuple(steps), spacing=(1.0, 1.0, 1.0), shape=grid,
    )  # fmt: skip


def in_file(array, record):
    """Return an array on the crop as the file has it."""
    z, y, x = record.shape_before_crop
    whole = np.zeros((z, y, x), dtype=array.dtype)
    whole[:, 1 : 1 + array.shape[1], 2:] = array
    return whole[:, ::-1].transpose(1, 2, 0)


def kept(record, offsets, *, slab=3, n_models=1):
    """Return the function that keeps the logits of each model in slabs of planes."""
    pairs = AffinityMap(record, labels_with(offsets), n_models)

    def keep(logits):
        for first in range(0, logits.shape[1], slab):
            pairs.keep_logits(first, logits[:, first : first + slab])
        return pairs

    return keep


@pytest.mark.parametrize(
    ("grid", "crop", "offsets"),
    [
        ((1, 40, 44), (1, 40, 44), FLAT),
        ((14, 24, 24), (14, 24, 24), DEEP),
        ((1, 40, 44), (1, 80, 88), FLAT),
        ((14, 24, 24), (14, 48, 36), DEEP),
        ((1, 80, 88), (1, 40, 44), FLAT),
        ((28, 40, 40), (14, 30, 40), DEEP),
    ],
    ids=["2d-same", "3d-same", "2d-finer-file", "3d-finer-file", "2d-coarser-file", "3d-coarser-file"],
)
def test_objects_that_touch_are_parted_on_every_grid_and_fill_their_class(grid, crop, offsets):
    radius = 5.0 if grid[1] < 80 else 8.0
    objects, record = draw_objects(grid, radius, 1), record_of(grid, crop)
    nearest = [
        np.minimum(((np.arange(m) + 0.5) * n / m).astype(int), n - 1) for n, m in zip(grid, crop, strict=True)
    ]  # fmt: skip
    expected = in_file(objects[np.ix_(*nearest)], record)
    found = kept(record, offsets)(logits_of(objects, offsets)).part(expected > 0, MUTEX)
    assert found.shape == expected.shape and match_instances(found, expected).average_precision() == 1
    np.testing.assert_array_equal(found > 0, expected > 0)
    if all(there % here == 0 for here, there in zip(grid, crop, strict=True)):
        assert len(np.unique(np.stack([found, expected]).reshape(2, -1), axis=1).T) == len(np.unique(expected))


def test_a_part_of_the_class_that_the_plans_grid_does_not_see_is_filled_or_an_object_of_its_own():
    grid, crop = (1, 10, 10), (1, 40, 40)
    record = record_of(grid, crop)
    mask = np.zeros(crop, dtype=bool)
    mask[0, 2:20, 2:20] = True
    mask[0, 2, 20:24] = mask[0, 30, 28] = True
    objects = mask[:, 2::4, 2::4].astype(np.uint16)
    found = kept(record, FLAT)(logits_of(objects, FLAT)).part(in_file(mask, record), MUTEX)
    assert found.max() == 2 and ((found > 0) == in_file(mask, record)).all()
    assert sorted(np.bincount(found[found > 0]).tolist()) == [0, 1, mask.sum() - 1]


def test_objects_of_a_case_with_context_lie_where_they_lie_in_it():
    """Two objects meet in the middle of a case, which is a quarter of the image that was predicted with its context."""
    objects = np.ones((1, 40, 40), dtype=np.uint16)
    objects[..., 25:] = 2
    whole = record_of((1, 40, 40), (1, 40, 40))
    place = {"shape_before_crop": (1, 20, 20), "crop_low": (0, 0, 0), "crop_high": (1, 20, 20)}
    record = whole.model_copy(update={**place, "context_low": (0, 5, 15), "context_high": (0, 15, 5)})
    expected = record.voxel_order.invert(objects[:, 5:25, 15:35])
    found = kept(record, FLAT)(logits_of(objects, FLAT)).part(expected > 0, MUTEX)
    assert len(np.unique(np.stack([found, expected]).reshape(2, -1), axis=1).T) == 2


def test_small_objects_become_background_and_an_empty_class_has_none():
    record = record_of((1, 12, 12), (1, 12, 12))
    objects = np.zeros((1, 12, 12), dtype=np.uint16)
    objects[0, 1:3, 1:3], objects[0, 6:10, 6:10] = 1, 2
    pairs = kept(record, FLAT)(logits_of(objects, FLAT))
    found = pairs.part(in_file(objects > 0, record), SeparationSettings(method="mutex", min_size=5))
    assert found.max() == 1 and (found > 0).sum() == 16
    empty = pairs.part(np.zeros(found.shape, dtype=bool), MUTEX)
    assert empty.shape == found.shape and not empty.any()


def test_several_models_part_by_the_mean_of_their_affinities():
    """One model sees two objects, others one: the two are kept apart only by a mean below one half."""
    record = record_of((1, 8, 20), (1, 8, 20))
    two = np.ones((1, 8, 20), dtype=np.uint16)
    two[..., 10:] = 2
    one = np.ones_like(two)
    for models, expected in (((two, two, one), 2), ((two, one, one), 1), ((two,), 2)):
        keep = kept(record, FLAT, n_models=len(models))
        for objects in models:
            pairs = keep(logits_of(objects, FLAT))
        assert pairs.part(in_file(one > 0, record), MUTEX).max() == expected


def test_members_that_follow_the_mean_are_not_read():
    record = record_of((1, 8, 20), (1, 8, 20))
    two = np.ones((1, 8, 20), dtype=np.uint16)
    two[..., 10:] = 2
    stacked = np.concatenate([logits_of(two, FLAT), logits_of(np.ones_like(two), FLAT)])
    assert kept(record, FLAT)(stacked).part(in_file(two > 0, record), MUTEX).max() == 2


def test_offsets_that_cannot_part_the_objects_of_a_case_are_refused_before_it_is_predicted():
    with pytest.raises(ConfigError, match=r"case c: .*also a longer one along y, .*--instances watershed.*affinities"):
        AffinityMap(record_of((1, 8, 8), (1, 8, 8)), labels_with(FLAT[:2]))
    with pytest.raises(ConfigError, match="one of one voxel along z"):
        AffinityMap(record_of((2, 8, 8), (2, 8, 8)), labels_with(FLAT))


def test_an_object_map_keeps_the_affinities_of_its_case():
    record = record_of((1, 8, 20), (1, 8, 20))
    two = np.ones((1, 8, 20), dtype=np.uint16)
    two[..., 10:] = 2
    labels = labels_with(FLAT)
    pairs = AffinityMap(record, labels)
    ObjectMap(record, labels, pairs).keep_logits(0, logits_of(two, FLAT))
    ObjectMap(record, labels).keep_logits(0, logits_of(two, FLAT))  # keeps nothing
    mask = in_file(two > 0, record)
    probability = np.where(mask, 255, 0).astype(np.uint8)
    assert pairs.separation(MUTEX)(mask, probability, (1.0, 1.0, 1.0)).max() == 2
    assert separate(mask, probability, (1.0, 1.0, 1.0), SeparationSettings()).max() == 1
    with pytest.raises(ConfigError, match="found the method mutex, expected watershed"):
        separate(mask, probability, (1.0, 1.0, 1.0), MUTEX)
