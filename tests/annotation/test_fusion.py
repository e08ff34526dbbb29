"""Fused annotation equals independent implementations, and decides nothing that the experts left open."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from autoseg.annotation.fusion import fuse
from autoseg.annotation.staple import staple
from autoseg.annotation.votes import NO_VOTE, vote_patterns

SHAPES = pytest.mark.parametrize("shape", [(40, 30), (8, 14, 12)], ids=["2d", "3d"])


def noisy_votes(shape, n_classes, n_experts, seed=0, silent=0.0):
    """Votes of experts who are right with 0.95, 0.9, ..., and otherwise name any class."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(n_classes, size=shape, p=np.arange(n_classes, 0, -1) / sum(range(n_classes + 1)))
    votes = []
    for expert in range(n_experts):
        is_right = generator.random(shape) < 0.95 - 0.05 * expert
        vote = np.where(is_right, truth, generator.integers(0, n_classes, shape))
        votes.append(np.where(generator.random(shape) < silent, NO_VOTE, vote))
    return np.stack(votes)


def staple_voxel_by_voxel(votes, n_classes, n_iterations):
    """Expectation maximisation with loops over experts and voxels, written apart from ours. Probabilities (V, K)."""
    flat = votes.reshape(len(votes), -1)
    weights = np.zeros((flat.shape[1], n_classes))
    for row in flat:
        for voxel, label in enumerate(row):
            if label >= 0:
                weights[voxel, label] += 1
    prior = weights.sum(axis=0) / weights.sum()
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
    for _ in range(n_iterations):
        rates = np.zeros((len(flat), n_classes, n_classes))
        for expert, row in enumerate(flat):
            for given in range(n_classes):
                rates[expert, given] = weights[row == given].sum(axis=0)
            rates[expert] /= weights[row >= 0].sum(axis=0)
        for voxel in range(flat.shape[1]):
            product = prior.copy()
            for expert, row in enumerate(flat):
                if row[voxel] >= 0:
                    product *= rates[expert, row[voxel]]
            weights[voxel] = product / product.sum()
    return weights


@SHAPES
def test_probabilities_and_rates_are_those_of_itk_on_binary_masks(shape):
    votes = noisy_votes(shape, 2, 4)
    filter_ = SimpleITK.STAPLEImageFilter()
    filter_.SetForegroundValue(1)
    theirs = SimpleITK.GetArrayFromImage(
        filter_.Execute([SimpleITK.GetImageFromArray(vote.astype(np.uint8)) for vote in votes])
    )
    fusion = fuse(votes, 2)
    assert np.abs(fusion.class_probabilities()[1] - theirs).max() < 1e-5
    np.testing.assert_allclose(fusion.sensitivity[:, 1], filter_.GetSensitivity(), atol=1e-5)
    np.testing.assert_allclose(fusion.specificity[:, 1], filter_.GetSpecificity(), atol=1e-5)
    np.testing.assert_array_equal(fusion.codes == 1, theirs > 0.5)


@SHAPES
@pytest.mark.parametrize("silent", [0.0, 0.3], ids=["all voted", "a third left out"])
def test_patterns_give_what_every_single_voxel_gives(shape, silent):
    votes = noisy_votes(shape, 3, 4, silent=silent)
    ours = staple(vote_patterns(votes, 3), max_iterations=7, tolerance=-1.0)
    theirs = staple_voxel_by_voxel(votes, 3, 7)
    pattern_of = vote_patterns(votes, 3).pattern_of.ravel()
    anybody = (votes >= 0).any(axis=0).ravel()
    np.testing.assert_allclose(ours.probabilities[pattern_of][anybody], theirs[anybody], atol=1e-9)


def test_many_experts_and_classes_have_only_the_patterns_that_occur():
    votes = noisy_votes((30, 20), 40, 9, silent=0.1)
    patterns = vote_patterns(votes, 40)
    rows = patterns.votes[patterns.pattern_of]  # (*S, E)
    np.testing.assert_array_equal(np.moveaxis(rows, -1, 0), votes)
    assert len(np.unique(patterns.votes, axis=0)) == len(patterns.votes) and patterns.counts.min() > 0
    assert patterns.counts.sum() == 600


@pytest.mark.parametrize("method", ["staple", "majority", "sets"])
@SHAPES
def test_one_expert_is_taken_at_his_word(method, shape):
    votes = noisy_votes(shape, 3, 1, silent=0.2)
    fusion = fuse(votes, 3, method)
    np.testing.assert_array_equal(fusion.codes, np.where(votes[0] < 0, fusion.undecided, votes[0]))


