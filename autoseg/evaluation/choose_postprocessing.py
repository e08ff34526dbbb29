"""Choice of post-processing: the steps that demonstrably improve out-of-fold predictions.

A step is judged only on cases whose references decide every voxel for the heads that it changes. On sparse references a
removed component is mostly undecided, which is no evidence, but it would be removed from new images all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.core.findings import counted, listed
from autoseg.core.progress import Stages, silent_stages
from autoseg.dataset.labels import Labels
from autoseg.evaluation.bootstrap import mean_scores
from autoseg.evaluation.comparison import CASES_FOR_A_VERDICT
from autoseg.evaluation.postprocessing import (
    Change,
    FillHoles,
    KeepLargestComponent,
    Postprocessing,
    RemoveSmallerThan,
    Step,
    change_of,
    unit_of,
)
from autoseg.evaluation.postprocessing_effects import CaseEffects, ScoredFiles, measure_effects

BETTER_CASES = 2
"""Least number of cases that a step must improve. One case is a coincidence."""
_RISE = 1e-9
"""Least rise of a mean Dice; smaller ones are rounding."""


class Decision(BaseModel):
    """A step that was tried."""

    model_config = ConfigDict(frozen=True)

    step: Step
    accepted: bool
    reason: str
    """Why it was accepted or not."""
    n_cases: int
    """Cases whose references decide every voxel for the heads that the step changes."""
    n_better: int = 0
    """Cases with a higher Dice after the step (mean over the heads of the step)."""
    n_worse: int = 0
    dice_before: float | None = None
    """Mean Dice over ``n_cases``, then over the heads of the step; None without a score."""
    dice_after: float | None = None


class ChosenPostprocessing(BaseModel):
    """Chosen steps, and all that were tried."""

    model_config = ConfigDict(frozen=True)

    postprocessing: Postprocessing
    decisions: tuple[Decision, ...]


def choose_postprocessing(
    files: Sequence[ScoredFiles], labels: Labels, *, workers: int = 1, stages: Stages = silent_stages
) -> ChosenPostprocessing:
    """Choose the steps that improve predictions, and say of every step that was tried why it is taken or not.

    Tried in this order, each on the result of the steps taken before: the largest component of all foreground together
    (if there are several heads); for each head the largest component and minimum sizes (1, 2, 5, 10, ... mm³ or mm², up
    to the smallest amount of the head in a reference), of which the best is taken; for each head its holes.

    A step is taken if the mean Dice of its heads rises, that of no head falls, and at least ``BETTER_CASES`` cases get
    better and more than get worse. At least ``CASES_FOR_A_VERDICT`` references must decide every voxel for all heads
    that the step changes; only these cases count.

    Parameters
    ----------
    files
        Out-of-fold predictions with their references.
    labels
        Of the data set.
    workers
        Number of processes.

    Raises
    ------
    AutosegError
        If the files of a case cannot be compared.

    Notes
    -----
    Source: nnU-Net ``postprocessing/remove_connected_components.py`` (order, mean Dice rises and no class falls).
    Differs: sizes and holes, the numbers of cases, and sparse references, on which nnU-Net decides by the voxels that
    happen to be annotated.
    """
    search = _Search(tuple(files), labels, workers, stages)
    heads = [labels.heads[index].name for index in labels.foreground_heads]
    if len(heads) > 1:
        search.try_largest(tuple(heads))
    for name in heads:
        search.try_removals(name, heads)
    for name in heads:
        search.try_holes(name, heads)
    return ChosenPostprocessing(
        postprocessing=Postprocessing(steps=tuple(search.steps)), decisions=tuple(search.decisions)
    )


class _Search:
    """Steps that were taken so far, and the effects of further ones."""

    def __init__(self, files: tuple[ScoredFiles, ...], labels: Labels, workers: int, stages: Stages) -> None:
        self.steps: list[Step] = []
        self.decisions: list[Decision] = []
        self._files, self._labels, self._workers, self._stages = files, labels, workers, stages
        self._measured: list[CaseEffects] = []
        self._places: dict[Change, int] = {}

    def try_largest(self, heads: tuple[str, ...]) -> None:
        """Decide on the largest component of all heads together."""
        step = KeepLargestComponent(of=heads)
        self._take_best([self._judged(step, [step])])

    def try_removals(self, name: str, heads: Sequence[str]) -> None:
        """Decide on the largest component and the minimum sizes of a head; of the sizes only the best is reported."""
        rest = [KeepLargestComponent(of=(head,)) for head in heads[heads.index(name) :]]
        largest = self._judged(rest[0], rest)
        sizes = [self._judged(step, rest) for step in self._sizes(name, rest)]
        best = max(sizes, key=_merit, default=None)
        self._take_best([largest] if best is None else [largest, best])

    def try_holes(self, name: str, heads: Sequence[str]) -> None:
        """Decide on the holes of a head."""
        rest = [FillHoles(of=(head,)) for head in heads[heads.index(name) :]]
        self._take_best([self._judged(rest[0], rest)])

    def _take_best(self, candidates: Sequence[Decision]) -> None:
        """Record decisions about alternative steps, of which the best acceptable one is taken."""
        best = max(candidates, key=_merit)
        for decision in candidates:
            if decision.accepted and decision is not best:
                reason = f"{decision.reason}; {best.step.operation} is taken instead"
                decision = decision.model_copy(update={"accepted": False, "reason": reason})
            self.decisions.append(decision)
        if best.accepted:
            self.steps.append(best.step)
            self._places = {}

    def _effects(self, change: Change, together: Sequence[Step]) -> list[CaseEffects]:
        """Return the cases with the effects of a change; measures also the steps that will be tried next."""
        if change not in self._places:
            changes = [change_of(other, self._labels) for other in together]
            with self._stages(f"try {together[0].operation}") as progress:
                self._measured = measure_effects(
                    self._files, self._labels, self.steps, changes, workers=self._workers, progress=progress
                )
            self._places = {other: index for index, other in enumerate(changes)}
        return self._measured

    def _sizes(self, name: str, together: Sequence[Step]) -> Iterator[RemoveSmallerThan]:
        """Yield the minimum sizes of a head that are tried: from two voxels to its smallest amount in a reference."""
        step = KeepLargestComponent(of=(name,))
        change = change_of(step, self._labels)
        evidence = _evidence(self._effects(change, together), change)
        (head,) = change.heads
        amounts = [case.counts.reference[head] * case.geometry.voxel_volume for case in evidence]
        present = [float(amount) for amount in amounts if amount > 0]
        if present and len(evidence) >= CASES_FOR_A_VERDICT:
            smallest = min(case.geometry.voxel_volume for case in evidence)
            for size in _round_numbers(smallest, min(present)):
                yield RemoveSmallerThan(of=(name,), size=size, unit=unit_of(evidence[0].geometry))

    def _judged(self, step: Step, together: Sequence[Step]) -> Decision:
        """Return what the cases say about a step."""
        change = change_of(step, self._labels)
        effects = self._effects(change, together)
        evidence = _evidence(effects, change)
        refusal = self._refusal(change, evidence, len(effects))
        if refusal:
            return Decision(step=step, accepted=False, reason=refusal, n_cases=len(evidence))
        before = np.array([case.counts.dice for case in evidence])
        after = np.array([case.after(step, self._places[change]).dice for case in evidence])
        occurs = np.any([case.counts.reference > 0 for case in evidence], axis=0)
        before[:, ~occurs], after[:, ~occurs] = np.nan, np.nan
        means, means_after = mean_scores(before)[:-1], mean_scores(after)[:-1]
        own = [head for head in change.heads if occurs[head]]
        better, worse = _compared(before[:, own], after[:, own])
        falls = means - means_after > _RISE
        falling = [self._labels.heads[head].name for head in _affected(change) if falls[head]]
        low, high = float(np.nanmean(means[own])), float(np.nanmean(means_after[own]))
        verdict = _verdict(high - low, falling, better, worse)
        return Decision(
            step=step, accepted=verdict is None, reason=verdict or _change(better, worse),
            n_cases=len(evidence), n_better=better, n_worse=worse, dice_before=low, dice_after=high,
        )  # fmt: skip

    def _refusal(self, change: Change, evidence: Sequence[CaseEffects], n_cases: int) -> str | None:
        """Return why the cases cannot tell whether a step helps; None if they can."""
        names = listed([self._labels.heads[head].name for head in _affected(change)], 20)
        if len(evidence) < CASES_FOR_A_VERDICT:
            return (
                f"not decided: {len(evidence)} of {n_cases} references decide every voxel for {names}, expected at "
                f"least {CASES_FOR_A_VERDICT}"
            )
        if not any(case.counts.reference[list(change.heads)].any() for case in evidence):
            return f"not decided: no reference has a voxel of {names}"
        return None


def _affected(change: Change) -> list[int]:
    """Return the foreground heads that a change can add voxels to or remove them from."""
    regions = change.labels.regions
    hit = np.any(regions != regions[:, change.becomes], axis=1)
    return [head for head in change.labels.foreground_heads if hit[head]]


def _evidence(effects: Sequence[CaseEffects], change: Change) -> list[CaseEffects]:
    """Return the cases whose references decide every voxel for all heads that a change affects."""
    return [case for case in effects if case.is_dense[_affected(change)].all()]


def _compared(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[int, int]:
    """Return how many cases have a higher and a lower mean Dice over heads; both (N, H).

    NaN, which is neither in reference nor in prediction, counts as 1: nothing is wrong there.
    """
    rise = np.nan_to_num(after, nan=1).mean(axis=1) - np.nan_to_num(before, nan=1).mean(axis=1)
    return int((rise > _RISE).sum()), int((rise < -_RISE).sum())


def _verdict(rise: float, falling: Sequence[str], better: int, worse: int) -> str | None:
    """Return why a step is not taken; None if it is."""
    if better == 0 and worse == 0:
        return "changes no Dice"
    if not rise > _RISE:
        return "the mean Dice does not rise"
    if falling:
        return f"the mean Dice of {listed(falling)} falls"
    if better < BETTER_CASES or better <= worse:
        return f"{_change(better, worse)}: that may be chance"
    return None


def _change(better: int, worse: int) -> str:
    return f"better in {counted(better, 'case')}, worse in {worse}"


def _merit(decision: Decision) -> tuple[bool, float]:
    """Return the key by which alternative steps are ordered: acceptable ones first, then by Dice."""
    return decision.accepted, -math.inf if decision.dice_after is None else decision.dice_after


def _round_numbers(above: float, most: float) -> Iterator[float]:
    """Yield the numbers 1, 2, 5, 10, ... (and below 1: 0.5, 0.2, ...) above one number and up to another."""
    exponent = math.floor(math.log10(above))
    while 10.0**exponent <= most:
        yield from (number for digit in (1, 2, 5) if above < (number := float(f"{digit}e{exponent}")) <= most)
        exponent += 1
