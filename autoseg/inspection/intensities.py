"""Intensity statistics of many voxels over many cases in bounded memory: exact moments, quantiles from a sketch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.json_arrays import JsonFloat32, JsonFloat64

_KNOTS = 32_768
"""Largest number of order statistics of a case; a case with fewer values is kept completely."""

_TAIL = 0.02
"""Half of the knots lie in the lowest and highest 2 %, which contain the clipping bounds of CT."""

_MAX_POINTS = 4_194_304
"""Largest number of points of one channel over all cases, and of a merged sketch (about 50 MB)."""

_MAX_WAITING = 4_194_304
"""Number of values of a case that are sorted together."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """Summary of the values of one channel of one or several cases, small enough to store and to send."""

    count: float
    """Number of values (weighted, if cases have weights)."""
    mean: float
    variance: float
    """Population variance, float64."""
    minimum: float
    maximum: float
    points: JsonFloat32
    """(n,) order statistics, ascending."""
    weights: JsonFloat64
    """(n,) number of values that each point stands for; their sum is ``count``."""

    def quantiles(self, levels: Sequence[float]) -> NDArray[np.float64]:
        """Return the quantiles (n,) at n ``levels`` (0 to 1), linearly interpolated; exact while every value is kept.

        Equals ``np.quantile`` if all weights are whole numbers.
        """
        end, edge = np.cumsum(self.weights), np.minimum(self.weights, 1)
        ranks = np.stack([end - self.weights + (edge - 1) / 2, end - (edge + 1) / 2], axis=1)  # first and last value
        targets = np.asarray(levels) * (self.count - 1)
        return np.interp(targets, ranks.reshape(-1), np.repeat(self.points.astype(np.float64), 2))


class Sketcher:
    """Makes the sketch of one channel of one case from its values piece by piece, in bounded memory.

    Integers of at most 16 bits are counted, which is exact. Other values are all kept while they are few. Above 4
    million values each such part becomes a sketch of its own, which leaves the moments exact.

    Parameters
    ----------
    n_knots
        Largest number of points of the sketch.
    """

    def __init__(self, n_knots: int = _KNOTS) -> None:
        self._n_knots = n_knots
        self._counts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._lowest = 0
        self._waiting: list[NDArray[Any]] = []
        self._parts: list[Sketch] = []

    def add(self, values: NDArray[Any]) -> None:
        """Add values (n,), all pieces of the same type; values that are not finite are ignored."""
        if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
            self._count(values)
            return
        self._waiting.append(values[np.isfinite(values)])
        if sum(map(len, self._waiting)) > _MAX_WAITING:
            self._sort()

    def finish(self) -> Sketch | None:
        """Return the sketch of all values; None if there are none."""
        if self._counts.any():
            return _of_counts(self._counts, self._lowest, self._n_knots)
        self._sort()
        if len(self._parts) <= 1:
            return self._parts[0] if self._parts else None
        return _pool(self._parts, [part.count for part in self._parts], self._n_knots)

    def _count(self, values: NDArray[Any]) -> None:
        """Count integers (n,) of at most 16 bits."""
        if not self._counts.size:
            limits = np.iinfo(values.dtype)
            self._lowest, self._counts = int(limits.min), np.zeros(int(limits.max) - int(limits.min) + 1, np.int64)
        for start in range(0, values.size, _MAX_WAITING // 4):
            piece = values[start : start + _MAX_WAITING // 4].astype(np.int64)
            self._counts += np.bincount(piece - self._lowest, minlength=self._counts.size)

    def _sort(self) -> None:
        """Turn all waiting values into a sketch."""
        ordered = np.sort(np.concatenate(self._waiting)) if self._waiting else np.zeros(0, dtype=np.float32)
        self._waiting.clear()
        if ordered.size:
            points, weights = _thin(ordered.astype(np.float32, copy=False), np.ones(ordered.size), self._n_knots)
            mean, variance = float(ordered.mean(dtype=np.float64)), float(ordered.var(dtype=np.float64))
            ends = float(ordered[0]), float(ordered[-1])
            self._parts.append(Sketch(float(ordered.size), mean, variance, *ends, points, weights))


def knots_per_case(n_cases: int) -> int:
    """Return how many points a case may have so that all cases together stay within bounds: 1,024 to 32,768.

    It is a power of two, so that it rarely changes when cases are added.
    """
    most = min(max(_MAX_POINTS // max(n_cases, 1), 1024), _KNOTS)
    return 1 << most.bit_length() - 1


def sketch(values: NDArray[Any], n_knots: int = _KNOTS) -> Sketch | None:
    """Return the sketch of the finite values (any shape) of one case; None if there are none."""
    sketcher = Sketcher(n_knots)
    sketcher.add(values.reshape(-1))
    return sketcher.finish()


def merge(sketches: Sequence[Sketch]) -> Sketch:
    """Merge the sketches of at least one case, with the same weight for each case whatever its number of voxels.

    Source: nnU-Net takes the same number of voxels of every case. The weights keep the sum of the counts, so that the
    quantiles of equally large cases are those of all their voxels together.
    """
    return _pool(sketches, [1.0] * len(sketches), _MAX_POINTS)


def properties(pooled: Sketch) -> IntensityProperties:
    """Return the statistics of nnU-Net's fingerprint (population standard deviation)."""
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
    """Return statistics of values with outliers: mean and deviation after clipping to the percentiles 0.5 and 99.5."""
    plain = properties(pooled)
    clipped = np.clip(pooled.points.astype(np.float64), plain.percentile_00_5, plain.percentile_99_5)
    mean = float(np.average(clipped, weights=pooled.weights))
    variance = float(np.average((clipped - mean) ** 2, weights=pooled.weights))
    return plain.model_copy(update={"mean": mean, "std": float(np.sqrt(variance))})


def _of_counts(counts: NDArray[np.int64], lowest: int, n_knots: int) -> Sketch:
    """Return the sketch of integers; ``counts[i]`` (n,) of them have the value ``lowest + i``."""
    present = np.flatnonzero(counts)
    values, weights = (present + lowest).astype(np.float64), counts[present].astype(np.float64)
    total = float(weights.sum())
    mean = float(values @ weights / total)
    variance = float((values - mean) ** 2 @ weights / total)
    points, weights = _thin(values.astype(np.float32), weights, n_knots)
    return Sketch(total, mean, variance, float(values[0]), float(values[-1]), points, weights)


def _pool(parts: Sequence[Sketch], shares: Sequence[float], n_points: int) -> Sketch:
    """Return one sketch with the sum of all counts and the given share of each part, of about ``n_points`` points."""
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
    """Sort points (n,) and merge equal ones; return points and summed weights, (m,) each with m <= n."""
    order = np.argsort(points, kind="stable")
    points, weights = points[order], weights[order]
    starts = np.flatnonzero(np.append(True, points[1:] != points[:-1]))
    return points[starts], np.add.reduceat(weights, starts)


def _thin(
    points: NDArray[np.float32], weights: NDArray[np.float64], n_knots: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Keep at most about ``n_knots`` of the ascending points (n,), denser in the tails, and the sum of weights (n,)."""
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
