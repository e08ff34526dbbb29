"""What follows from promises about how the annotators worked: narrower label sets for voxels that nobody decided.

What is *inferred* is kept apart from what was *drawn*: :func:`infer` returns a map of its own, which says nothing (its
row 0) wherever a single class was drawn. Background is never excluded, so every inferred set holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.distance import within
from autoseg.annotation.enclosure import enclosed
from autoseg.annotation.set_map import compacted, without
from autoseg.core.case import BoolArray, CodeArray
from autoseg.core.geometry import slice_axis
from autoseg.core.labels import CaseStatement, foreground_codes
from autoseg.core.protocol import AnnotationProtocol

ANISOTROPY = 3.0
"""Above this ratio of the coarsest to the finest spacing, people draw slice by slice."""
SETTLING = ("classes_complete_in", "reach_mm", "background_encloses")
"""The promises that narrow sets before training; ``instances_touched`` needs a prediction (``annotation.touched``)."""
TOGETHER = "the promises together"
_NOTHING_SAID = CaseStatement()


@dataclass(frozen=True, slots=True)
class Inference:
    """What promises say of the voxels of one case, apart from what was drawn there."""

    codes: CodeArray
    """(*S) uint8, rows of ``label_sets``; 0 where nothing is inferred."""
    label_sets: BoolArray
    """(M, K); row 0 holds all classes, every row holds background."""
    n_conflicts: int = 0
    """Voxels at which a promise left no class of what was drawn; nothing is inferred there."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A drawn voxel for which a promise leaves no class."""

    promise: str
    """One of ``SETTLING``, or ``TOGETHER`` where only several of them exclude everything."""
    voxel: tuple[int, ...]
    """Index of the first such voxel in the axes of the file, (z, y, x)."""
    classes: tuple[int, ...]
    """The classes that were drawn there."""
    n_voxels: int


