"""Choice of the boxes to annotate next: candidates ranked by the model's uncertainty, spread over classes and cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray
from autoseg.core.errors import ConfigError
from autoseg.inference.box_uncertainty import BoxUncertainty

Method = Literal["clasp", "entropy", "random"]
METHODS: tuple[Method, ...] = get_args(Method)
CLASS_SHARE = {"clasp": 0.66, "entropy": 0.0, "random": 0.5}
"""Method -> share of the choices made for each foreground class in turn; the others have no regard to classes."""
LARGEST_SHARPNESS = 100.0
"""Upper bound of :func:`sharpness`."""
LEAST_OPEN = 0.5
"""Smallest unannotated share of a candidate: a box with less needs hardly any annotation."""
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes to choose from, of all cases; the first axis of every array is the box."""

    cases: tuple[str, ...]
    classes: tuple[str, ...]
    """Names of the foreground heads."""
    case: NDArray[np.intp]
    """(n,) index into ``cases``."""
    low: NDArray[np.intp]
    """(n, 3) first voxel, file axes (z, y, x)."""
    high: NDArray[np.intp]
    """(n, 3) one past the last voxel."""
    axis: NDArray[np.intp]
    """(n,) axis perpendicular to a slice; -1 for patches."""
    margin: NDArray[np.intp]
    """(n, 3) smallest distance in voxels of another choice to the box; 0 allows them to touch."""
    open_share: FloatArray
    """(n,) unannotated share of the box."""
    score: FloatArray
    """(n,) mean entropy of the unannotated voxels, 0 to 1."""
    class_score: FloatArray
    """(n, F) the same, weighted with the probability of each foreground head."""
    predicted: FloatArray
    """(n, F) number of unannotated voxels predicted as each foreground head."""
    n_annotated: int = 0
    """Number of further boxes that are at least half annotated, and therefore no candidates."""

    def __len__(self) -> int:
        return len(self.case)

    def main_class(self, index: int) -> str | None:
        """Return the foreground class with the highest score in a box; None if all scores are 0."""
        scores = self.class_score[index]
        return self.classes[int(np.argmax(scores))] if scores.size and scores.max() > 0 else None


