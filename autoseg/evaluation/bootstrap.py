"""How far a mean over cases may be off because there are so few of them: percentile bootstrap over cases.

Cases are drawn with replacement, whole: every class of a case comes or stays away together, so the interval of a mean
over classes holds too. The draws follow from the number of cases alone, hence two systems scored on the same cases are
resampled alike, and the difference of their resampled means is the paired bootstrap.

Source: Efron and Tibshirani 1993, chapter 13. ``scipy.stats.bootstrap`` is not used: one resample in which a rare class
has no score makes its interval NaN, its arguments change names between the versions that we support, and it would draw
anew for every class.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from autoseg.core.chunks import chunks

N_RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
CHUNK = 1 << 21
"""Drawn cases held at a time: bounds the temporaries to some 50 MB however many cases there are."""

Interval = tuple[float, float]
"""Lower and upper bound."""
ScoreArray = NDArray[np.float64]


def mean_scores(scores: ScoreArray) -> ScoreArray:
    """Average scores over cases, then over heads.

    Parameters
    ----------
    scores
        (N, H) one row per case, NaN where a head has no score.

    Returns
    -------
    means
        (H + 1,) the mean of each head over the cases that have one, and last the mean over the heads that have one;
        NaN where there is none.
    """
    means: ScoreArray = _weighted_means(np.ones((1, len(scores))), scores)[0]
    return means


def cases_behind(scores: ScoreArray) -> NDArray[np.int64]:
    """(H + 1,) cases with a score of the head; last, cases with a score of any head."""
    known = ~np.isnan(scores)
    return np.append(known.sum(axis=0), known.any(axis=1).sum())


def mean_intervals(scores: ScoreArray) -> list[Interval | None]:
    """Return the 95 % interval of each of :func:`mean_scores`; None where fewer than 2 cases have a score."""
    return _intervals(_resampled_means(scores), cases_behind(scores))


def difference_intervals(scores: ScoreArray, other: ScoreArray) -> list[Interval | None]:
    """Return the 95 % interval of each of ``mean_scores(scores) - mean_scores(other)``, paired by case.

    Both are (N, H), row by row of the same case. None where fewer than 2 cases have a score in either.
    """
    behind = np.minimum(cases_behind(scores), cases_behind(other))
    return _intervals(_resampled_means(scores) - _resampled_means(other), behind)


def _resampled_means(scores: ScoreArray) -> ScoreArray:
    """(N_RESAMPLES, H + 1) :func:`mean_scores` of every resample; empty without a case."""
    if not len(scores):
        return np.zeros((0, scores.shape[1] + 1))
    return np.concatenate([_weighted_means(weights, scores) for weights in _draws(len(scores))])


def _draws(n_cases: int) -> Iterator[ScoreArray]:
    """Yield (R, N): how often each case was drawn in each resample."""
    generator = np.random.default_rng(SEED)
    for chunk in chunks(N_RESAMPLES, max(1, CHUNK // n_cases)):
        n = chunk.stop - chunk.start
        drawn = generator.integers(n_cases, size=(n, n_cases)) + n_cases * np.arange(n)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=n * n_cases).reshape(n, n_cases).astype(np.float64)


def _weighted_means(weights: ScoreArray, scores: ScoreArray) -> ScoreArray:
    """(R, H + 1) means per row of ``weights`` (R, N)."""
    known = ~np.isnan(scores)
    heads = _ratio(weights @ np.where(known, scores, 0.0), weights @ known.astype(np.float64))
    has_score = ~np.isnan(heads)
    mean = _ratio(np.where(has_score, heads, 0.0).sum(axis=1), has_score.sum(axis=1).astype(np.float64))
    return np.column_stack([heads, mean])


def _ratio(total: ScoreArray, count: ScoreArray) -> ScoreArray:
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _intervals(samples: ScoreArray, behind: NDArray[np.int64]) -> list[Interval | None]:
    """Percentiles per column; resamples in which it has no score are left out."""
    tail = 50 * (1 - CONFIDENCE)
    intervals: list[Interval | None] = []
    for column, n_cases in zip(samples.T, behind, strict=True):
        scored = column[~np.isnan(column)]
        if n_cases < 2 or not scored.size:
            intervals.append(None)
        else:
            low, high = np.percentile(scored, (tail, 100 - tail)).tolist()
            intervals.append((low, high))
    return intervals
