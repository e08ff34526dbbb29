"""Soft Dice confidence and pairwise Dice are those of the formulas over the whole case, whatever the slabs."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from autoseg.dataset.labels import Head, Labels
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.quality_sums import QualitySums

NAMES = ("background", "organ", "tumour")
VALUES = (0, 1, 4)
CLASSES = Labels(VALUES, NAMES, tuple(Head(NAMES[k], (k,), (VALUES[k],), k == 0) for k in range(3)))
REGIONS = Labels(VALUES, NAMES, (Head("whole", (1, 2), (1, 4)), Head("tumour", (2,), (4,))), paint_values=(1, 4))


def drawn(labels, n_members, shape, seed=0):
    """Return the probabilities of members (M, H, *S), their mean, and decided file values."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n_members, labels.n_heads, *shape))
    if labels.has_regions:
        members = 1 / (1 + np.exp(-logits))
    else:
        members = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean = members.mean(axis=0)
    if labels.has_regions:
        values = np.where(mean[1] > 0.5, 4, np.where(mean[0] > 0.5, 1, 0))
    else:
        values = np.array([0, 1, 4])[mean.argmax(axis=0)]
    return members.astype(np.float32), mean.astype(np.float32), values.astype(np.uint8)


def observed(labels, members, mean, values, edges, *, needs_members=True):
    sums = QualitySums(labels, needs_members=needs_members)
    for first, stop in pairwise(edges):
        part = tuple(member[:, first:stop] for member in members)
        sums(DecidedSlab(first, values[first:stop], mean[:, first:stop], part))
    return sums.confidences()


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("shape", [(1, 9, 8), (6, 7, 8)], ids=["2d", "3d"])
def test_both_are_those_of_the_formulas_over_the_whole_case(labels, shape):
    members, mean, values = drawn(labels, 3, shape)
    found = observed(labels, members, mean, values, sorted({0, 1, shape[0]}))
    for head, confidence in zip(labels.foreground_heads, found, strict=True):
        mask = np.isin(values, labels.heads[head].values)
        soft = 2 * mean[head][mask].sum() / (mean[head].sum() + mask.sum())
        own = [m[head] > 0.5 if labels.has_regions else m.argmax(axis=0) == head for m in members]
        pairwise = np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in combinations(own, 2)])
        assert confidence.soft_dice == pytest.approx(soft, rel=1e-5)
        assert confidence.pairwise_dice == pytest.approx(pairwise)
        assert confidence.n_voxels == mask.sum()


def test_the_slabs_do_not_matter():
    members, mean, values = drawn(CLASSES, 2, (6, 5, 4))
    whole = observed(CLASSES, members, mean, values, [0, 6])
    cut = observed(CLASSES, members, mean, values, [0, 1, 3, 6])
    for one, other in zip(whole, cut, strict=True):
        assert one.soft_dice == pytest.approx(other.soft_dice, rel=1e-6)
        assert one.pairwise_dice == other.pairwise_dice


def test_a_certain_prediction_has_confidence_one_and_agrees_with_itself():
    values = np.array([[[0, 1, 4, 4]]], dtype=np.uint8)
    mean = np.stack([values == value for value in (0, 1, 4)]).astype(np.float32)
    for confidence in observed(CLASSES, [mean, mean], mean, values, [0, 1]):
        assert (confidence.soft_dice, confidence.pairwise_dice) == (1.0, 1.0)


def test_where_nothing_is_predicted_the_confidence_is_zero_or_unknown():
    values = np.zeros((1, 2, 2), dtype=np.uint8)
    mean = np.zeros((3, 1, 2, 2), dtype=np.float32)
    mean[0], mean[1] = 0.9, 0.1
    organ, tumour = observed(CLASSES, [mean, mean], mean, values, [0, 1])
    assert (organ.soft_dice, organ.n_voxels, organ.pairwise_dice) == (0.0, 0, 1.0)
    assert tumour.soft_dice is None


@pytest.mark.parametrize("n_members", [0, 1])
def test_one_member_has_no_pair(n_members):
    members, mean, values = drawn(CLASSES, 1, (2, 3, 4))
    for confidence in observed(CLASSES, members[:n_members], mean, values, [0, 2]):
        assert confidence.pairwise_dice is None
