"""Pooled statistics against NumPy on all values."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.inspection import intensities
from autoseg.inspection.intensities import Sketcher, merge, properties, robust_properties, sketch

LEVELS = (0.0, 0.005, 0.1, 0.5, 0.9, 0.995, 1.0)


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_small_cases_are_exact(n):
    values = np.random.default_rng(0).normal(size=n).astype(np.float32)
    np.testing.assert_allclose(sketch(values).quantiles(LEVELS), np.quantile(values.astype(float), LEVELS), rtol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "lognormal", "integers"])
def test_large_cases_are_within_a_thousandth(kind):
    rng = np.random.default_rng(1)
    values = {
        "normal": rng.normal(100, 20, 400_000),
        "lognormal": rng.lognormal(3, 1, 400_000),
        "integers": rng.integers(-1000, 1500, 400_000),
    }[kind].astype(np.float32)
    found = properties(sketch(values))
    expected = np.percentile(values.astype(float), (0.5, 50, 99.5))
    np.testing.assert_allclose((found.percentile_00_5, found.median, found.percentile_99_5), expected, rtol=1e-3)
    np.testing.assert_allclose((found.mean, found.std), (values.mean(dtype=float), values.std(dtype=float)), rtol=1e-9)
    assert (found.min, found.max) == (values.min(), values.max())


def test_sketch_is_bounded_whatever_the_number_of_voxels():
    pooled = sketch(np.arange(1_000_000, dtype=np.float32))
    assert pooled.points.size <= 32_768
    assert pooled.weights.sum() == pytest.approx(1_000_000)


def test_equally_large_cases_pool_to_the_statistics_of_all_values():
    parts = np.random.default_rng(2).normal(size=(4, 500)).astype(np.float32)
    found = properties(merge([sketch(part) for part in parts]))
    everything = parts.astype(float).ravel()
    np.testing.assert_allclose((found.mean, found.std), (everything.mean(), everything.std()), rtol=1e-6)
    expected = np.percentile(everything, (0.5, 50, 99.5))
    np.testing.assert_allclose((found.percentile_00_5, found.median, found.percentile_99_5), expected, rtol=1e-5)


def test_every_case_weighs_the_same_whatever_its_size():
    few, many = np.full(10, 0.0, np.float32), np.full(10_000, 1.0, np.float32)
    found = properties(merge([sketch(few), sketch(many)]))
    assert (found.mean, found.std) == (0.5, 0.5)


def test_values_that_are_not_finite_are_left_out():
    assert sketch(np.array([np.nan, np.inf, 2.0])).mean == 2.0
    assert sketch(np.array([np.nan])) is None
    assert sketch(np.empty((0, 3))) is None


def test_robust_statistics_do_not_see_outliers():
    values = np.full(10_000, 5.0, np.float32)
    values[:1000] = 6
    values[:20] = 1e6
    found = robust_properties(sketch(values))
    assert found.mean == pytest.approx(5.1)
    assert found.std == pytest.approx(0.3)
    assert found.max == 1e6


def test_merging_many_large_cases_stays_bounded(monkeypatch):
    monkeypatch.setattr("autoseg.inspection.intensities._MAX_POINTS", 40_000)
    rng = np.random.default_rng(3)
    parts = [rng.normal(10, 1, 30_000).astype(np.float32) for _ in range(3)]
    pooled = merge([sketch(part) for part in parts])
    assert pooled.points.size <= 20_000
    np.testing.assert_allclose(pooled.quantiles((0.005, 0.5)), np.quantile(parts, (0.005, 0.5)), rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16])
def test_small_integers_are_counted_exactly_however_many_there_are(dtype):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal((limits.max + limits.min) / 2, 30, 300_000), limits.min, limits.max).astype(dtype)
    sketcher = Sketcher()
    for piece in np.array_split(values, 7):
        sketcher.add(piece)
    found = sketcher.finish()
    np.testing.assert_allclose(found.quantiles(LEVELS), np.quantile(values.astype(float), LEVELS), rtol=1e-12)
    np.testing.assert_allclose((found.mean, found.variance), (values.mean(), values.var(dtype=float)), rtol=1e-9)
    assert (found.minimum, found.maximum, found.count) == (values.min(), values.max(), values.size)
    assert found.points.size == len(np.unique(values))


def test_cases_of_integers_merge_to_the_values_that_occur():
    parts = np.random.default_rng(0).integers(-50, 50, (5, 2000)).astype(np.int16)
    pooled = merge([sketch(part) for part in parts])
    assert pooled.points.size == 100
    np.testing.assert_allclose(pooled.quantiles(LEVELS), np.quantile(parts.astype(float), LEVELS), rtol=1e-12)


def test_floats_in_many_pieces_are_within_a_thousandth_and_their_moments_exact(monkeypatch):
    monkeypatch.setattr(intensities, "_MAX_WAITING", 50_000)
    values = np.random.default_rng(1).normal(100, 20, 600_000).astype(np.float32)
    values[::1000] = np.nan
    sketcher = Sketcher()
    for piece in np.array_split(np.sort(values), 20):  # each piece has values of its own
        sketcher.add(piece)
    found, kept = sketcher.finish(), values[np.isfinite(values)].astype(float)
    assert found.points.size <= 32_768
    np.testing.assert_allclose(found.quantiles(LEVELS[1:-1]), np.quantile(kept, LEVELS[1:-1]), rtol=1e-3)
    np.testing.assert_allclose((found.mean, found.variance), (kept.mean(), kept.var()), rtol=1e-9)
    assert (found.minimum, found.maximum, found.count) == (kept.min(), kept.max(), kept.size)


def test_no_values_give_no_sketch():
    sketcher = Sketcher()
    sketcher.add(np.zeros(0, np.int16))
    assert sketcher.finish() is None
