"""Statistics of many voxels over many cases in bounded memory: exact moments, and quantiles from a sketch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.fingerprint import IntensityProperties

_KNOTS = 32_768
"""Most order statistics kept of a case; a smaller case is kept whole."""

_TAIL = 0.02
"""Half of the knots lie in the lowest and highest 2 %, where the clipping bounds of CT are."""

_MAX_POINTS = 4_194_304
"""Points of all cases of one channel, and of a merged sketch (about 50 MB)."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """The values of one channel of one case, or of several, small enough to send and to keep."""

    count: float
    """Values seen (weighted, if cases were weighted)."""
    mean: float
    variance: float
    """Population variance, float64."""
    minimum: float
    maximum: float
    points: NDArray[np.float32]
    """(n,) ascending order statistics."""
    weights: NDArray[np.float64]
    """(n,) how many values each point stands for; they sum to ``count``."""

    def quantiles(self, levels: Sequence[float]) -> NDArray[np.float64]:
        """Return the quantiles at ``levels`` (0..1), linearly interpolated; exact while every value was kept.

        Equals ``np.quantile`` if all weights are 1.
        """
        positions = np.cumsum(self.weights) - (self.weights + 1) / 2
        targets = np.asarray(levels) * (self.count - 1)
        return np.interp(targets, positions, self.points.astype(np.float64))


def knots_per_case(n_cases: int) -> int:
    """Return how many values a case may keep so that all cases together stay within bounds: 1,024 to 32,768."""
    return min(max(_MAX_POINTS // max(n_cases, 1), 1024), _KNOTS)


def sketch(values: NDArray[np.floating], n_knots: int = _KNOTS) -> Sketch | None:
    """Summarise the values (any shape) of one case; values that are not finite are left out. None if none is left."""
    ordered = np.sort(values[np.isfinite(values)], axis=None)
    if ordered.size == 0:
        return None
    points, weights = _thin(ordered.astype(np.float32, copy=False), np.ones(ordered.size), n_knots)
    return Sketch(
        count=float(ordered.size),
        mean=float(ordered.mean(dtype=np.float64)),
        variance=float(ordered.var(dtype=np.float64)),
        minimum=float(ordered[0]),
        maximum=float(ordered[-1]),
        points=points,
        weights=weights,
    )


def merge(sketches: Sequence[Sketch]) -> Sketch:
    """Pool cases with equal weight each, whatever their number of voxels; at least one sketch.

    Source: nnU-Net draws the same number of voxels of every case. The weights keep the sum of the counts, so that the
    quantiles of equally large cases are those of all their voxels together.
    """
    total = sum(part.count for part in sketches)
    share = total / len(sketches)
    mean = float(np.mean([part.mean for part in sketches]))
    variance = float(np.mean([part.variance + (part.mean - mean) ** 2 for part in sketches]))
    points = np.concatenate([part.points for part in sketches])
    weights = np.concatenate([part.weights * (share / part.count) for part in sketches])
    order = np.argsort(points, kind="stable")
    points, weights = points[order], weights[order]
    if points.size > _MAX_POINTS:
        points, weights = _thin(points, weights, _MAX_POINTS // 2)
    return Sketch(
        count=total,
        mean=mean,
        variance=variance,
        minimum=min(part.minimum for part in sketches),
        maximum=max(part.maximum for part in sketches),
        points=points,
        weights=weights,
    )


def properties(pooled: Sketch) -> IntensityProperties:
    """Statistics as nnU-Net's fingerprint has them (population standard deviation)."""
    low, median, high = (float(value) for value in pooled.quantiles((0.005, 0.5, 0.995)))
    return IntensityProperties(
        mean=pooled.mean,
        median=median,
        std=float(np.sqrt(pooled.variance)),
        min=pooled.minimum,
        max=pooled.maximum,
        percentile_99_5=high,
        percentile_00_5=low,
    )


def robust_properties(pooled: Sketch) -> IntensityProperties:
    """Statistics of a mixture with outliers: mean and deviation of values clipped to their 0.5 and 99.5 percentiles."""
    plain = properties(pooled)
    clipped = np.clip(pooled.points.astype(np.float64), plain.percentile_00_5, plain.percentile_99_5)
    mean = float(np.average(clipped, weights=pooled.weights))
    variance = float(np.average((clipped - mean) ** 2, weights=pooled.weights))
    return plain.model_copy(update={"mean": mean, "std": float(np.sqrt(variance))})


def _thin(
    points: NDArray[np.float32], weights: NDArray[np.float64], n_knots: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Keep at most about ``n_knots`` of the ascending points, denser in the tails; the total weight stays."""
    if points.size <= n_knots:
        return points, weights
    cumulative = np.cumsum(weights)
    tail = n_knots // 4
    edges = np.concatenate(
        [
            np.linspace(0, _TAIL, tail, endpoint=False),
            np.linspace(_TAIL, 1 - _TAIL, n_knots - 2 * tail, endpoint=False),
            np.linspace(1 - _TAIL, 1, tail + 1),
        ]
    )
    middles = (edges[1:] + edges[:-1]) / 2 * cumulative[-1]
    chosen = np.minimum(np.searchsorted(cumulative, middles), points.size - 1)
    return points[chosen], np.diff(edges) * cumulative[-1]
