"""Confidence intervals of means over cases, by percentile bootstrap over cases.

Whole cases are drawn with replacement, so that all classes of a case enter a resample together. The interval of a mean
over classes is therefore valid too. The draws depend only on the number of cases. Two systems scored on the same cases
are therefore resampled alike, and the difference of their resampled means is a paired bootstrap.

Source: Efron and Tibshirani 1993, chapter 13. ``scipy.stats.bootstrap`` is not used, for three reasons: a single
resample in which a rare class has no score makes its interval NaN; the names of its arguments differ between the
supported versions; and it would draw different resamples for every class.
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
"""Largest number of drawn cases in memory at a time. Limits temporary arrays to about 50 MB."""

Interval = tuple[float, float]
"""Lower and upper bound."""
ScoreArray = NDArray[np.float64]
"""Scores, usually (N, H): N cases, H heads. NaN for a head without a score."""


def mean_scores(scores: ScoreArray) -> ScoreArray:
    """Average scores over cases, then over heads.

    Parameters
    ----------
    scores
        (N, H), one row per case. NaN if the head has no score in the case.

    Returns
    -------
    means
        (H + 1,): the mean of each head over the cases that have a score, and last the mean of these means. NaN if there
        is no score.
    """
    means: ScoreArray = _weighted_means(np.ones((1, len(scores))), scores)[0]
    return means


def count_cases(scores: ScoreArray) -> NDArray[np.int64]:
    """Return (H + 1,): number of cases with a score of each head, and last with a score of any head.

    ``scores`` is (N, H), NaN without a score.
    """
    known = ~np.isnan(scores)
    return np.append(known.sum(axis=0), known.any(axis=1).sum())


def mean_intervals(scores: ScoreArray) -> list[Interval | None]:
    """Return the H + 1 95 % intervals of :func:`mean_scores` for ``scores`` (N, H).

    An interval is None if fewer than 2 cases have a score.
    """
    return _intervals(_resampled_means(scores), count_cases(scores))


def difference_intervals(scores: ScoreArray, other: ScoreArray) -> list[Interval | None]:
    """Return the H + 1 95 % intervals of ``mean_scores(scores) - mean_scores(other)``, paired by case.

    Both arrays are (N, H), and equal rows belong to the same case. An interval is None if fewer than 2 cases have a
    score in ``scores`` or in ``other``.
    """
    n_cases = np.minimum(count_cases(scores), count_cases(other))
    return _intervals(_resampled_means(scores) - _resampled_means(other), n_cases)


def _resampled_means(scores: ScoreArray) -> ScoreArray:
    """Return (N_RESAMPLES, H + 1): :func:`mean_scores` of every resample of ``scores`` (N, H); (0, H + 1) if N is 0."""
    if not len(scores):
        return np.zeros((0, scores.shape[1] + 1))
    return np.concatenate([_weighted_means(weights, scores) for weights in _draws(len(scores))])


def _draws(n_cases: int) -> Iterator[ScoreArray]:
    """Yield (R, N) float64: number of times that each of N cases was drawn in each of R resamples."""
    generator = np.random.default_rng(SEED)
    for chunk in chunks(N_RESAMPLES, max(1, CHUNK // n_cases)):
        n = chunk.stop - chunk.start
        drawn = generator.integers(n_cases, size=(n, n_cases)) + n_cases * np.arange(n)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=n * n_cases).reshape(n, n_cases).astype(np.float64)


def _weighted_means(weights: ScoreArray, scores: ScoreArray) -> ScoreArray:
    """Return (R, H + 1): means of ``scores`` (N, H) as in :func:`mean_scores`, for each row of ``weights`` (R, N)."""
    known = ~np.isnan(scores)
    heads = _ratio(weights @ np.where(known, scores, 0.0), weights @ known.astype(np.float64))
    has_score = ~np.isnan(heads)
    mean = _ratio(np.where(has_score, heads, 0.0).sum(axis=1), has_score.sum(axis=1).astype(np.float64))
    return np.column_stack([heads, mean])


def _ratio(total: ScoreArray, count: ScoreArray) -> ScoreArray:
    """Return ``total / count`` for arrays of one shape; NaN where ``count`` is 0."""
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _intervals(samples: ScoreArray, n_cases_per_column: NDArray[np.int64]) -> list[Interval | None]:
    """Return the interval of each column of ``samples`` (R, H + 1), without its NaN; None for fewer than 2 cases.

    ``n_cases_per_column`` is (H + 1,).
    """
    tail = 50 * (1 - CONFIDENCE)
    intervals: list[Interval | None] = []
    for column, n_cases in zip(samples.T, n_cases_per_column, strict=True):
        scored = column[~np.isnan(column)]
        if n_cases < 2 or not scored.size:
            intervals.append(None)
        else:
            low, high = np.percentile(scored, (tail, 100 - tail)).tolist()
            intervals.append((low, high))
    return intervals
