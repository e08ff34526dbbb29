"""The Dice of a case is predicted by a monotone curve, with an interval that holds what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.evaluation.predicted_dice import LEAST_PAIRS, Pair, conformal_half_width, fit_curves, isotonic


def pairs_of(n, rng, *, slope=1.0, noise=0.05, scored_on="dense"):
    confidence = rng.uniform(0.3, 1.0, n)
    dice = np.clip(slope * confidence - 0.1 + rng.normal(0, noise, n), 0, 1)
    return [Pair(float(c), float(d), scored_on) for c, d in zip(confidence, dice, strict=True)]


def test_the_curve_is_the_monotone_one_of_least_squares():
    knots, values = isotonic(np.array([0.1, 0.3, 0.2, 0.3]), np.array([0.0, 0.5, 0.9, 0.7]))
    np.testing.assert_allclose(knots, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(values, [0.0, 0.7, 0.7])  # the pairs at 0.2 and 0.3 violate the order: their mean


@pytest.mark.parametrize(("n", "rank"), [(9, 9), (19, 18), (99, 90)])
def test_the_half_width_is_the_conformal_quantile(n, rank):
    """ceil((n + 1) * 0.9)-th smallest, by hand."""
    residuals = np.arange(1, n + 1) / 100 * np.where(np.arange(n) % 2, 1, -1)
    assert conformal_half_width(residuals) == pytest.approx(rank / 100)


def test_too_few_residuals_promise_nothing():
    assert conformal_half_width(np.zeros(8)) == 1.0


def test_the_interval_holds_nine_of_ten_new_cases():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(40):
        (curve,) = fit_curves({"organ": pairs_of(40, rng)})
        estimates = [(curve.estimate(pair.confidence), pair.dice) for pair in pairs_of(50, rng)]
        covered += [estimate.low <= dice <= estimate.high for estimate, dice in estimates]
        assert all(0 <= estimate.low <= estimate.dice <= estimate.high <= 1 for estimate, _ in estimates)
    assert 0.87 < np.mean(covered) < 0.94


def test_a_class_with_few_pairs_takes_the_curve_of_all_moved_to_its_own():
    rng = np.random.default_rng(1)
    many = pairs_of(60, rng, noise=0.01)
    few = [
        Pair(pair.confidence, pair.dice - 0.2, pair.scored_on) for pair in pairs_of(LEAST_PAIRS - 1, rng, noise=0.01)
    ]
    own, shared = fit_curves({"liver": many, "vein": few})
    assert not own.is_shared
    assert shared.is_shared
    assert shared.half_width > own.half_width
    difference = own.estimate(0.8).dice - shared.estimate(0.8).dice
    assert 0.05 < difference < 0.2  # between nothing and all of the shift, since few pairs say so


def test_without_enough_pairs_there_is_no_prediction_and_the_reason_says_so():
    rng = np.random.default_rng(2)
    curves = fit_curves({"liver": pairs_of(LEAST_PAIRS - 1, rng), "vein": []})
    assert [curve.estimate(0.9) for curve in curves] == [None, None]
    assert "9 cases" in curves[0].reason
    assert "at least 10" in curves[1].reason


def test_a_class_that_was_never_predicted_gets_no_curve_of_the_others():
    _, unknown = fit_curves({"liver": pairs_of(30, np.random.default_rng(0)), "vein": []})
    assert unknown.estimate(0.9) is None


def test_dice_on_annotated_voxels_is_called_so_and_never_mixed_with_enough_dense_ones():
    rng = np.random.default_rng(3)
    dense, sparse = pairs_of(20, rng), pairs_of(20, rng, slope=0.1, scored_on="annotated voxels")
    both, alone = fit_curves({"a": [*dense, *sparse], "b": sparse})
    assert (both.scored_on, alone.scored_on) == ("dense", "annotated voxels")
    assert both.estimate(1.0).dice > 0.8
    (few,) = fit_curves({"a": [*dense[:5], *sparse]})
    assert few.scored_on == "annotated voxels"


def test_a_long_curve_is_stored_with_few_knots_and_stays_monotone():
    (curve,) = fit_curves({"organ": pairs_of(400, np.random.default_rng(4), noise=0.001)})
    assert len(curve.confidence) <= 50
    assert list(curve.dice) == sorted(curve.dice)
    assert curve.estimate(0.65).dice == pytest.approx(0.55, abs=0.01)
