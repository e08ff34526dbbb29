"""Estimate how far a class may lie from its annotation, from how it was annotated: one distance per class.

Three kinds of evidence, each measured per case: how far the annotation of the class itself extends (in densely drawn
slices or cases that is the object), how far annotated background keeps from it, and how far annotated slices lie apart.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from autoseg.annotation.promises import annotated_slices, promised_classes
from autoseg.core.case import BoolArray, CodeArray
from autoseg.core.geometry import slice_axis
from autoseg.core.labels import CaseStatement, informative_codes
from autoseg.core.protocol import AnnotationProtocol
from autoseg.core.reach import ReachEstimate

AUTO = "auto"
MARGIN = 1.25
"""Factor on what was measured, since annotation rarely touches the far end of an object."""
MOST = 95.0
"""Percentile over cases of what must be reached: of the extents and the gaps."""
SPARSE = 0.5
"""Where at least this share of a slice (or case) is annotated, background is not drawn around something."""
_MAX_POINTS = 20_000
_MAX_BACKGROUND = 2_000
_NOTHING_SAID = CaseStatement()


@dataclass(frozen=True, slots=True)
class ReachEvidence:
    """What one case says about the reach of its classes; mm, the largest over its slices where slices count alone."""

    extent_mm: Mapping[int, float] = field(default_factory=dict)
    """Class index -> half of the diagonal of the box around its annotated voxels."""
    background_mm: Mapping[int, float] = field(default_factory=dict)
    """Class index -> median distance from annotated background to the nearest annotated voxel of the class."""
    gap_mm: float = 0.0
    """From one annotated slice to the next where they are not neighbours."""


def is_estimated(protocol: AnnotationProtocol) -> bool:
    """Whether a reach is left to be estimated."""
    promised = protocol.reach_mm
    return AUTO in promised.values() if isinstance(promised, Mapping) else promised == AUTO


def estimated_classes(protocol: AnnotationProtocol, n_classes: int) -> frozenset[int]:
    """Return the foreground classes whose reach is left to be estimated."""
    promised = protocol.reach_mm
    by_class = promised if isinstance(promised, Mapping) else dict.fromkeys(range(1, n_classes), promised)
    return frozenset(index for index, reach in by_class.items() if reach == AUTO)


def resolve_reach(
    protocol: AnnotationProtocol, n_classes: int, estimates: Mapping[int, ReachEstimate] | None = None
) -> dict[int, float]:
    """Return class index -> reach in mm for every foreground class that has one.

    "auto" takes the estimate of the class; a class without one promises nothing.
    """
    promised = protocol.reach_mm
    if promised is None:
        return {}
    by_class = promised if isinstance(promised, Mapping) else dict.fromkeys(range(1, n_classes), promised)
    known = {} if estimates is None else estimates
    return {
        index: known[index].reach_mm if reach == AUTO else float(reach)
        for index, reach in sorted(by_class.items())
        if reach != AUTO or index in known
    }


def measure_reach(
    codes: CodeArray,
    label_sets: BoolArray,
    spacing: Sequence[float],
    protocol: AnnotationProtocol,
    *,
    statement: CaseStatement = _NOTHING_SAID,
) -> ReachEvidence:
    """Return what a case says about the reach of its classes.

    Slices count alone where the reach will be measured within them, that is where classes are complete in slices.

    Parameters
    ----------
    codes, label_sets
        The drawn target: (*S) with three axes, and (N, K).
    spacing
        mm, (z, y, x).
    statement
        What is said of the case.
    """
    axis = slice_axis(codes.shape, spacing)
    moved = np.moveaxis(codes, axis, 0)
    moved_spacing = (spacing[axis], *(edge for other, edge in enumerate(spacing) if other != axis))
    numbers = np.flatnonzero(annotated_slices(moved, label_sets, statement))
    extents: dict[int, float] = {}
    backgrounds: dict[int, float] = {}
    classes = promised_classes(label_sets.shape[1], statement)
    for unit, edges in _units(moved, numbers, moved_spacing, alone=protocol.classes_complete_in == "slice"):
        background = _background(unit, informative_codes(label_sets)) * edges
        for index in classes:
            points = np.argwhere(unit == index) * edges
            if len(points) == 0:
                continue
            half = float(np.linalg.norm(np.ptp(points, axis=0))) / 2
            extents[index] = max(half, extents.get(index, 0.0))
            if len(background):
                tree = KDTree(_thinned(points, _MAX_POINTS))
                distance = float(np.median(tree.query(_thinned(background, _MAX_BACKGROUND))[0]))
                backgrounds[index] = max(distance, backgrounds.get(index, 0.0))
    apart = np.diff(numbers)
    gap = float(apart.max(initial=0)) * moved_spacing[0] if (apart > 1).any() else 0.0
    return ReachEvidence(extents, backgrounds, gap)


def estimate_reach(evidence: Collection[ReachEvidence]) -> dict[int, ReachEstimate]:
    r"""Return class index -> estimate over all cases.

    .. math:: r = \max(1.25 \max(P_{95}(\text{extent}), P_{50}(\text{background})), P_{95}(\text{gap}))

    rounded up to 0.1 mm. The first term is at least the half extent, since a stroke through an object leaves less than
    that to its ends and sides; background keeps outside of the object, so its distance is an upper bound that matters
    where objects carry a single point. A class with single points only, and without sparse background, has no estimate.
    """
    gap = _percentile([case.gap_mm for case in evidence], MOST)
    estimates = {}
    for index in sorted({index for case in evidence for index in case.extent_mm}):
        extents = [case.extent_mm[index] for case in evidence if index in case.extent_mm]
        backgrounds = [case.background_mm[index] for case in evidence if index in case.background_mm]
        extent = _percentile(extents, MOST)
        background = _percentile(backgrounds, 50.0) if backgrounds else None
        longest = MARGIN * max(extent, background or 0.0)
        if longest > 0:
            estimates[index] = ReachEstimate(
                reach_mm=math.ceil(10 * max(longest, gap)) / 10,
                extent_mm=round(extent, 2),
                background_mm=None if background is None else round(background, 2),
                gap_mm=round(gap, 2),
                n_cases=len(extents),
            )
    return estimates


def _units(
    codes: CodeArray, numbers: NDArray[np.intp], spacing: tuple[float, ...], *, alone: bool
) -> Iterator[tuple[CodeArray, NDArray[np.float64]]]:
    """Yield what is annotated together, with the voxel's edges: each annotated slice alone, or all of the case."""
    if not alone:
        yield codes, np.array(spacing)
        return
    for number in numbers:
        yield codes[number], np.array(spacing[1:])


def _background(unit: CodeArray, informative: BoolArray) -> NDArray[np.intp]:
    """(n, axes) indices of annotated background, none if so much is annotated that it says nothing about distances."""
    annotated = informative[unit]
    if unit.ndim == 2:  # one slice
        annotated = annotated[None]
    used = annotated.any(axis=(1, 2))
    is_sparse = used.any() and annotated[used].mean() < SPARSE
    return np.argwhere(unit == 0) if is_sparse else np.zeros((0, unit.ndim), dtype=np.intp)


def _thinned(points: NDArray[np.float64], limit: int) -> NDArray[np.float64]:
    return points[:: -(-len(points) // limit)]


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else 0.0
