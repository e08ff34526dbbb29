"""Scores of agreement equal those that are counted voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.annotation.agreement import dice_between_experts, dice_with_fusion, foreground_mean
from autoseg.annotation.fusion import fuse


def dice(one, other, index):
    both = (one >= 0) & (other >= 0)
    one, other = (one == index) & both, (other == index) & both
    total = one.sum() + other.sum()
    return 2 * (one & other).sum() / total if total else np.nan


@pytest.mark.parametrize("shape", [(20, 15), (6, 7, 8)], ids=["2d", "3d"])
@pytest.mark.parametrize("method", ["staple", "majority", "sets"])
def test_dice_counts_what_both_sides_decided(shape, method):
    votes = np.random.default_rng(0).integers(-1, 4, (3, *shape))
    votes[votes == 3] = 0
    fusion = fuse(votes, 4, method)
    fused = np.where(fusion.codes < 4, fusion.codes.astype(int), -1)
    expected = [[dice(vote, fused, index) for index in range(4)] for vote in votes]
    np.testing.assert_allclose(dice_with_fusion(fusion), expected)
    pairs = [[[dice(one, other, index) for index in range(4)] for other in votes] for one in votes]
    np.testing.assert_allclose(dice_between_experts(fusion.patterns), pairs)
    assert np.isnan(dice_with_fusion(fusion)[:, 3]).all()  # nobody named it


def test_the_mean_leaves_out_background_and_classes_that_are_nowhere():
    scores = np.array([[1.0, 0.5, np.nan, 0.7], [1.0, np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(foreground_mean(scores), [0.6, np.nan])
    assert foreground_mean(np.array([0.25])) == 0.25