@pytest.mark.parametrize("method", ["staple", "majority", "sets"])
@pytest.mark.parametrize("label", [0, 1, NO_VOTE])
def test_experts_who_agree_everywhere_are_right(method, label):
    fusion = fuse(np.full((3, 4, 5), label), 2, method)
    assert (fusion.codes == (fusion.undecided if label == NO_VOTE else label)).all()
    assert np.isfinite(fusion.sensitivity).all() and np.isfinite(fusion.specificity).all()


@pytest.mark.parametrize("method", ["staple", "majority", "sets"])
def test_the_order_of_experts_and_voxels_does_not_matter(method):
    votes = noisy_votes((30, 20), 3, 4, silent=0.1)
    order = np.random.default_rng(1).permutation(600)
    fusion = fuse(votes, 3, method)
    shuffled = fuse(votes.reshape(4, -1)[[2, 0, 3, 1]][:, order], 3, method)
    sets, shuffled_sets = fusion.label_sets[fusion.codes], shuffled.label_sets[shuffled.codes]
    np.testing.assert_array_equal(sets.reshape(-1, 3)[order], shuffled_sets)


def test_a_tie_is_unknown_or_the_class_that_the_user_names():
    votes = np.array([[0, 1, 1, -1], [1, 1, 0, -1]])
    for method in ("majority", "staple"):
        codes = fuse(votes, 3, method).codes
        assert codes[1] == 1 and codes[3] == 3
        if method == "majority":
            assert codes.tolist() == [3, 1, 3, 3]
            assert fuse(votes, 3, method, undecided=0).codes.tolist() == [0, 1, 0, 3]


def test_sets_hold_every_class_that_somebody_named_and_no_other():
    votes = noisy_votes((20, 20), 4, 3, silent=0.2)
    fusion = fuse(votes, 4, "sets")
    sets = fusion.label_sets[fusion.codes]
    for index in range(4):
        named = (votes == index).any(axis=0)
        silent = (votes < 0).all(axis=0)
        np.testing.assert_array_equal(sets[..., index], named | silent)


@pytest.mark.parametrize("method", ["staple", "majority"])
def test_votes_are_counted_for_every_class(method):
    votes = noisy_votes((20, 20), 3, 4)
    fusion = fuse(votes, 3, method)
    for index in range(3):
        np.testing.assert_array_equal(fusion.vote_counts(index), (votes == index).sum(axis=0))


def test_good_experts_count_for_more_than_poor_ones():
    generator = np.random.default_rng(0)
    truth = np.zeros((60, 60), dtype=int)
    truth[20:40, 20:40] = 1
    votes = [np.where(generator.random(truth.shape) < rate, 1 - truth, truth) for rate in (0.02, 0.03, 0.4, 0.4, 0.4)]
    errors = {method: (fuse(votes, 2, method).codes != truth).sum() for method in ("staple", "majority")}
    assert errors["staple"] < 0.7 * errors["majority"]


def test_empty_images_have_nothing_to_fuse():
    fusion = fuse(np.zeros((3, 0, 4), dtype=int), 2)
    assert fusion.codes.shape == (0, 4) and fusion.label_sets.shape == (3, 2)


@pytest.mark.parametrize(
    ("votes", "options", "message"),
    [
        ([], {}, "no expert"),
        ([np.zeros((2, 3), int), np.zeros((3, 2), int)], {}, r"expert 1: shape \(3, 2\)"),
        ([np.full((2, 3), 2)], {}, "expert 0: values from 2 to 2"),
        ([np.zeros((2, 3))], {}, "dtype float64"),
        ([np.zeros((2, 3), int)], {"method": "vote"}, "method 'vote'"),
        ([np.zeros((2, 3), int)], {"undecided": 2}, "undecided 2"),
    ],
)
def test_what_cannot_be_fused_is_said(votes, options, message):
    with pytest.raises(ValueError, match=message):
        fuse(votes, 2, **options)


@pytest.mark.parametrize(("dtype", "n_classes"), [(np.int8, 128), (np.uint8, 255), (np.uint8, 256), (np.uint16, 257)])
def test_votes_use_the_whole_range_of_their_type(dtype, n_classes):
    votes = np.arange(n_classes, dtype=dtype)
    np.testing.assert_array_equal(fuse([votes, votes], n_classes).codes, np.arange(n_classes))