@dataclass(frozen=True, slots=True)
class Selection:
    """Settings of the choice."""

    number: int = 20
    """Number of boxes to choose."""
    method: Method = "clasp"
    case_share: float = 0.25
    """Largest share of the choices from one case, rounded up, as long as other cases have candidates."""
    round: int = 1
    """Round of annotation, from 1; later rounds have less noise, so they follow the entropy more closely."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` if a value is out of range."""
        if self.method not in METHODS:
            raise ConfigError(f"method: found {self.method!r}, expected one of {', '.join(METHODS)}. Write clasp.")
        if self.number < 1 or self.round < 1 or self.seed < 0:
            raise ConfigError(
                f"number {self.number}, round {self.round}, seed {self.seed}: expected a number and a round of 1 or "
                "more and a seed of 0 or more. Correct them."
            )
        if not 0 < self.case_share <= 1:
            raise ConfigError(f"share per case: found {self.case_share}, expected above 0, at most 1. Write 0.25.")


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen box."""

    index: int
    """Index into the candidates."""
    drawn_for: str | None
    """Foreground class that it was chosen for; None if it was chosen without regard to classes."""


@dataclass(frozen=True, slots=True)
class LeftOver:
    """Numbers of boxes that were not chosen, by reason."""

    n_close: int
    """Candidates that overlap a chosen box, or come closer to it than the margin."""
    n_certain: int
    """Candidates in whose unannotated voxels the model is certain."""
    n_annotated: int
    """Boxes that are at least half annotated."""


@dataclass(frozen=True, slots=True)
class _Stratum:
    """A share of the choices, and the ranking of the boxes for it."""

    name: str | None
    """Foreground class; None without regard to classes."""
    share: float
    """Share of the choices, 0 to 1."""
    keys: FloatArray
    """(n,) the highest is chosen first; -inf is never chosen."""


def candidates_of(case: str, measured: BoxUncertainty, classes: Sequence[str], *, spread: float = 0.0) -> Candidates:
    """Return the boxes of one case that have enough unannotated voxels to be worth annotating.

    Parameters
    ----------
    case
        Name of the case.
    measured
        Uncertainty in its boxes.
    classes
        Names of the foreground heads.
    spread
        Slices only: smallest distance of two choices as a share of the slices, rounded down to slices.
    """
    low, high = measured.grid.corners()
    volume = float(np.prod(measured.grid.edges))
    n_open = measured.open_voxels.reshape(-1)
    is_candidate = n_open >= max(1.0, LEAST_OPEN * volume)
    per_voxel = 1 / np.maximum(n_open[is_candidate], 1)
    axis = measured.grid.axis
    margin = np.zeros(3, dtype=np.intp)
    if axis is not None:
        margin[axis] = int(spread * measured.grid.shape[axis])
    n = int(is_candidate.sum())
    return Candidates(
        cases=(case,),
        classes=tuple(classes),
        case=np.zeros(n, dtype=np.intp),
        low=low[is_candidate],
        high=high[is_candidate],
        axis=np.full(n, -1 if axis is None else axis, dtype=np.intp),
        margin=np.tile(margin, (n, 1)),
        open_share=n_open[is_candidate] / volume,
        score=measured.entropy.reshape(-1)[is_candidate] * per_voxel,
        class_score=measured.entropy_of.reshape(len(classes), -1)[:, is_candidate].T * per_voxel[:, None],
        predicted=measured.predicted.reshape(len(classes), -1)[:, is_candidate].T,
        n_annotated=int((~is_candidate).sum()),
    )


def pooled(parts: Sequence[Candidates]) -> Candidates:
    """Return the candidates of several cases together; raise ``ValueError`` if there is no case or classes differ."""
    if not parts or any(part.classes != parts[0].classes for part in parts):
        raise ValueError(f"candidates of {len(parts)} cases, expected at least one, all of the same classes")
    offsets = np.cumsum([0, *(len(part.cases) for part in parts)])
    return Candidates(
        cases=tuple(name for part in parts for name in part.cases),
        classes=parts[0].classes,
        case=np.concatenate([part.case + offset for part, offset in zip(parts, offsets, strict=False)]),
        low=np.concatenate([part.low for part in parts]),
        high=np.concatenate([part.high for part in parts]),
        axis=np.concatenate([part.axis for part in parts]),
        margin=np.concatenate([part.margin for part in parts]),
        open_share=np.concatenate([part.open_share for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        class_score=np.concatenate([part.class_score for part in parts]),
        predicted=np.concatenate([part.predicted for part in parts]),
        n_annotated=sum(part.n_annotated for part in parts),
    )


def choose(candidates: Candidates, selection: Selection) -> tuple[Choice, ...]:
    """Return boxes that do not overlap, best first; fewer than requested if the candidates run out.

    ``clasp``: 66 % of the choices are made for one foreground class after the other, by the entropy weighted with the
    probability of that class, the others by the entropy alone; each by ``log(score)`` plus Gumbel noise of scale
    ``1 / sharpness``. ``entropy``: the highest entropy, without noise. ``random``: half of them for one foreground
    class after the other, in proportion to the voxels predicted as it, half anywhere, every case with the same
    probability. Classes alternate, so that the first half of the choices is balanced too.

    Notes
    -----
    Source: ClaSP PE (Lüth et al. 2026, arXiv 2601.13677): share, weighting and power noise; see :func:`sharpness` for
    the schedule. ``random`` is the foreground-aware baseline of nnActive (arXiv 2511.19183). We differ in that a box
    is averaged over its unannotated voxels only, in the bound per case, and in that boxes lie on a grid.
    """
    rng = np.random.default_rng([selection.seed, METHODS.index(selection.method)])
    strata = _strata(candidates, selection, rng)
    free = np.ones(len(candidates), dtype=bool)
    taken = np.zeros(len(candidates.cases), dtype=int)
    drawn = np.zeros(len(strata))
    bound = math.ceil(selection.case_share * selection.number)
    choices: list[Choice] = []
    while len(choices) < selection.number:
        shares = np.array([stratum.share for stratum in strata])
        turns = np.argsort(-(shares * (len(choices) + 1) - drawn), kind="stable")
        best = _best(strata, turns, free & (taken[candidates.case] < bound))
        if best is not None:
            turn, index = best
            drawn[turn] += 1
            taken[candidates.case[index]] += 1
            free &= ~_meets(candidates, index)
            choices.append(Choice(index, strata[turn].name))
        elif _best(strata, turns, free) is None:
            break
        else:
            bound += 1
    return tuple(choices)


def left_over(candidates: Candidates, choices: Sequence[Choice]) -> LeftOver:
    """Return the numbers of boxes, by reason, that :func:`choose` did not choose before it ran out of candidates."""
    close = np.zeros(len(candidates), dtype=bool)
    for choice in choices:
        close |= _meets(candidates, choice.index)
    close[[choice.index for choice in choices]] = True
    n_close = int(close.sum()) - len(choices)
    return LeftOver(n_close, int((~close).sum()), candidates.n_annotated)


def sharpness(round_: int) -> float:
    """Return beta, the inverse scale of the noise: 1 in the first round, times 10 every two rounds, at most 100.

    With 1 a box is drawn in proportion to its score; with 100 the box taken is nearly the best. Source: ClaSP PE, which
    reduces the noise on a logarithmic scale; the steps are ours.
    """
    return min(LARGEST_SHARPNESS, 10 ** ((round_ - 1) / 2))


def _strata(candidates: Candidates, selection: Selection, rng: np.random.Generator) -> list[_Stratum]:
    """Return the shares of the choices: one per class in order, then the one without regard to classes."""
    n, n_classes = candidates.class_score.shape
    noise = rng.gumbel(size=(n_classes + 1, n))
    share = CLASS_SHARE[selection.method] if n_classes else 0.0
    if selection.method == "random":
        per_case = np.bincount(candidates.case, minlength=len(candidates.cases))
        per_class, plain = candidates.predicted.T, 1 / per_case[candidates.case]
    else:
        per_class, plain = candidates.class_score.T, candidates.score
        noise *= 0 if selection.method == "entropy" else 1 / sharpness(selection.round)
    with np.errstate(divide="ignore"):  # the logarithm of 0 is -inf: never chosen
        keys = np.log(np.concatenate([per_class, plain[None]])) + noise
    strata = [
        _Stratum(name, share / n_classes, row) for name, row in zip(candidates.classes, keys, strict=False) if share
    ]
    return [*strata, _Stratum(None, 1 - share, keys[-1])]


def _best(strata: Sequence[_Stratum], turns: NDArray[np.intp], usable: BoolArray) -> tuple[int, int] | None:
    """Return (stratum, box): the first stratum in the order of ``turns`` with a usable box, and its best one; or None.

    ``turns`` (n_strata,) are indices of strata, ``usable`` (n,) says which boxes may be chosen.
    """
    for turn in turns:
        keys = np.where(usable, strata[turn].keys, -np.inf)
        if keys.size and np.isfinite(keys.max()):
            return int(turn), int(np.argmax(keys))
    return None


def _meets(candidates: Candidates, index: int) -> BoolArray:
    """Return (n,) bool: boxes of the same case that overlap box ``index`` or come closer than its margin."""
    low = candidates.low[index] - candidates.margin[index]
    high = candidates.high[index] + candidates.margin[index]
    overlap = ((candidates.low < high) & (candidates.high > low)).all(axis=1)
    meets: BoolArray = overlap & (candidates.case == candidates.case[index])
    return meets
