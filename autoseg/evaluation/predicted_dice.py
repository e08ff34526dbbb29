"""Prediction of the Dice of a case without a reference, by a monotone curve over the confidence of the model.

The curve of a class is fitted to pairs (confidence, Dice) of cases that the predicting model was not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import isotonic_regression

from autoseg.core.chunks import evenly_spread
from autoseg.evaluation.cases import ScoredOn

LEAST_PAIRS = 10
"""Number of pairs from which a class gets a curve of its own, and from which all classes together get one."""
COVERAGE = 0.9
"""Share of cases whose Dice should lie in the interval."""
OFFSET_PAIRS = 5
"""Number of pairs that the offset 0 of a class counts for, so that few pairs move the shared curve little."""
MOST_LEFT_OUT = 500
"""Number of pairs that are left out one by one to find the width of the interval."""
_KNOTS = 50
"""Largest number of knots of a stored curve."""

Array = NDArray[np.float64]


class Pair(NamedTuple):
    """A class in a case that the predicting model was not trained on."""

    confidence: float
    """Soft Dice confidence of the prediction, 0 to 1."""
    dice: float
    """Dice with the reference, 0 to 1."""
    scored_on: ScoredOn
    """Voxels behind the Dice: all, or those that the annotation decides."""


class Estimate(NamedTuple):
    """Dice that is expected of a prediction, 0 to 1."""

    dice: float
    low: float
    """Lower end of the interval that should hold the Dice of ``COVERAGE`` of the cases."""
    high: float


class DiceCurve(BaseModel):
    """Dice of a class as a monotone function of the soft Dice confidence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Of the class or region."""
    scored_on: ScoredOn
    """Voxels behind the Dice that is predicted."""
    n_pairs: int
    """Pairs of this class."""
    is_shared: bool = False
    """Whether all classes share the curve, because this one has too few pairs; then it has an offset of its own."""
    confidence: tuple[float, ...] = ()
    """Knots, ascending; the curve is linear between and constant beyond them. () if nothing was fitted."""
    dice: tuple[float, ...] = ()
    """Dice at the knots, 0 to 1, never descending."""
    mean_dice: float | None = None
    """Mean Dice of the pairs of this class; None without any."""
    half_width: float | None = None
    """Half the width of the interval; None if nothing was fitted."""
    occurrence: float | None = None
    """Share of the scored cases in whose reference the class occurs, 0 to 1; None without any."""
    reason: str | None = None
    """Why nothing was fitted; None if it was."""

    def estimate(self, confidence: float) -> Estimate | None:
        """Return the Dice to expect at a soft Dice confidence, with its interval cut to [0, 1]; None without a fit."""
        if self.half_width is None:
            return None
        dice = float(np.interp(confidence, self.confidence, self.dice))
        return Estimate(dice, max(0.0, dice - self.half_width), min(1.0, dice + self.half_width))

    def without_fit(self) -> DiceCurve:
        """Return what is known of the class in the cases alone; then no Dice is predicted."""
        return self.model_copy(update={"confidence": (), "dice": (), "half_width": None})


def fit_curves(pairs: Mapping[str, Sequence[Pair]]) -> tuple[DiceCurve, ...]:
    """Fit the curve of every class.

    Parameters
    ----------
    pairs
        Name of a class -> its pairs, of which there may be none.

    Returns
    -------
    One curve per class, in the order of ``pairs``. A class with at least ``LEAST_PAIRS`` pairs has its own. The others
    share one that is fitted to the pairs of all classes, moved by the mean residual of the class; if these are fewer
    than ``LEAST_PAIRS`` too, they have none, and the reason says so. Pairs on dense references are used alone where
    they suffice. Otherwise all are used, and ``scored_on`` is "annotated voxels" if any of them is.

    Notes
    -----
    The curve is the isotonic regression of Dice on confidence. The interval is that of split conformal prediction, with
    the residuals of curves that leave out one pair each, since pairs are few: half its width is the
    ceil((n + 1) * 0.9)-th smallest of n absolute residuals; of more than ``MOST_LEFT_OUT`` pairs, so many are left out.
    Source: Wundram et al. 2024 (arXiv 2407.13307), who hold a calibration set out instead. Residuals of curves that
    leave one out (the jackknife) cover in practice, but without their guarantee. Both assume that new cases are like
    those of the training; where a case is not, see :mod:`autoseg.evaluation.likeness`.
    """
    chosen = {name: _preferred(items) for name, items in pairs.items()}
    pooled = [pair for items in chosen.values() for pair in items]
    curves = []
    for name, items in chosen.items():
        if len(items) >= LEAST_PAIRS:
            curves.append(_curve(name, items, items))
        elif len(pooled) >= LEAST_PAIRS and items:
            curves.append(_curve(name, items, pooled))
        else:
            few = f"{len(items)} cases with a Dice that no training had seen, at least {LEAST_PAIRS} are needed"
            curves.append(DiceCurve(name=name, scored_on=_scored_on(items), n_pairs=len(items), reason=few))
    return tuple(curves)


def isotonic(confidence: Array, dice: Array) -> tuple[Array, Array]:
    """Return the knots (k,) of the isotonic regression of ``dice`` (n,) on ``confidence`` (n,), n > 0, and its values.

    Pairs of the same confidence count together. Neighbouring knots of the same value are left out.
    """
    knots, index, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=dice) / counts
    values = np.asarray(isotonic_regression(means, weights=counts.astype(np.float64)).x)
    is_inner = np.zeros(len(knots), dtype=bool)
    is_inner[1:-1] = (values[1:-1] == values[:-2]) & (values[1:-1] == values[2:])
    return knots[~is_inner], values[~is_inner]


def conformal_half_width(residuals: Array, coverage: float = COVERAGE) -> float:
    """Return the ceil((n + 1) * coverage)-th smallest absolute residual of n; 1 if n is too small for it."""
    rank = math.ceil((len(residuals) + 1) * coverage)
    return 1.0 if rank > len(residuals) else float(np.sort(np.abs(residuals))[rank - 1])


def _preferred(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return the pairs on dense references if they are enough, otherwise all."""
    dense = tuple(pair for pair in pairs if pair.scored_on == "dense")
    return dense if len(dense) >= LEAST_PAIRS else tuple(pairs)


