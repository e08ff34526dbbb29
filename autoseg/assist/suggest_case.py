"""Which boxes to annotate next: rank candidates by what a model is unsure of, spread over classes and cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray
from autoseg.core.errors import ConfigError
from autoseg.inference.uncertainty import BoxUncertainty

Method = Literal["clasp", "entropy", "random"]
METHODS: tuple[Method, ...] = get_args(Method)
CLASS_SHARE = {"clasp": 0.66, "entropy": 0.0, "random": 0.5}
"""Share of the budget that is drawn per foreground class in turn; the rest is drawn without regard to classes."""
LARGEST_SHARPNESS = 100.0
LEAST_OPEN = 0.5
"""Boxes of which less than this share is still open are no candidates: most of the work is done there."""
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
    """(n,) of slices the axis that counts them; -1 for patches."""
    margin: NDArray[np.intp]
    """(n, 3) voxels that a second choice keeps away from the box; 0 lets it touch."""
    open_share: FloatArray
    """(n,) share of the box that is not annotated."""
    score: FloatArray
    """(n,) mean entropy of the voxels that are not annotated, 0 to 1."""
    class_score: FloatArray
    """(n, F) the same, weighted with the probability of each foreground head."""
    predicted: FloatArray
    """(n, F) voxels predicted as each foreground head, where nothing is annotated."""
    n_annotated: int = 0
    """Further boxes that are no candidates, since at least half of them is annotated."""

    def __len__(self) -> int:
        return len(self.case)

    def main_class(self, index: int) -> str | None:
        """Return the foreground class that a box is most unsure about; None if it is sure of them all."""
        scores = self.class_score[index]
        return self.classes[int(np.argmax(scores))] if scores.size and scores.max() > 0 else None


@dataclass(frozen=True, slots=True)
class Selection:
    """How to choose."""

    number: int = 20
    method: Method = "clasp"
    case_share: float = 0.25
    """At most this share of the choices, rounded up, comes from one case, while others have candidates left."""
    round: int = 1
    """1 for the first time that suggestions are asked for; later rounds trust the entropy more."""
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
    """One box that was chosen."""

    index: int
    """Into the candidates."""
    drawn_for: str | None
    """The foreground class in whose turn it was drawn; None without regard to classes."""


@dataclass(frozen=True, slots=True)
class LeftOver:
    """Why boxes were not chosen, though fewer were than asked for."""

    n_close: int
    """Candidates that overlap a chosen box, or come closer to it than the margin."""
    n_certain: int
    """Candidates of whose unannotated voxels the model is certain."""
    n_annotated: int
    """Boxes of which at least half is annotated."""


@dataclass(frozen=True, slots=True)
class _Stratum:
    """A part of the budget, and the order in which it would be spent."""

    name: str | None
    share: float
    keys: FloatArray
    """(n,) highest first; -inf is never chosen."""


def candidates_of(case: str, measured: BoxUncertainty, classes: Sequence[str], *, spread: float = 0.0) -> Candidates:
    """Return the boxes of one case that are open enough to be worth annotating.

    Parameters
    ----------
    case
        Its name.
    measured
        What was found in its boxes.
    classes
        Names of the foreground heads.
    spread
        Slices only: a second choice keeps away from a first one by this share of the slices, rounded down.
    """
    low, high = measured.grid.corners()
    volume = float(np.prod(measured.grid.edges))
    n_open = measured.open_voxels.reshape(-1)
    kept = n_open >= max(1.0, LEAST_OPEN * volume)
    per_voxel = 1 / np.maximum(n_open[kept], 1)
    axis = measured.grid.axis
    margin = np.zeros(3, dtype=np.intp)
    if axis is not None:
        margin[axis] = int(spread * measured.grid.shape[axis])
    n = int(kept.sum())
    return Candidates(
        cases=(case,),
        classes=tuple(classes),
        case=np.zeros(n, dtype=np.intp),
        low=low[kept],
        high=high[kept],
        axis=np.full(n, -1 if axis is None else axis, dtype=np.intp),
        margin=np.tile(margin, (n, 1)),
        open_share=n_open[kept] / volume,
        score=measured.entropy.reshape(-1)[kept] * per_voxel,
        class_score=measured.entropy_of.reshape(len(classes), -1)[:, kept].T * per_voxel[:, None],
        predicted=measured.predicted.reshape(len(classes), -1)[:, kept].T,
        n_annotated=int((~kept).sum()),
    )


def pooled(parts: Sequence[Candidates]) -> Candidates:
    """Put the candidates of several cases together; raise ``ValueError`` if there is no case or classes differ."""
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
    """Choose boxes that do not overlap, best first; fewer than asked for if the candidates run out.

    ``clasp``: 66 % of the choices are drawn for one foreground class after the other, by the entropy weighted with the
    probability of that class, the rest by the entropy alone; each by ``log(score)`` plus Gumbel noise of scale
    ``1 / sharpness``. ``entropy``: the highest entropy, without noise. ``random``: half for one foreground class after
    the other, in proportion to the voxels predicted as it, half anywhere, every case with the same probability.
    Turns are interleaved, so that whoever stops halfway has a balanced half.

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
        found = _best(strata, turns, free & (taken[candidates.case] < bound))
        if found is not None:
            turn, index = found
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
    """Count, after :func:`choose` ran out of candidates, why the others were not chosen."""
    close = np.zeros(len(candidates), dtype=bool)
    for choice in choices:
        close |= _meets(candidates, choice.index)
    close[[choice.index for choice in choices]] = True
    n_close = int(close.sum()) - len(choices)
    return LeftOver(n_close, int((~close).sum()), candidates.n_annotated)


def sharpness(round_: int) -> float:
    """Return beta, the inverse scale of the noise: 1 in the first round, ten times more every other, at most 100.

    With 1 a box is drawn in proportion to its score; with 100 nearly the best is taken. Source: the decay of ClaSP PE's
    noise on a logarithmic scale; the steps are ours.
    """
    return min(LARGEST_SHARPNESS, 10 ** ((round_ - 1) / 2))


def _strata(candidates: Candidates, selection: Selection, rng: np.random.Generator) -> list[_Stratum]:
    """Return the parts of the budget, the classes in order and what has no regard to them last."""
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
    """Return the first stratum in the order of ``turns`` that has a usable box, and that box."""
    for turn in turns:
        keys = np.where(usable, strata[turn].keys, -np.inf)
        if keys.size and np.isfinite(keys.max()):
            return int(turn), int(np.argmax(keys))
    return None


def _meets(candidates: Candidates, index: int) -> BoolArray:
    """(n,) bool: boxes of the same case that overlap box ``index`` or come closer than its margin."""
    low = candidates.low[index] - candidates.margin[index]
    high = candidates.high[index] + candidates.margin[index]
    overlap = ((candidates.low < high) & (candidates.high > low)).all(axis=1)
    meets: BoolArray = overlap & (candidates.case == candidates.case[index])
    return meets
