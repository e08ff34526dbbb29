"""Images unlike those of the training are flagged, with the reason, and like ones seldom."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.evaluation import likeness
from autoseg.evaluation.likeness import (
    LEAST_CASES,
    CaseFeatures,
    fit_likeness,
    shrunk_covariance,
    upper_level,
)


def features(rng, *, spacing=(2.0, 1.0, 1.0), size=(60.0, 90.0, 90.0), shift=0.0, detail=0.0):
    quantiles = np.array([-2, -1.5, -0.6, 0, 0.6, 1.5, 2]) * rng.normal(1, 0.1) + shift
    octaves = np.array([-3, -2.5, -2, -1.5, -1]) + rng.normal(0, 0.2, 5) + detail
    grown = np.array(size) * np.exp(rng.normal(0, 0.05, 3))
    return CaseFeatures(spacing=spacing, size=tuple(grown), intensity=(tuple(quantiles),), texture=(tuple(octaves),))


def training(n, seed=0):
    rng = np.random.default_rng(seed)
    return {f"case{index}": features(rng) for index in range(n)}


@pytest.mark.parametrize("n", [6, 40, 120])
def test_few_of_the_images_like_the_training_are_flagged(n):
    """About 5 %, or 1 in n + 1 of few cases; the mean over drawn training sets."""
    flagged = []
    for seed in range(12):
        likeness = fit_likeness(training(n, seed), ["MR"])
        rng = np.random.default_rng(1000 + seed)
        flagged += [likeness.judge(features(rng)).is_unlike for _ in range(60)]
    assert np.mean(flagged) < max(0.1, 1.8 / (n + 1))


def varied(rng, shift=0.0):
    """Return the features of a case of a site where spacing, size, intensity and detail all vary."""
    spacing = tuple(np.array([2.0, 1.0, 1.0]) * np.exp(rng.normal(0, 0.4, 3)))
    size = np.array([60.0, 90.0, 90.0]) * np.exp(rng.normal(0, 0.5, 3))
    return features(rng, spacing=spacing, size=tuple(size), shift=shift + rng.normal(0, 0.1))


@pytest.mark.parametrize("n", [LEAST_CASES, 6, 15, 40])
def test_four_distances_together_flag_no_more_than_one_may(n):
    """About 1 in n + 1 at most, or 5 % of many, though each distance has a level of its own; others still are."""
    flagged, others = [], []
    for seed in range(40 if n < 40 else 10):
        rng = np.random.default_rng(seed)
        likeness = fit_likeness({str(index): varied(rng) for index in range(n)}, ["MR"])
        flagged += [likeness.judge(varied(rng)).is_unlike for _ in range(20)]
        others += [likeness.judge(varied(rng, shift=4.0)).is_unlike for _ in range(5)]
    allowed = max(0.05, 1 / (n + 1))
    assert np.mean(flagged) < allowed + 0.03
    assert np.mean(others) > (0.9 if n > LEAST_CASES else 0.75)


@pytest.mark.parametrize("n", [LEAST_CASES, 30])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spacing": (6.0, 1.0, 1.0)}, ("spacing", "along z is 6 mm", "2 to 2 mm")),
        ({"size": (60.0, 900.0, 90.0)}, ("field of view along y",)),
        ({"shift": 4.0}, ("intensity", "quantile of the normalised intensity of channel MR")),
        ({"detail": 4.0}, ("appearance", "detail of", "of channel MR")),
    ],
    ids=lambda item: next(iter(item)) if isinstance(item, dict) else "",
)
def test_an_image_that_differs_in_one_thing_is_flagged_for_it(n, change, words):
    verdict = fit_likeness(training(n), ["MR"]).judge(features(np.random.default_rng(99), **change))
    assert verdict.is_unlike
    assert verdict.score > 1
    for word in words:
        assert word in verdict.reason


def test_equal_spacings_allow_for_small_differences():
    likeness = fit_likeness(training(20), ["MR"])
    near = likeness.judge(features(np.random.default_rng(5), spacing=(2.1, 1.05, 1.0)))
    assert "spacing" not in near.reason


def test_too_few_cases_give_no_verdict_and_say_so():
    likeness = fit_likeness(training(LEAST_CASES - 1), ["MR"])
    assert likeness.judge(features(np.random.default_rng(0))) is None
    assert "3 training cases" in likeness.reason


def test_equal_images_do_not_divide_by_zero():
    one = features(np.random.default_rng(0))
    likeness = fit_likeness({str(index): one for index in range(8)}, ["MR"])
    verdict = likeness.judge(one)
    assert verdict.score < 1
    assert not verdict.is_unlike
    assert verdict.reason == ""


def test_a_likeness_survives_its_file():
    likeness = fit_likeness(training(9), ["MR"])
    case = features(np.random.default_rng(3), shift=1.0)
    again = type(likeness).model_validate_json(likeness.model_dump_json())
    assert again.judge(case) == likeness.judge(case)


def test_the_covariance_of_many_cases_is_hardly_shrunk_and_that_of_few_strongly():
    rng = np.random.default_rng(0)
    root = np.array([[1.0, 0.0], [0.9, 0.436]])
    many, few = rng.normal(size=(5000, 2)) @ root.T, rng.normal(size=(4, 2)) @ root.T
    assert shrunk_covariance(many - many.mean(0))[0, 1] == pytest.approx(0.9, abs=0.05)
    few = few - few.mean(0)
    assert abs(shrunk_covariance(few)[0, 1]) < abs((few.T @ few / 4)[0, 1])


@pytest.mark.parametrize(("n", "rank"), [(5, 5), (18, 18), (19, 19), (39, 38), (199, 190)])
def test_the_level_is_the_conformal_quantile_and_the_largest_value_of_few(n, rank):
    assert upper_level(np.arange(1.0, n + 1)) == rank


def test_of_many_cases_some_are_left_out_and_the_level_stays(monkeypatch):
    """Levels of 200 and of 120 left-out distances are quantiles of the same distribution."""
    rng = np.random.default_rng(0)
    cases = {
        f"c{index}": CaseFeatures(
            spacing=(1.0, 1.0), size=(64.0, 64.0), intensity=(tuple(rng.normal(size=7)),),
            texture=(tuple(rng.normal(size=5)),),
        )
        for index in range(200)
    }  # fmt: skip
    every = fit_likeness(cases, ["a"])
    monkeypatch.setattr(likeness, "MOST_LEFT_OUT", 120)
    some = fit_likeness(cases, ["a"])
    assert some != every and some.n_cases == 200
    for one, other in zip(every.distances, some.distances, strict=True):
        assert one.mean == other.mean and other.level == pytest.approx(one.level, rel=0.15)
