from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, softmax

from autoseg.dataset.dataset import Dataset
from autoseg.inference.calibration_sample import CaseSample
from autoseg.inference.temperature import calibrated, log_scores
from autoseg.inference.temperature_fit import expected_calibration_error, fit_temperature

CLASSES = {"background": 0, "liver": 1, "tumour": 2}
REGIONS = {"background": 0, "organ": [1, 2], "tumour": 2}


def labels_of(names, **more):
    content = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz"} | more
    return Dataset.from_json(content, name="toy", folder=None).labels


def region_labels():
    return labels_of(REGIONS, regions_class_order=[1, 2])


def sampled(probabilities, states, weights=None, *, is_exclusive=True):
    """Return a sample of n voxels from probabilities (n, H) and states (n, H)."""
    scores = log_scores(torch.from_numpy(probabilities.T.astype(np.float32)), is_exclusive=is_exclusive).numpy().T
    weights = np.ones(len(scores)) if weights is None else weights
    return CaseSample(scores.astype(np.float16), np.asarray(states, dtype=np.int8), weights.astype(np.float32))


def one_hot_states(classes, n_heads):
    return np.where(classes[:, None] == np.arange(n_heads), 1, -1)


def drawn(rng, probabilities):
    return (rng.random(len(probabilities))[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)


def test_calibrated_probabilities_of_classes_by_hand():
    given = np.array([0.8, 0.15, 0.05], dtype=np.float32).reshape(3, 1, 1, 1)
    result = calibrated(given, [2, 1, 0.5], is_exclusive=True)
    powers = np.array([0.8**0.5, 0.15, 0.05**2])
    np.testing.assert_allclose(result.ravel(), powers / powers.sum(), rtol=1e-5)


def test_one_temperature_for_all_classes_divides_the_logits():
    logits = np.random.default_rng(0).normal(0, 4, size=(4, 2, 3, 5)).astype(np.float32)
    result = calibrated(softmax(logits, axis=0), [1.7] * 4, is_exclusive=True)
    np.testing.assert_allclose(result, softmax(logits / 1.7, axis=0), atol=1e-6)


def test_calibrated_probabilities_of_regions_by_hand():
    given = np.array([0.9, 0.2], dtype=np.float32).reshape(2, 1, 1)
    result = calibrated(given, [2, 0.5], is_exclusive=False)
    np.testing.assert_allclose(result.ravel(), expit(logit([0.9, 0.2]) / [2, 0.5]), rtol=1e-5)


@pytest.mark.parametrize("is_exclusive", [True, False])
def test_temperatures_of_1_change_nothing_and_certain_voxels_stay_finite(is_exclusive):
    certain = np.array([[1, 0], [0, 1]], dtype=np.float32).reshape(2, 2, 1, 1)
    assert calibrated(certain, [1, 1], is_exclusive=is_exclusive) is certain
    softer = calibrated(certain, [3, 3], is_exclusive=is_exclusive)
    assert np.isfinite(softer).all()
    np.testing.assert_allclose(softer, certain, atol=0.01)


def test_expected_calibration_error_by_hand():
    probabilities = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    is_right = np.array([True, False, True, True, False])
    weights = np.array([1.0, 3, 2, 2, 2])
    low = abs(4 * 0.05 - 1)
    high = abs(4 * 0.95 + 2 * 1.0 - 4)
    assert expected_calibration_error(probabilities, is_right, weights) == pytest.approx((low + high) / 10)
    assert expected_calibration_error(probabilities[:0], is_right[:0], weights[:0]) is None


def test_fit_finds_by_how_much_all_classes_are_overconfident():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(20_000, 3))
    classes = drawn(rng, softmax(logits, axis=1))
    samples = [
        sampled(softmax(2.5 * logits[half], axis=1), one_hot_states(classes[half], 3))
        for half in (slice(0, 10_000), slice(10_000, None))
    ]
    result = fit_temperature(samples, labels_of(CLASSES), folds=["0", "1"])
    assert [head.name for head in result.heads] == ["background", "liver", "tumour"]
    assert [head.temperature for head in result.heads] == pytest.approx([2.5] * 3, rel=0.05)
    assert result.ece_after < 0.2 * result.ece_before and result.confidence_ece_after < 0.2 * result.ece_before
    assert result.log_loss_after < result.log_loss_before
    assert (result.n_cases, result.n_voxels, result.folds) == (2, 20_000, ("0", "1"))
    assert all(head.reason is None and head.n_cases == 2 for head in result.heads)


