"""Calibration of an ensemble, and estimates of the quality of its predictions, for ``measure_seeds.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]

N_BINS = 15
"""Equal bins of confidence, 0 to 1. Source: Guo et al. 2017, arXiv 1706.04599."""
MARGIN = 3
"""Voxels around the foreground of the reference that count as near it."""
ESTIMATES = ("pairs", "soft_dice", "entropy", "information")
"""Names of the estimates of a case's quality, each higher where the case should be better."""
RESAMPLES = 2000
"""Bootstrap samples of the interval of a rank correlation."""


@dataclass(frozen=True)
class Calibration:
    """Sums over voxels from which calibration errors follow; those of several cases add up."""

    bins: Floats
    """(3, N_BINS): number of voxels, sum of their confidences, number of right ones."""
    log_loss: float
    """Sum over voxels of -log of the probability of the true class."""

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(self.bins + other.bins, self.log_loss + other.log_loss)

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1: mean of |confidence - share of right voxels| of the bins; 0 if empty."""
        number, confidence, right = self.bins
        return float(np.abs(confidence - right).sum() / max(1.0, number.sum()))

    @property
    def mean_log_loss(self) -> float:
        """Mean over voxels of -log of the probability of the true class; 0 if empty."""
        return self.log_loss / max(1.0, float(self.bins[0].sum()))


@dataclass(frozen=True)
class CaseScores:
    """Truth and estimates of one case."""

    dice: float
    """Mean Dice over foreground classes, 0 to 1; NaN if no class is there or predicted."""
    estimates: Mapping[str, float]
    """``ESTIMATES``; NaN where one is not defined: no foreground predicted, or a single member."""
    everywhere: Calibration
    near: Calibration
    """Of the voxels within ``MARGIN`` of the reference's foreground."""


def calibration(probabilities: Floats, reference: Labels) -> Calibration:
    """Return the sums for probabilities (K, n) of K classes in n voxels, whose classes are ``reference`` (n,)."""
    confidence = probabilities.max(axis=0).astype(np.float64)
    right = probabilities.argmax(axis=0) == reference
    index = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    bins = np.stack(
        [np.bincount(index, weights=weights, minlength=N_BINS) for weights in (np.ones(len(index)), confidence, right)]
    )
    true = np.take_along_axis(probabilities, reference[None].astype(int), axis=0).astype(np.float64)
    return Calibration(bins, float(-np.log(np.maximum(true, 1e-7)).sum()))


def score_case(members: Sequence[Floats], reference: Labels) -> CaseScores:
    """Score the mean of the members' probabilities (K, *S), background first, against the classes (*S) of a case."""
    mean = np.mean(members, axis=0, dtype=np.float64)
    predicted = mean.argmax(axis=0)
    near = reference > 0
    if near.any():
        near = ndimage.binary_dilation(near, iterations=MARGIN)
    n_classes = len(mean)
    return CaseScores(
        mean_dice(predicted, reference, n_classes),
        quality_estimates(members, mean, predicted),
        calibration(mean.reshape(n_classes, -1), reference.ravel()),
        calibration(mean[:, near], reference[near]),
    )


def quality_estimates(members: Sequence[Floats], mean: Floats, predicted: Labels) -> dict[str, float]:
    """Return ``ESTIMATES`` of a case from its members (K, *S), their mean and its classes (*S).

    ``pairs``: Dice of two members, mean over pairs (Jungo et al., MedIA 101:103392). ``soft_dice``: 2 sum p y /
    (sum p + sum y), mean over predicted classes (arXiv 2402.10665). ``entropy``, ``information``: minus the sums over
    voxels of the predictive entropy and of its part that is disagreement of members (mutual information), both divided
    by the number of predicted foreground voxels.
    """
    n_classes = len(mean)
    decided = [member.argmax(axis=0) for member in members]
    pairs = [mean_dice(one, other, n_classes) for one, other in combinations(decided, 2)]
    soft = [
        2 * mean[k][predicted == k].sum() / (mean[k].sum() + (predicted == k).sum())
        for k in range(1, n_classes) if (predicted == k).any()
    ]  # fmt: skip
    size = float((predicted > 0).sum())
    total = float(entropy(mean).sum())
    expected = float(np.mean([entropy(member.astype(np.float64)).sum() for member in members]))
    return {
        "pairs": float(np.mean(pairs)) if pairs else np.nan,
        "soft_dice": float(np.mean(soft)) if soft else np.nan,
        "entropy": -total / size if size else np.nan,
        "information": (expected - total) / size if size and pairs else np.nan,
    }


