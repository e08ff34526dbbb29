"""What follows from promises about how the annotators worked: narrower label sets for voxels that nobody drew.

What is *inferred* is kept apart from what was *drawn*: :func:`infer` returns a map of its own, which says nothing (its
row 0) wherever something was drawn. Background is never excluded, so every inferred set holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.distance import within
from autoseg.annotation.enclosure import enclosed
from autoseg.annotation.reach import resolve_reach
from autoseg.annotation.set_maps import compacted, without
from autoseg.annotation.slices import case_axis, spacing_axis
from autoseg.annotation.touches import promised_classes, touched_classes
from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.dataset.labels import CaseStatement, foreground_codes
from autoseg.dataset.protocol import AnnotationProtocol

ANISOTROPY = 3.0
"""From this ratio of spacings on, lines of background are drawn slice by slice for certain."""
TOGETHER = "the promises together"
_NOTHING_SAID = CaseStatement()


@dataclass(frozen=True, slots=True)
class Inference:
    """What promises say of the voxels of one case, apart from what was drawn there."""

    codes: CodeArray
    """(*S) uint8, rows of ``label_sets``; 0 where nothing is inferred."""
    label_sets: BoolArray
    """(M, K); row 0 holds all classes, every row holds background."""


@dataclass(frozen=True, slots=True)
class KeptOpen:
    """Voxels drawn as one of several classes, which a promise would narrow if only single classes counted as drawn."""

    promise: str
    """Its key in dataset.json."""
    voxel: tuple[int, ...]
    """Index of the first such voxel in the axes of the file, (z, y, x)."""
    classes: tuple[int, ...]
    """The classes that were drawn there."""
    kept: tuple[int, ...]
    """Those of them that it would take."""
    n_voxels: int
    """Of all sets together."""


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
    touched: BoolArray
    """(N, K): the classes that a voxel of each code is annotation of."""
    spacing: tuple[float, ...]
    annotated: BoolArray
    """(slices,): whether anything is annotated there."""
    has_slices: bool
    """Whether axis 0 is known to count the slices; else promises about slices say nothing."""
    encloses_by_slice: bool


def infer(
    codes: CodeArray,
    label_sets: BoolArray,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    *,
    statement: CaseStatement = _NOTHING_SAID,
) -> Inference:
    """Return the sets that the promises leave to voxels that nobody drew.

    A class is *annotated* at a voxel that was drawn as the class, alone or in a set with others. A slice (a case) is
    annotated if a class, background included, or a set without background was drawn in it. Each promise excludes the
    same whether it stands alone or beside others, and none takes a class from what was drawn.

    * ``classes_complete_in`` "slice" ("case"): a class without annotation in an annotated slice (case) is not there.
    * ``reach_mm``: nothing of a class lies farther from its annotated voxels than its reach. The distance is exact, in
      mm, from voxel centre to voxel centre, and goes through all three axes. A case without the class says nothing.
    * ``background_encloses``: see :func:`autoseg.annotation.enclosure.enclosed`; slice by slice where there is one
      slice, where ``slice_axis`` is said or shown by the drawing, or where the slices are at least three times as far
      apart as their pixels; else through the volume.

    Which axis counts the slices: :func:`autoseg.annotation.slices.case_axis`; where nothing tells,
    ``classes_complete_in`` "slice" says nothing.

    Parameters
    ----------
    codes, label_sets
        The drawn target: (*S) with three axes, and (N, K). Codes 0..K-1 are the single classes.
    spacing
        mm, (z, y, x).
    protocol
        With what was estimated filled in (:func:`autoseg.inspection.statements.settled`); a reach that is still "auto"
        promises nothing.
    statement
        What is said of the case: promises hold for the classes that its annotators looked for, ``statement.annotated``.

    Returns
    -------
    A case without annotation, or in which every voxel is drawn, gives one row.
    """
    touched = touched_classes(label_sets, statement)
    raw, table = _narrowed(codes, label_sets, touched, spacing, protocol, statement)
    is_drawn = np.logical_or.reduce(touched, axis=1)
    if len(table) > 1 and is_drawn.any():
        raw[is_drawn[codes]] = 0
    return Inference(*compacted(raw, table))


def find_kept_open(
    codes: CodeArray,
    label_sets: BoolArray,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    *,
    statement: CaseStatement = _NOTHING_SAID,
) -> tuple[KeptOpen, ...]:
    """Return what each promise would take from drawn sets if only classes drawn alone counted as annotation.

    Nothing is taken from them: the annotators touched one of these classes there. But they may have meant a narrower
    one. Parameters as :func:`infer`; without drawn sets of several classes nothing is looked at.
    """
    touched = touched_classes(label_sets, statement)
    is_set = np.logical_or.reduce(touched, axis=1) & (label_sets.sum(axis=1) > 1)
    if not is_set[np.unique(codes)].any():
        return ()
    alone = touched & ~is_set[:, None]
    found = []
    for name, single in protocol.single_promises().items():
        raw, table = _narrowed(codes, label_sets, alone, spacing, single, statement)
        taken = (label_sets[:, None] & ~table).any(axis=2) & is_set[:, None]  # (N, M)
        where = taken[codes, raw]
        n_voxels = int(np.count_nonzero(where))
        if n_voxels:
            voxel = tuple(int(index) for index in np.unravel_index(int(np.argmax(where)), where.shape))
            drawn, left = label_sets[codes[voxel]], table[raw[voxel]]
            classes, kept = (tuple(np.flatnonzero(row).tolist()) for row in (drawn, drawn & ~left))
            found.append(KeptOpen(name, voxel, classes, kept, n_voxels))
    return tuple(found)


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


def _narrowed(
    codes: CodeArray,
    label_sets: BoolArray,
    touched: BoolArray,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    statement: CaseStatement,
) -> tuple[CodeArray, BoolArray]:
    """Return the inferred map and its table in the axes of the file, whatever was drawn at a voxel."""
    known_axis = case_axis(codes.shape, spacing, protocol.slice_axis)
    axis = 0 if known_axis is None else known_axis
    moved = np.moveaxis(codes, axis, 0)
    drawn = _Drawn(
        codes=moved,
        touched=touched,
        spacing=(spacing[axis], *(edge for other, edge in enumerate(spacing) if other != axis)),
        annotated=annotated_slices(moved, label_sets, statement),
        has_slices=known_axis is not None,
        encloses_by_slice=len(moved) == 1
        or protocol.slice_axis is not None
        or spacing_axis(spacing, ANISOTROPY) is not None,
    )
    inferred: CodeArray = np.zeros(moved.shape, dtype=np.uint8)
    table = np.ones((1, label_sets.shape[1]), dtype=bool)
    promised = promised_classes(label_sets.shape[1], statement)
    reach = resolve_reach(protocol, label_sets.shape[1])
    for index in promised:
        excluded = _excluded(drawn, protocol.classes_complete_in, reach.get(index), index)
        if excluded is not None:
            inferred, table = without(inferred, table, excluded, [index])
    if protocol.background_encloses:
        foreground = np.logical_or.reduce(touched[:, 1:], axis=1)[moved]
        outside = enclosed(
            moved == 0, foreground, drawn.spacing, gap_mm=protocol.gap_mm, by_slice=drawn.encloses_by_slice
        )
        inferred, table = without(inferred, table, outside, list(promised))
    return np.ascontiguousarray(np.moveaxis(inferred, 0, axis)), table


def _excluded(drawn: _Drawn, complete_in: str | None, reach_mm: float | None, index: int) -> BoolArray | None:
    """(*S): voxels of which the class ``index`` is excluded by completeness or by its reach; None: of no voxel."""
    if complete_in is None and reach_mm is None:
        return None
    own = np.zeros(drawn.codes.shape, dtype=bool)
    for code in np.flatnonzero(drawn.touched[:, index]):
        own |= drawn.codes == code
    holds = own.any(axis=tuple(range(1, own.ndim)))
    excluded = np.zeros(own.shape, dtype=bool)
    if reach_mm is not None and holds.any():
        excluded = ~within(own, drawn.spacing, reach_mm)
    if complete_in == "slice" and drawn.has_slices:
        excluded[drawn.annotated & ~holds] = True
    elif complete_in == "case" and drawn.annotated.any() and not holds.any():
        excluded[:] = True
    return excluded