def test_fit_finds_the_temperature_of_each_region():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, size=(20_000, 2))
    states = np.where(rng.random(logits.shape) < expit(logits), 1, -1)
    probabilities = expit(logits * [3, 0.7])
    halves = (slice(0, 10_000), slice(10_000, None))
    samples = [sampled(probabilities[half], states[half], is_exclusive=False) for half in halves]
    result = fit_temperature(samples, region_labels())
    assert [head.temperature for head in result.heads] == pytest.approx([3, 0.7], rel=0.06)
    assert result.heads[0].ece_after < 0.2 * result.heads[0].ece_before
    assert result.confidence_ece_before is None and result.confidence_ece_after is None


def test_fit_of_classes_is_the_minimum_that_another_search_finds():
    rng = np.random.default_rng(2)
    probabilities = softmax(rng.normal(0, 3, size=(3000, 3)), axis=1)
    classes, weights = drawn(rng, probabilities**0.6 / (probabilities**0.6).sum(1, keepdims=True)), rng.random(3000) * 9
    allowed = classes[:, None] == np.arange(3)
    allowed[::4] |= np.arange(3) == 2  # every fourth voxel is "its class or tumour"
    states = np.where(allowed, np.where(allowed.sum(axis=1, keepdims=True) == 1, 1, 0), -1)
    halves = (slice(0, 1500), slice(1500, None))
    samples = [sampled(probabilities[half], states[half], weights[half]) for half in halves]
    result = fit_temperature(samples, labels_of(CLASSES))

    def loss(temperatures):
        powers = probabilities ** (1 / np.asarray(temperatures))
        inside = (powers * allowed).sum(axis=1) / powers.sum(axis=1)
        return -(weights * np.log(inside)).sum() / weights.sum()

    found = [head.temperature for head in result.heads]
    assert result.log_loss_before == pytest.approx(loss([1, 1, 1]), rel=1e-3)
    assert result.log_loss_after == pytest.approx(loss(found), rel=1e-3)
    for factor in (0.97, 1.03):
        for head in range(3):
            other = [value * (factor if row == head else 1) for row, value in enumerate(found)]
            assert loss(found) < loss(other)


def test_undecided_voxels_of_a_region_change_nothing():
    rng = np.random.default_rng(3)
    probabilities, states = rng.random((2000, 2)), rng.choice([-1, 1], size=(2000, 2))
    half = np.arange(2000) < 1000
    known = [sampled(probabilities[part], states[part], is_exclusive=False) for part in (half, ~half)]
    states[:500, 1] = 0
    fewer = [sampled(probabilities[part], states[part], is_exclusive=False) for part in (half, ~half)]
    probabilities[:500, 1] = 0.999
    scrambled = [sampled(probabilities[part], states[part], is_exclusive=False) for part in (half, ~half)]
    results = [fit_temperature(samples, region_labels()) for samples in (known, fewer, scrambled)]
    assert results[1] == results[2]
    assert results[0].heads[0] == results[1].heads[0]


def test_too_little_annotation_keeps_1_and_says_why():
    rng = np.random.default_rng(4)
    probabilities = softmax(rng.normal(0, 2, size=(4000, 3)), axis=1)
    classes = np.where(drawn(rng, probabilities) == 2, 0, drawn(rng, probabilities) % 2)
    halves = (slice(0, 2000), slice(2000, None))
    samples = [sampled(probabilities[half], one_hot_states(classes[half], 3)) for half in halves]
    result = fit_temperature(samples, labels_of(CLASSES))
    *fitted, tumour = result.heads
    assert all(head.reason is None and head.temperature != 1 for head in fitted)
    assert tumour.temperature == 1 and "found 0 sampled voxels that certainly belong to it" in tumour.reason
    one_case = fit_temperature(samples[:1], labels_of(CLASSES))
    assert {head.temperature for head in one_case.heads} == {1} and "in 1 case" in one_case.heads[0].reason
    nothing = fit_temperature([], labels_of(CLASSES))
    assert {head.temperature for head in nothing.heads} == {1}
    assert (nothing.ece_before, nothing.log_loss_after, nothing.n_voxels) == (None, None, 0)


def test_a_network_that_is_always_right_gets_the_lowest_temperature():
    states = one_hot_states(np.arange(3000) % 3, 3)
    right = np.where(states > 0, 0.9, 0.05)
    result = fit_temperature([sampled(right, states)] * 2, labels_of(CLASSES))
    assert all(math.isclose(head.temperature, 0.25, rel_tol=0.2) for head in result.heads)