def entropy(probabilities: Floats) -> Floats:
    """Return the entropy (*S), in nats, of probabilities (K, *S)."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    result: Floats = -(probabilities * logs).sum(axis=0)
    return result


def mean_dice(one: Labels, other: Labels, n_classes: int) -> float:
    """Return the mean Dice over the foreground classes that are in ``one`` or ``other``; NaN if none is."""
    scores = []
    for k in range(1, n_classes):
        total = (one == k).sum() + (other == k).sum()
        if total:
            scores.append(2 * ((one == k) & (other == k)).sum() / total)
    return float(np.mean(scores)) if scores else np.nan


def rank_correlation(estimates: Sequence[float], dice: Sequence[float]) -> float:
    """Return Spearman's correlation over the cases where both are defined.

    NaN if fewer than three cases are left, or all values of one side are equal.
    """
    return _spearman(_defined(estimates, dice))


def correlation_interval(estimates: Sequence[float], dice: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the rank correlation, by bootstrap over cases; NaN where that is NaN."""
    pairs = _defined(estimates, dice)
    rng = np.random.default_rng(0)
    n_cases = pairs.shape[1]
    values = [_spearman(pairs[:, rng.integers(0, n_cases, n_cases)]) for _ in range(RESAMPLES if n_cases else 0)]
    known = [value for value in values if not np.isnan(value)]
    low, high = np.quantile(known, (0.025, 0.975)) if known else (np.nan, np.nan)
    return float(low), float(high)


def _defined(estimates: Sequence[float], dice: Sequence[float]) -> Floats:
    pairs = np.array([estimates, dice], dtype=float)
    return pairs[:, ~np.isnan(pairs).any(axis=0)]


def _spearman(pairs: Floats) -> float:
    if pairs.shape[1] < 3 or np.ptp(pairs, axis=1).min() == 0:
        return np.nan
    return float(np.corrcoef(stats.rankdata(pairs, axis=1))[0, 1])


def markdown(rows: Mapping[str, Sequence[Sequence[CaseScores]]]) -> str:
    """Return a table with a row for each title; of several ensembles under one title medians and ranges."""
    header = (
        "members", "Dice", "ECE, %", f"ECE within {MARGIN} voxels, %", f"log loss within {MARGIN} voxels",
        "rank correlation with Dice: pairs of members", "soft Dice", "entropy", "disagreement",
    )  # fmt: skip
    lines = [f"| {' | '.join(header)} |", "|---" + "|---:" * (len(header) - 1) + "|"]
    for title, ensembles in rows.items():
        lines.append(f"| {' | '.join([title, *_cells(ensembles)])} |")
    return "\n".join(lines)


def _cells(ensembles: Sequence[Sequence[CaseScores]]) -> list[str]:
    dice = [float(np.nanmean([case.dice for case in cases])) for cases in ensembles]
    everywhere = [_sum(case.everywhere for case in cases) for cases in ensembles]
    near = [_sum(case.near for case in cases) for cases in ensembles]
    return [
        _middle(dice, 4),
        _middle([100 * item.error for item in everywhere], 2),
        _middle([100 * item.error for item in near], 2),
        _middle([item.mean_log_loss for item in near], 4),
        *(_correlation(ensembles, name) for name in ESTIMATES),
    ]


def _middle(values: Sequence[float], digits: int) -> str:
    """Return the median of some values, with their range if there are several."""
    shown = f"{median(values):.{digits}f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _sum(parts: Iterable[Calibration]) -> Calibration:
    return sum(parts, start=Calibration(np.zeros((3, N_BINS)), 0.0))


def _correlation(ensembles: Sequence[Sequence[CaseScores]], name: str) -> str:
    """Return the median over ensembles; of a single one the interval, too."""
    sides = [([case.estimates[name] for case in cases], [case.dice for case in cases]) for cases in ensembles]
    values = [rank_correlation(*side) for side in sides]
    if np.isnan(values).any():
        return "-"
    if len(sides) > 1:
        return f"{median(values):.2f}"
    return "{:.2f} ({:.2f} to {:.2f})".format(values[0], *correlation_interval(*sides[0]))