def _scored_on(pairs: Sequence[Pair]) -> ScoredOn:
    return "dense" if all(pair.scored_on == "dense" for pair in pairs) else "annotated voxels"


def _curve(name: str, own: Sequence[Pair], used: Sequence[Pair]) -> DiceCurve:
    """Fit a curve to the pairs ``used``, and move it by the mean residual of ``own`` if these are only a part."""
    confidence, dice = np.array([[pair.confidence, pair.dice] for pair in used]).T
    knots, values = _thinned(*isotonic(confidence, dice))
    is_shared = len(own) < len(used)
    offset = 0.0
    if is_shared:
        residuals = [pair.dice - float(np.interp(pair.confidence, knots, values)) for pair in own]
        offset = sum(residuals) / (len(residuals) + OFFSET_PAIRS)
    return DiceCurve(
        name=name,
        scored_on=_scored_on(used),
        n_pairs=len(own),
        is_shared=is_shared,
        confidence=tuple(knots.tolist()),
        dice=tuple(np.clip(values + offset, 0, 1).tolist()),
        mean_dice=float(np.mean([pair.dice for pair in own])),
        half_width=conformal_half_width(_left_out_residuals(confidence, dice)),
    )


def _left_out_residuals(confidence: Array, dice: Array) -> Array:
    """Return (m,): the Dice of pairs minus that predicted by the curve of all others, n > 1; m = n up to that limit."""
    chosen = evenly_spread(len(dice), MOST_LEFT_OUT)
    residuals = np.empty(len(chosen))
    for place, index in enumerate(chosen):
        others = np.arange(len(dice)) != index
        residuals[place] = dice[index] - np.interp(confidence[index], *isotonic(confidence[others], dice[others]))
    return residuals


def _thinned(knots: Array, values: Array) -> tuple[Array, Array]:
    """Return at most ``_KNOTS`` knots of a curve, the outermost included."""
    kept = evenly_spread(len(knots), _KNOTS)
    return knots[kept], values[kept]
