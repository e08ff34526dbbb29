"""Metrics of a regression in one case, over the voxels where the reference knows a number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.core.arrays import Float32Array

NO_VOXEL = "no voxel with a known number"
CONSTANT = "all known numbers are the same, so there is no Pearson and no R2"
CONSTANT_PREDICTION = "all predicted numbers are the same, so there is no Pearson"


class NumberMetrics(BaseModel):
    """Metrics of one target, in the units of its files; null where they cannot be computed."""

    model_config = ConfigDict(frozen=True)

    RMSE: float | None
    """Root of the mean squared error."""
    MAE: float | None
    """Mean absolute error."""
    Pearson: float | None
    """Correlation of predicted and true numbers, -1 to 1."""
    R2: float | None
    """1 minus the squared errors divided by the squared differences of the true numbers to their mean; at most 1."""
    n_known: int
    """Voxels where the reference knows a number."""


@dataclass(frozen=True, slots=True)
class ErrorSums:
    """Sums over the known voxels of one target; those of several cases add up by :meth:`pooled`."""

    n: int = 0
    mean: float = 0.0
    """Of the true numbers t."""
    predicted_mean: float = 0.0
    """Of the predicted numbers p."""
    variation: float = 0.0
    """Of squared differences of t to its mean."""
    predicted_variation: float = 0.0
    covariation: float = 0.0
    """Of products of the differences of t and p to their means."""
    squared: float = 0.0
    """Of (p - t) squared."""
    absolute: float = 0.0
    """Of the absolute value of p - t."""

    @classmethod
    def of(cls, reference: Float32Array, prediction: Float32Array) -> ErrorSums:
        """Sum over the known voxels of a reference (*S), NaN where unknown; the prediction (*S) is finite there."""
        is_known = ~np.isnan(reference)
        true, predicted = reference[is_known].astype(np.float64), prediction[is_known].astype(np.float64)
        if not true.size:
            return cls()
        mean, predicted_mean = float(true.mean()), float(predicted.mean())
        if true.min() == true.max():
            mean = float(true[0])  # so that rounding is no variation
        if predicted.min() == predicted.max():
            predicted_mean = float(predicted[0])
        error, own, theirs = predicted - true, true - mean, predicted - predicted_mean
        return cls(
            true.size, mean, predicted_mean, float(own @ own), float(theirs @ theirs), float(own @ theirs),
            float(error @ error), float(np.abs(error).sum()),
        )  # fmt: skip

    @classmethod
    def pooled(cls, cases: Iterable[ErrorSums]) -> ErrorSums:
        """Return the sums over the voxels of all cases together."""
        known = [case for case in cases if case.n]
        n = sum(case.n for case in known)
        if not n:
            return cls()
        mean = math.fsum(case.n * case.mean for case in known) / n
        predicted_mean = math.fsum(case.n * case.predicted_mean for case in known) / n
        shifts = [(case.mean - mean, case.predicted_mean - predicted_mean) for case in known]
        pairs = list(zip(known, shifts, strict=True))
        return cls(
            n,
            mean,
            predicted_mean,
            math.fsum(case.variation + case.n * own**2 for case, (own, _) in pairs),
            math.fsum(case.predicted_variation + case.n * theirs**2 for case, (_, theirs) in pairs),
            math.fsum(case.covariation + case.n * own * theirs for case, (own, theirs) in pairs),
            math.fsum(case.squared for case in known),
            math.fsum(case.absolute for case in known),
        )

    @property
    def metrics(self) -> NumberMetrics:
        """The metrics that follow."""
        if not self.n:
            return NumberMetrics(RMSE=None, MAE=None, Pearson=None, R2=None, n_known=0)
        product = math.sqrt(self.variation) * math.sqrt(self.predicted_variation)
        return NumberMetrics(
            RMSE=math.sqrt(self.squared / self.n),
            MAE=self.absolute / self.n,
            Pearson=min(1.0, max(-1.0, self.covariation / product)) if product else None,
            R2=1 - self.squared / self.variation if self.variation else None,
            n_known=self.n,
        )

    @property
    def reason(self) -> str | None:
        """Why a metric is null; None if none is."""
        if not self.n:
            return NO_VOXEL
        if not self.variation:
            return CONSTANT
        return None if self.predicted_variation else CONSTANT_PREDICTION
