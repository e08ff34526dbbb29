"""Statistics of many voxels over many cases in bounded memory: exact moments, and quantiles from a sketch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.json_arrays import JsonFloat32, JsonFloat64

_KNOTS = 32_768
"""Most order statistics kept of a case; a smaller case is kept whole."""

_TAIL = 0.02
"""Half of the knots lie in the lowest and highest 2 %, where the clipping bounds of CT are."""

_MAX_POINTS = 4_194_304
"""Points of all cases of one channel, and of a merged sketch (about 50 MB)."""

_MAX_WAITING = 4_194_304
"""Values of a case that are sorted at once."""


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
    points: JsonFloat32
    """(n,) ascending order statistics."""
    weights: JsonFloat64
    """(n,) how many values each point stands for; they sum to ``count``."""

    def quantiles(self, levels: Sequence[float]) -> NDArray[np.float64]:
        """Return the quantiles at ``levels`` (0..1), linearly interpolated; exact while every value was kept.

        Equals ``np.quantile`` if all weights are whole numbers.
        """
        end, edge = np.cumsum(self.weights), np.minimum(self.weights, 1)
        ranks = np.stack([end - self.weights + (edge - 1) / 2, end - (edge + 1) / 2], axis=1)  # first and last value
        targets = np.asarray(levels) * (self.count - 1)
        return np.interp(targets, ranks.reshape(-1), np.repeat(self.points.astype(np.float64), 2))


class Sketcher:
    """Takes the values of one channel of one case piece by piece; what it keeps is bounded.

    Integers of at most 16 bits are counted, which is exact. Of others every value is kept as long as there are few;
    of more than 4 million the statistics of each such part are, which leaves the moments exact.

    Parameters
    ----------
    n_knots
        Most points of the sketch.
    """

    def __init__(self, n_knots: int = _KNOTS) -> None:
        self._n_knots = n_knots
        self._counts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._lowest = 0
        self._waiting: list[NDArray[Any]] = []
        self._parts: list[Sketch] = []

    def add(self, values: NDArray[Any]) -> None:
        """Take more values, (n,), all pieces of one type; those that are not finite are left out."""
        if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
            self._count(values)
            return
        self._waiting.append(values[np.isfinite(values)])
        if sum(map(len, self._waiting)) > _MAX_WAITING:
            self._sort()

    def finish(self) -> Sketch | None:
        """Return the sketch of all values; None if there were none."""
        if self._counts.any():
            return _of_counts(self._counts, self._lowest, self._n_knots)
        self._sort()
        if len(self._parts) <= 1:
            return self._parts[0] if self._parts else None
        return _pool(self._parts, [part.count for part in self._parts], self._n_knots)

    def _count(self, values: NDArray[Any]) -> None:
        if not self._counts.size:
            limits = np.iinfo(values.dtype)
            self._lowest, self._counts = int(limits.min), np.zeros(int(limits.max) - int(limits.min) + 1, np.int64)
        for start in range(0, values.size, _MAX_WAITING // 4):
            piece = values[start : start + _MAX_WAITING // 4].astype(np.int64)
            self._counts += np.bincount(piece - self._lowest, minlength=self._counts.size)

    def _sort(self) -> None:
        ordered = np.sort(np.concatenate(self._waiting)) if self._waiting else np.zeros(0, dtype=np.float32)
        self._waiting.clear()
        if ordered.size:
            points, weights = _thin(ordered.astype(np.float32, copy=False), np.ones(ordered.size), self._n_knots)
            mean, variance = float(ordered.mean(dtype=np.float64)), float(ordered.var(dtype=np.float64))
            ends = float(ordered[0]), float(ordered[-1])
            self._parts.append(Sketch(float(ordered.size), mean, variance, *ends, points, weights))


def knots_per_case(n_cases: int) -> int:
    """Return how many values a case may keep so that all cases together stay within bounds: 1,024 to 32,768.

    A power of two, so that it hardly ever changes as cases are added.
    """
    most = min(max(_MAX_POINTS // max(n_cases, 1), 1024), _KNOTS)
    return 1 << most.bit_length() - 1


def sketch(values: NDArray[Any], n_knots: int = _KNOTS) -> Sketch | None:
    """Summarise the values (any shape) of one case; values that are not finite are left out. None if none is left."""
    sketcher = Sketcher(n_knots)
    sketcher.add(values.reshape(-1))
    return sketcher.finish()


def merge(sketches: Sequence[Sketch]) -> Sketch:
    """Pool cases with equal weight each, whatever their number of voxels; at least one sketch.

    Source: nnU-Net draws the same number of voxels of every case. The weights keep the sum of the counts, so that the
    quantiles of equally large cases are those of all their voxels together.
    """
    return _pool(sketches, [1.0] * len(sketches), _MAX_POINTS)


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


def _of_counts(counts: NDArray[np.int64], lowest: int, n_knots: int) -> Sketch:
    """Return the sketch of integers, ``counts[i]`` of which are ``lowest + i``."""
    present = np.flatnonzero(counts)
    values, weights = (present + lowest).astype(np.float64), counts[present].astype(np.float64)
    total = float(weights.sum())
    mean = float(values @ weights / total)
    variance = float((values - mean) ** 2 @ weights / total)
    points, weights = _thin(values.astype(np.float32), weights, n_knots)
    return Sketch(total, mean, variance, float(values[0]), float(values[-1]), points, weights)


def _pool(parts: Sequence[Sketch], shares: Sequence[float], n_points: int) -> Sketch:
    """Return all parts as one with the sum of their counts, each with its share; at most about ``n_points`` points."""
    total, whole = sum(part.count for part in parts), sum(shares)
    mean = sum(share * part.mean for share, part in zip(shares, parts, strict=True)) / whole
    spread = [part.variance + (part.mean - mean) ** 2 for part in parts]
    points = np.concatenate([part.points for part in parts])
    weights = np.concatenate(
        [part.weights * (share * total / (whole * part.count)) for share, part in zip(shares, parts, strict=True)]
    )
    points, weights = _collapsed(points, weights)
    if points.size > n_points:
        points, weights = _thin(points, weights, n_points // 2)
    return Sketch(
        count=total,
        mean=mean,
        variance=sum(share * value for share, value in zip(shares, spread, strict=True)) / whole,
        minimum=min(part.minimum for part in parts),
        maximum=max(part.maximum for part in parts),
        points=points,
        weights=weights,
    )


def _collapsed(
    points: NDArray[np.float32], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Sort points and make one of those that are equal, with the sum of their weights."""
    order = np.argsort(points, kind="stable")
    points, weights = points[order], weights[order]
    starts = np.flatnonzero(np.append(True, points[1:] != points[:-1]))
    return points[starts], np.add.reduceat(weights, starts)


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
