"""Inference from promises about how the annotators worked: narrower label sets for unannotated voxels.

*Inferred* label sets are separate from *drawn* ones: :func:`infer` returns a second map, which holds all classes
(row 0) at annotated voxels. Promises never exclude background, so every inferred set contains it.
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
"""Ratio of slice to pixel spacing from which lines of background count as drawn slice by slice."""
TOGETHER = "the promises together"
_NO_STATEMENT = CaseStatement()


@dataclass(frozen=True, slots=True)
class Inference:
    """Label sets of the voxels of one case that follow from promises, apart from the drawn label sets."""

    codes: CodeArray
    """(*S) uint8, row numbers of ``label_sets``; 0 where nothing is inferred."""
    label_sets: BoolArray
    """(M, K). Row 0 contains all classes; every row contains background."""


@dataclass(frozen=True, slots=True)
class KeptOpen:
    """Voxels annotated with a set of classes whose set a promise leaves as it is, though it could be narrower.

    The promise would narrow the set if only voxels annotated with a single class counted as annotation.
    """

    promise: str
    """Key of the promise in dataset.json."""
    voxel: tuple[int, ...]
    """Index (z, y, x) of the first such voxel, in the axes of the file."""
    classes: tuple[int, ...]
    """Classes of the set at ``voxel``."""
    kept: tuple[int, ...]
    """Those of ``classes`` that the promise would exclude."""
    n_voxels: int
    """Number of such voxels, over all sets."""


@dataclass(frozen=True, slots=True)
class PromiseCounts:
    """Numbers of voxels of a case that promises narrow to fewer classes, and of those that they narrow wrongly.

    ``+`` adds the numbers of two cases.
    """

    voxels: int = 0
    """All voxels of the case."""
    drawn: int = 0
    """Voxels whose drawn set is not all classes."""
    narrowed: int = 0
    """Voxels that have fewer classes with the promises than without."""
    settled: int = 0
    """Voxels that the promises narrow to a single class."""
    informative: int = 0
    """Voxels whose set, drawn and inferred together, is not all classes."""
    foreground: int = 0
    """Foreground voxels of the dense reference; 0 without a reference."""
    wrong: int = 0
    """Those of ``foreground`` whose true class the promises exclude, although the drawn set contains it."""

    def __add__(self, other: PromiseCounts) -> PromiseCounts:
        """Add the counts of two cases."""
        return PromiseCounts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def share(self, part: str) -> float:
        """Return ``part`` over all voxels, 0 to 1; for ``"wrong"`` over ``foreground``. 0 if that number is 0."""
        whole = self.foreground if part == "wrong" else self.voxels
        return int(getattr(self, part)) / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Drawn target of a case, with its slices along axis 0."""

    codes: CodeArray
    """(*S)."""
    touched: BoolArray
    """(N, K): classes that a voxel of each code annotates."""
    spacing: tuple[float, ...]
    """mm, one per axis of ``codes``."""
    annotated: BoolArray
    """(slices,): whether the slice has an annotated voxel."""
    has_slices: bool
    """Whether axis 0 is known to count the slices. If not, promises about slices exclude nothing."""
    encloses_by_slice: bool
    """Whether ``background_encloses`` is evaluated in each slice alone."""


