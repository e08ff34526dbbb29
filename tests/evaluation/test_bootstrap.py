"""Intervals hold what they promise, are the same every time, and pair what was scored on the same cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autoseg.evaluation import bootstrap
from autoseg.evaluation.bootstrap import difference_intervals, mean_intervals, mean_scores

NAN = float("nan")


def test_means_are_over_existing_scores_only() -> None:
    scores = np.array([[0.2, NAN, NAN], [0.4, 1.0, NAN]])
    np.testing.assert_allclose(mean_scores(scores), [0.3, 1.0, NAN, 0.65])
    assert np.isnan(mean_scores(np.zeros((0, 2)))).all()


def test_percentiles_are_those_of_all_equally_likely_resamples() -> None:
    scores = np.array([0.1031, 0.4127, 0.4571, 0.9213, 0.6984])
    every = [np.mean(drawn) for drawn in itertools.product(scores, repeat=5)]
    (interval, foreground) = mean_intervals(scores[:, None])
    assert interval is not None
    low, high = (np.mean(np.array(every) <= bound) for bound in interval)
    assert low == pytest.approx(0.025, abs=0.008)
    assert high == pytest.approx(0.975, abs=0.008)
    assert foreground == interval


def test_the_interval_covers_the_true_mean_with_about_its_confidence() -> None:
    rng = np.random.default_rng(0)
    intervals = mean_intervals(rng.beta(8, 2, size=(40, 200)))[:-1]
    covered = np.mean([low <= 0.8 <= high for low, high in (interval or (1, 0) for interval in intervals)])
    assert 0.89 <= covered <= 0.98


def test_cases_are_drawn_whole() -> None:
    """Two heads that make up for each other in every case leave no doubt about their mean."""
    first = np.random.default_rng(0).uniform(size=20)
    *heads, foreground = mean_intervals(np.stack([first, 1 - first], axis=1))
    assert foreground == (pytest.approx(0.5), pytest.approx(0.5))
    assert all(high - low > 0.1 for low, high in (interval or (0, 0) for interval in heads))


@pytest.mark.parametrize("chunk", [1, 64, 1 << 21])
def test_the_same_every_time_whatever_the_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "N_RESAMPLES", 500)
    scores = np.random.default_rng(1).uniform(size=(7, 2))
    expected = mean_intervals(scores)
    assert mean_intervals(scores) == expected
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    assert mean_intervals(scores) == expected


def test_fewer_than_two_cases_have_no_interval() -> None:
    scores = np.array([[0.5, NAN, NAN], [0.7, 0.3, NAN], [0.9, NAN, NAN]])
    first, second, third, foreground = mean_intervals(scores)
    assert first is not None
    assert (second, third) == (None, None)
    assert foreground is not None
    assert mean_intervals(np.zeros((0, 2))) == [None] * 3
    assert mean_intervals(np.array([[0.5, 0.6]])) == [None] * 3


def test_a_rare_head_keeps_its_interval() -> None:
    """A quarter and more of the resamples miss both of its cases: they say nothing about it."""
    scores = np.full((20, 2), 0.9)
    scores[2:, 1] = NAN
    scores[:2, 1] = 0.2, 0.6
    assert mean_intervals(scores)[1] == (0.2, 0.6)


def test_a_difference_is_paired() -> None:
    """A small gain in every case is clear although cases differ much more than that."""
    scores = np.random.default_rng(2).uniform(size=(15, 2))
    gain = np.random.default_rng(3).uniform(0.01, 0.03, size=scores.shape)
    for low, high in (interval or (0, 1) for interval in difference_intervals(scores + gain, scores)):
        assert 0.01 <= low < high <= 0.03
    assert difference_intervals(scores, scores) == [(0, 0)] * 3


def test_a_difference_needs_two_cases_on_both_sides() -> None:
    ours, theirs = np.array([[0.5], [0.6], [0.7]]), np.array([[0.5], [NAN], [NAN]])
    assert difference_intervals(ours, theirs) == [None, None]
