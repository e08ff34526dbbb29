from __future__ import annotations

import numpy as np
import pytest

from autoseg.evaluation.disagreement import Disagreement, DisputedVoxels, group_disputed, surest_first

NAMES = ("background", "left", "right")


def disputed(index, drawn, predicted, probability):
    return DisputedVoxels(np.array(index, dtype=np.int32), np.array(drawn), np.array(predicted), np.array(probability))


def test_voxels_that_touch_are_one_group_and_the_surest_comes_first_then_the_largest():
    voxels = disputed([(0, 0, 0), (0, 1, 1), (5, 5, 5), (0, 0, 9)], [0, 0, 0, 0], [1, 1, 1, 1], [0.5, 0.7, 0.9, 0.6])
    first, second, third = group_disputed("a", voxels, NAMES, NAMES)
    assert (first.z, first.y, first.x, first.n_voxels) == (5, 5, 5, 1)
    assert second.n_voxels == 2
    assert second.mean_probability == pytest.approx(0.6)
    assert (second.drawn, second.predicted) == ("background", "left")
    assert third.n_voxels == 1


def test_neighbours_with_other_classes_are_groups_of_their_own():
    voxels = disputed([(1, 1, 1), (1, 1, 2), (1, 1, 3)], [0, 1, 0], [1, 0, 2], [1, 1, 1])
    pairs = {(group.drawn, group.predicted) for group in group_disputed("a", voxels, NAMES, NAMES)}
    assert pairs == {("background", "left"), ("left", "background"), ("background", "right")}


@pytest.mark.parametrize("n_slices", [1, 5], ids=["2d", "3d"])
def test_the_centre_is_a_voxel_of_the_group_even_if_it_is_hollow(n_slices):
    ring = np.ones((n_slices, 7, 7), dtype=bool)
    ring[:, 1:6, 1:6] = False
    index = np.argwhere(ring)
    ones = np.ones(len(index), dtype=int)
    (group,) = group_disputed("a", disputed(index, 0 * ones, ones, ones), NAMES, NAMES)
    assert group.n_voxels == len(index)
    assert ring[group.z, group.y, group.x]


def test_nothing_disputed_gives_no_group_and_parts_join():
    assert group_disputed("a", DisputedVoxels.join([]), NAMES, NAMES) == ()
    part = disputed([(0, 0, 0)], [0], [1], [0.9])
    joined = DisputedVoxels.join([part, disputed([(0, 0, 1)], [0], [1], [0.7])])
    (group,) = group_disputed("a", joined, NAMES, NAMES)
    assert group.n_voxels == 2 and group.mean_probability == pytest.approx(0.8)


def test_what_a_table_shows_as_equally_sure_is_sorted_by_size():
    (group,) = group_disputed("a", disputed([(0, 0, 0)], [0], [1], [0.9991]), NAMES, NAMES)
    group = group.model_copy(update={"n_voxels": 9000})
    larger = group.model_copy(update={"n_voxels": 90000, "mean_probability": 0.9989})
    unsure = group.model_copy(update={"n_voxels": 900000, "mean_probability": 0.99})
    assert surest_first([unsure, group, larger]) == (larger, group, unsure)


def _group(**change):
    values = {"case": "a", "z": 0, "y": 0, "x": 0, "drawn": "liver", "predicted": "tumour", "n_voxels": 40}
    return Disagreement(**{**values, "mean_probability": 0.9, **change})


def test_a_case_that_the_model_segments_worse_than_usual_comes_last():
    poor = _group(case="poor", mean_probability=0.99, predicted_dice=0.5, usual_dice=0.8)
    usual = _group(case="usual", predicted_dice=0.8, usual_dice=0.8)
    assert [group.case for group in surest_first([poor, usual])] == ["usual", "poor"]
    assert poor.doubt == pytest.approx(0.99 * 40 / 41 * 0.5 / 0.8)


def test_cases_that_are_better_than_usual_are_alike():
    assert _group(predicted_dice=0.95, usual_dice=0.8).doubt == _group(predicted_dice=0.8, usual_dice=0.8).doubt


def test_single_voxels_come_after_groups_of_the_same_probability():
    assert [group.n_voxels for group in surest_first([_group(n_voxels=1, mean_probability=0.99), _group()])] == [40, 1]