def infer(
    codes: CodeArray,
    label_sets: BoolArray,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    *,
    statement: CaseStatement = _NO_STATEMENT,
) -> Inference:
    """Return the label sets that promises leave to the unannotated voxels of a case.

    A class is *annotated* at a voxel that was drawn as this class, alone or in a set with others. A slice (or case) is
    annotated if a single class (background too) or a set without background was drawn in it. Each promise excludes the
    same classes alone as together with others. No promise excludes a class at an annotated voxel.

    * ``classes_complete_in`` "slice" ("case"): a class without annotation in an annotated slice (case) is absent there.
    * ``reach_mm``: no voxel of a class lies farther than its reach from the annotated voxels of the class. The distance
      is exact, in mm, between voxel centres and through all three axes. It excludes nothing in a case in which the
      class is not annotated.
    * ``background_encloses``: see :func:`autoseg.annotation.enclosure.enclosed`. It is evaluated slice by slice if the
      case has one slice, if ``slice_axis`` is stated or was derived from the annotation, or if the slice spacing is at
      least three times the pixel spacing; otherwise through the volume.

    :func:`autoseg.annotation.slices.case_axis` determines the slice axis. If it is unknown, ``classes_complete_in``
    "slice" excludes nothing.

    Parameters
    ----------
    codes, label_sets
        The drawn target: (*S) with three axes, and (N, K). Codes 0..K-1 are the single classes.
    spacing
        mm, (z, y, x).
    protocol
        Promises, with estimates filled in (:func:`autoseg.inspection.statements.with_estimates`). A reach that is still
        "auto" excludes nothing.
    statement
        Statement of dataset.json about the case. Promises hold for the classes in ``statement.annotated``.

    Returns
    -------
    The inferred sets on the grid of ``codes``; only row 0 if the case has no annotated or no unannotated voxel.
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
    statement: CaseStatement = _NO_STATEMENT,
) -> tuple[KeptOpen, ...]:
    """Return, per promise, the annotated sets that it would narrow if only single classes counted as annotation.

    :func:`infer` does not narrow these sets, because the annotators marked one of their classes there. But the
    annotators may have known which one. Parameters as in :func:`infer`: ``codes`` (*S), ``label_sets`` (N, K),
    ``spacing`` in mm. () if no voxel is annotated with a set of several classes.
    """
    touched = touched_classes(label_sets, statement)
    is_set = np.logical_or.reduce(touched, axis=1) & (label_sets.sum(axis=1) > 1)
    if not is_set[np.unique(codes)].any():
        return ()
    alone = touched & ~is_set[:, None]
    items = []
    for name, single in protocol.single_promises().items():
        raw, table = _narrowed(codes, label_sets, alone, spacing, single, statement)
        taken = (label_sets[:, None] & ~table).any(axis=2) & is_set[:, None]  # (N, M)
        where = taken[codes, raw]
        n_voxels = int(np.count_nonzero(where))
        if n_voxels:
            voxel = tuple(int(index) for index in np.unravel_index(int(np.argmax(where)), where.shape))
            drawn, left = label_sets[codes[voxel]], table[raw[voxel]]
            classes, kept = (tuple(np.flatnonzero(row).tolist()) for row in (drawn, drawn & ~left))
            items.append(KeptOpen(name, voxel, classes, kept, n_voxels))
    return tuple(items)


def check_against_reference(
    codes: CodeArray, label_sets: BoolArray, inference: Inference, dense: NDArray[np.integer[Any]] | None = None
) -> PromiseCounts:
    """Count the voxels that an inference narrows and, against a dense reference, those that it narrows wrongly.

    Parameters
    ----------
    codes, label_sets
        The drawn target, (*S) and (N, K).
    inference
        Inferred label sets on the same grid.
    dense
        (*S) class indices of the reference; K and above where the truth is unknown. If None, ``foreground`` and
        ``wrong`` are 0.
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
    return PromiseCounts(
        voxels=codes.size,
        drawn=int((n_drawn < n_classes)[codes].sum()),
        narrowed=int(is_narrowed[pairs].sum()),
        settled=int((is_narrowed & (n_left == 1))[pairs].sum()),
        informative=int((n_left < n_classes)[pairs].sum()),
        foreground=foreground,
        wrong=wrong,
    )


def annotated_slices(codes: CodeArray, label_sets: BoolArray, statement: CaseStatement = _NO_STATEMENT) -> BoolArray:
    """Return (slices,) bool: whether each slice along axis 0 of ``codes`` (*S) contains an annotated voxel.

    ``label_sets`` is (N, K). A voxel is annotated if its set is a single class (background too), or a set without
    background. If background is declared absent from the case, a set without background does not count.
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
    """Return inferred codes (*S) in the axes of the file and their table (M, K), also at annotated voxels.

    ``codes`` (*S), ``label_sets`` and ``touched`` (N, K), ``spacing`` in mm.
    """
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
        separated = enclosed(
            moved == 0, foreground, drawn.spacing, gap_mm=protocol.gap_mm, by_slice=drawn.encloses_by_slice
        )
        inferred, table = without(inferred, table, separated, list(promised))
    return np.ascontiguousarray(np.moveaxis(inferred, 0, axis)), table


def _excluded(drawn: _Drawn, complete_in: str | None, reach_mm: float | None, index: int) -> BoolArray | None:
    """Return a mask (*S) of voxels where completeness or reach excludes class ``index``; None without a promise."""
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