@dataclass(frozen=True, slots=True)
class Settled:
    """How many voxels of a case promises settle, and how many of them wrongly; ``+`` adds cases."""

    voxels: int = 0
    """All voxels of the case."""
    drawn: int = 0
    """Voxels that say something before any promise."""
    narrowed: int = 0
    """Voxels of which the promises leave fewer classes than the drawing."""
    settled: int = 0
    """Those of them of which one class is left."""
    informative: int = 0
    """Voxels that say something, drawn or inferred."""
    foreground: int = 0
    """Voxels that truly are foreground, where a reference is known."""
    wrong: int = 0
    """Those of them whose true class the promises exclude though the drawing did not."""

    def __add__(self, other: Settled) -> Settled:
        """Add the counts of two cases."""
        return Settled(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def share(self, part: str) -> float:
        """Return ``part`` over all voxels, 0 to 1; ``"wrong"`` over the true foreground. 0 where there is none."""
        whole = self.foreground if part == "wrong" else self.voxels
        return int(getattr(self, part)) / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A case with its slices along axis 0."""

    codes: CodeArray
    label_sets: BoolArray
    spacing: tuple[float, ...]
    promised: tuple[int, ...]
    """Foreground classes that the annotators of this case were looking for."""
    annotated: BoolArray
    """(slices,): whether anything is annotated there."""


def infer(
    codes: CodeArray,
    label_sets: BoolArray,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    reach: Mapping[int, float] | None = None,
    *,
    statement: CaseStatement = _NOTHING_SAID,
) -> Inference:
    """Return the sets that the promises leave to voxels of which more than one class was left by the drawing.

    A class is *annotated* at a voxel where it alone is left; a coarse value is annotation of none of its classes. A
    slice (a case) is annotated if a class, background included, or a set without background was drawn in it.

    * ``classes_complete_in`` "slice" ("case"): a class without annotation in an annotated slice (case) is not there.
    * ``reach_mm``: nothing of a class lies farther from its annotated voxels than its reach. The distance is exact, in
      mm, from voxel centre to voxel centre, and goes through all three axes; where classes are complete in slices, it
      is measured within the slice in annotated slices. A case (or such a slice) without the class says nothing here.
    * ``background_encloses``: see :func:`autoseg.annotation.enclosure.enclosed`; slice by slice where classes are
      complete in slices, where there is one slice, or where spacings differ more than threefold; else through the
      volume.

    Which axis counts the slices, shape and spacing say: :func:`autoseg.core.geometry.slice_axis`.

    Parameters
    ----------
    codes, label_sets
        The drawn target: (*S) with three axes, and (N, K). Codes 0..K-1 are the single classes.
    spacing
        mm, (z, y, x).
    reach
        Class index -> mm (:func:`autoseg.annotation.reach.resolve_reach`); classes left out promise nothing. None: no
        class does. ``protocol.reach_mm`` itself is not read, since "auto" is estimated over a data set.
    statement
        What is said of the case: promises hold for the classes that its annotators drew, ``statement.annotated``.

    Returns
    -------
    Where a promise would leave no class of what was drawn, nothing is inferred and the voxel is counted. A case
    without annotation, or in which every voxel is decided, gives one row.
    """
    raw, table = _narrowed(codes, label_sets, spacing, protocol, reach or {}, statement)
    conflicts = _conflicts(codes, label_sets, raw, table)
    n_conflicts = int(conflicts.sum())
    if n_conflicts:
        raw, table = compacted(np.where(conflicts, raw.dtype.type(0), raw), table)
    return Inference(raw, table, n_conflicts)


def contradictions(
    codes: CodeArray,
    label_sets: BoolArray,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    reach: Mapping[int, float] | None = None,
    *,
    statement: CaseStatement = _NOTHING_SAID,
) -> tuple[Contradiction, ...]:
    """Return where the drawing contradicts a promise, one voxel for each promise; parameters as :func:`infer`.

    Only a voxel whose drawn set lacks background can contradict: one drawn as "liver or tumour" farther from all liver
    and all tumour than their reach, or in a slice where neither is annotated though classes are complete there. A
    voxel of a single class is within its own reach and never contradicts.
    """
    kept = reach or {}
    together = _contradiction(codes, label_sets, spacing, protocol, kept, statement, TOGETHER)
    if together is None:
        return ()
    found = [
        _contradiction(codes, label_sets, spacing, single, kept if single.reach_mm is not None else {}, statement, name)
        for name, single in single_promises(protocol).items()
    ]
    return tuple(item for item in found if item is not None) or (together,)


def single_promises(protocol: AnnotationProtocol) -> dict[str, AnnotationProtocol]:
    """Return each promise of ``protocol`` that settles voxels on its own, by its key in dataset.json."""
    nothing = AnnotationProtocol()
    return {
        name: replace(nothing, **{name: getattr(protocol, name)})
        for name in SETTLING
        if getattr(protocol, name) != getattr(nothing, name)
    }


def check_against_reference(
    codes: CodeArray, label_sets: BoolArray, inference: Inference, dense: NDArray[np.integer[Any]] | None = None
) -> Settled:
    """Count what an inference settles, and against a dense reference what it gets wrong.

    Parameters
    ----------
    codes, label_sets
        The drawn target, (*S) and (N, K).
    dense
        (*S) class indices; K and above where the truth is not known. None: nothing is counted as foreground or wrong.
    """
    both = label_sets[:, None] & inference.label_sets  # (N, M, K)
    n_left, n_drawn, n_classes = both.sum(axis=2), label_sets.sum(axis=1), label_sets.shape[1]
    pairs = (codes, inference.codes)
    is_narrowed = n_left < n_drawn[:, None]
    foreground = wrong = 0
    if dense is not None:
        is_foreground = (dense > 0) & (dense < n_classes)
        truth = dense[is_foreground]
        chosen = codes[is_foreground]
        lost = label_sets[chosen, truth] & ~inference.label_sets[inference.codes[is_foreground], truth]
        foreground, wrong = truth.size, int(lost.sum())
    return Settled(
        voxels=codes.size,
        drawn=int((n_drawn < n_classes)[codes].sum()),
        narrowed=int(is_narrowed[pairs].sum()),
        settled=int((is_narrowed & (n_left == 1))[pairs].sum()),
        informative=int((n_left < n_classes)[pairs].sum()),
        foreground=foreground,
        wrong=wrong,
    )


def annotated_slices(codes: CodeArray, label_sets: BoolArray, statement: CaseStatement = _NOTHING_SAID) -> BoolArray:
    """(slices,) bool: slices along axis 0 of ``codes`` in which something is drawn.

    A single class is, background too, and a set without background unless that is said to be absent from the case.
    """
    is_drawn = label_sets.sum(axis=1) == 1
    if 0 not in statement.absent:
        is_drawn |= foreground_codes(label_sets)
    annotated: BoolArray = is_drawn[codes].any(axis=tuple(range(1, codes.ndim)))
    return annotated


def promised_classes(n_classes: int, statement: CaseStatement) -> tuple[int, ...]:
    """Return the foreground classes that the annotators of a case looked for, so that their silence says something."""
    return tuple(index for index in range(1, n_classes) if statement.annotated is None or index in statement.annotated)


def _contradiction(
    codes: CodeArray,
    label_sets: BoolArray,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    reach: Mapping[int, float],
    statement: CaseStatement,
    name: str,
) -> Contradiction | None:
    """Return the first voxel of which ``protocol``, called ``name``, leaves nothing."""
    raw, table = _narrowed(codes, label_sets, spacing, protocol, reach, statement)
    conflicts = _conflicts(codes, label_sets, raw, table)
    n_voxels = int(conflicts.sum())
    if not n_voxels:
        return None
    voxel = tuple(int(index) for index in np.unravel_index(int(np.argmax(conflicts)), conflicts.shape))
    classes = tuple(np.flatnonzero(label_sets[codes[voxel]]).tolist())
    return Contradiction(name, voxel, classes, n_voxels)


def _narrowed(
    codes: CodeArray,
    label_sets: BoolArray,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    reach: Mapping[int, float],
    statement: CaseStatement,
) -> tuple[CodeArray, BoolArray]:
    """Return the inferred map and its table in the axes of the file, whatever they leave of what was drawn."""
    axis = slice_axis(codes.shape, spacing)
    moved = np.moveaxis(codes, axis, 0)
    drawn = _Drawn(
        codes=moved,
        label_sets=label_sets,
        spacing=(spacing[axis], *(edge for other, edge in enumerate(spacing) if other != axis)),
        promised=promised_classes(label_sets.shape[1], statement),
        annotated=annotated_slices(moved, label_sets, statement),
    )
    inferred: CodeArray = np.zeros(moved.shape, dtype=np.uint8)
    table = np.ones((1, label_sets.shape[1]), dtype=bool)
    for index in drawn.promised:
        excluded = _excluded(drawn, protocol.classes_complete_in, reach.get(index), index)
        inferred, table = without(inferred, table, excluded, [index])
    if protocol.background_encloses:
        is_flat = len(moved) == 1 or drawn.spacing[0] > ANISOTROPY * min(drawn.spacing)
        by_slice = is_flat or protocol.classes_complete_in == "slice"
        outside = enclosed(moved == 0, foreground_codes(label_sets)[moved], drawn.spacing, by_slice=by_slice)
        inferred, table = without(inferred, table, outside, list(drawn.promised))
    inferred[(label_sets.sum(axis=1) == 1)[moved]] = 0
    inferred, table = compacted(inferred, table)
    return np.ascontiguousarray(np.moveaxis(inferred, 0, axis)), table


def _excluded(drawn: _Drawn, complete_in: str | None, reach_mm: float | None, index: int) -> BoolArray:
    """(*S): voxels of which the class ``index`` is excluded by completeness or by its reach."""
    own = drawn.codes == index
    holds = own.any(axis=tuple(range(1, own.ndim)))
    excluded = np.zeros(own.shape, dtype=bool)
    if complete_in == "slice":
        excluded[drawn.annotated & ~holds] = True
    elif complete_in == "case" and drawn.annotated.any() and not holds.any():
        excluded[:] = True
    if reach_mm is None or not holds.any():
        return excluded
    if complete_in != "slice":
        return excluded | ~within(own, drawn.spacing, reach_mm)
    for number in np.flatnonzero(drawn.annotated & holds):
        excluded[number] = ~within(own[number], drawn.spacing[1:], reach_mm)
    if not drawn.annotated.all():
        excluded[~drawn.annotated] = ~within(own, drawn.spacing, reach_mm)[~drawn.annotated]
    return excluded


def _conflicts(codes: CodeArray, label_sets: BoolArray, inferred: CodeArray, table: BoolArray) -> BoolArray:
    """(*S): voxels of which nothing is left between the drawn set and the inferred one."""
    has_common: BoolArray = np.logical_or.reduce(label_sets[:, None] & table, axis=2)
    is_empty = label_sets.any(axis=1, keepdims=True) & ~has_common
    if not is_empty.any():
        return np.zeros(codes.shape, dtype=bool)
    conflicts: BoolArray = is_empty[codes, inferred]
    return conflicts
