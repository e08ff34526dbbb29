"""Matches of instances equal those of the assignment problem solved on the full table."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from autoseg.evaluation.instances import THRESHOLDS, add_counts, match_instances, unmatched_voxels

SHAPES = pytest.mark.parametrize("shape", [(50, 60), (10, 20, 22)], ids=["2d", "3d"])


def cells(shape, seed, n=25, spread=0.0):
    """Numbered regions of a Voronoi diagram, with background between some of them."""
    generator = np.random.default_rng(seed)
    seeds = np.zeros(shape, dtype=np.int64)
    places = np.random.default_rng(0).uniform(0, np.array(shape) - 1, (n, len(shape)))
    places = np.rint(np.clip(places + generator.normal(0, spread, places.shape), 0, np.array(shape) - 1)).astype(int)
    seeds[tuple(places.T)] = generator.permutation(np.arange(1, 10 * n))[:n]
    distance, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    return np.where(distance < 6, seeds[tuple(nearest)], 0)


def slow_counts(prediction, reference):
    predicted, truth = np.unique(prediction[prediction > 0]), np.unique(reference[reference > 0])
    iou = np.array(
        [[((prediction == p) & (reference == r)).sum() / ((prediction == p) | (reference == r)).sum() for r in truth]
         for p in predicted]
    )  # fmt: skip
    matched = []
    for threshold in THRESHOLDS:
        rows, columns = linear_sum_assignment(-1.0 * (iou >= threshold) - iou / 1e4)
        matched.append(int((iou[rows, columns] >= threshold).sum()))
    rows, columns = linear_sum_assignment(-np.where(iou >= 0.5, iou + 10, 0))
    chosen = iou[rows, columns]
    return matched, len(predicted), len(truth), chosen[chosen >= 0.5].sum()


@SHAPES
@pytest.mark.parametrize("spread", [0.5, 1.5, 4.0])
def test_counts_are_those_of_an_assignment_over_all_pairs(shape, spread):
    prediction, reference = cells(shape, 1, spread=spread), cells(shape, 2)
    counts = match_instances(prediction, reference)
    matched, n_predicted, n_reference, iou = slow_counts(prediction, reference)
    assert list(counts.matched) == matched
    assert (counts.n_predicted, counts.n_reference) == (n_predicted, n_reference)
    assert counts.matched_iou == pytest.approx(iou)


def test_scores_of_a_known_case():
    reference = np.zeros((4, 20), dtype=int)
    reference[:, :4], reference[:, 6:10], reference[:, 12:16] = 1, 2, 3
    prediction = np.zeros_like(reference)
    prediction[:, :4], prediction[:, 7:10], prediction[:, 17:] = 9, 8, 7  # equal, IoU 0.75, wrong
    counts = match_instances(prediction, reference)
    assert counts.average_precision(0.5) == counts.average_precision(0.75) == 2 / 4
    assert counts.average_precision(0.8) == 1 / 5
    assert counts.panoptic_quality == pytest.approx(1.75 / 3)
    assert counts.mean_average_precision == pytest.approx((6 * 0.5 + 4 * 0.2) / 10)
    both = add_counts([counts, counts])
    assert both.panoptic_quality == counts.panoptic_quality and both.n_predicted == 6


def test_an_instance_that_covers_two_halves_matches_one():
    reference = np.repeat([1, 2], 8)[None]
    counts = match_instances(np.ones_like(reference), reference)
    assert counts.matched[0] == 1 and counts.matched_iou == 0.5


@SHAPES
def test_nothing_depends_on_undecided_voxels(shape):
    prediction, reference = cells(shape, 1, spread=1.0), cells(shape, 2)
    generator = np.random.default_rng(0)
    decided = generator.random(shape) < 0.7
    scrambled = np.where(decided, prediction, generator.integers(0, 500, shape))
    assert match_instances(prediction, reference, decided) == match_instances(scrambled, reference, decided)


def test_no_instances():
    nothing = np.zeros((3, 4), dtype=np.uint32)
    counts = match_instances(nothing, nothing)
    assert counts.average_precision() is None and counts.panoptic_quality is None
    assert counts.mean_average_precision is None
    missed = match_instances(nothing, nothing + 70_000)
    assert (missed.average_precision(), missed.panoptic_quality, missed.n_reference) == (0, 0, 1)


def test_seventy_thousand_instances_match_themselves():
    instances = np.kron(np.arange(1, 70_001).reshape(280, 250), np.ones((2, 3), dtype=np.uint32))
    counts = match_instances(instances, instances[::-1, ::-1][::-1, ::-1])
    assert counts.matched == (70_000,) * 10 and counts.panoptic_quality == 1


@SHAPES
def test_instances_that_match_none_are_those_that_are_not_counted_as_matched(shape):
    prediction, reference = cells(shape, 1, spread=2.0), cells(shape, 2, spread=2.0)
    counts = match_instances(prediction, reference)
    alone = unmatched_voxels(prediction, reference)
    assert 0 < counts.matched[0] < counts.n_reference
    left_over = {name: set(of[alone].tolist()) - {0} for name, of in (("p", prediction), ("r", reference))}
    whole = {name: {n for n in found if alone[of == n].all()} for (name, found), of in
             zip(left_over.items(), (prediction, reference), strict=True)}  # fmt: skip
    assert len(whole["p"]) >= counts.n_predicted - counts.matched[0]
    assert len(whole["r"]) >= counts.n_reference - counts.matched[0]
    assert not unmatched_voxels(reference, reference).any()
    empty = np.zeros(shape, dtype=np.uint8)
    assert not unmatched_voxels(empty, empty).any()
    assert (unmatched_voxels(empty, reference) == (reference > 0)).all()


@SHAPES
def test_voxels_of_unmatched_instances_are_decided_and_depend_on_no_others(shape):
    prediction, reference = cells(shape, 1, spread=2.0), cells(shape, 2, spread=2.0)
    decided = np.random.default_rng(3).random(shape) < 0.7
    alone = unmatched_voxels(prediction, reference, decided)
    scrambled = np.where(decided, prediction, np.random.default_rng(4).integers(0, 500, shape))
    assert (alone == unmatched_voxels(scrambled, reference, decided)).all() and alone.any() and decided[alone].all()
    assert (alone == unmatched_voxels(*(np.where(decided, of, 0) for of in (prediction, reference)))).all()
