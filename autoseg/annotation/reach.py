"""Estimate of the reach: how far a voxel of a class can lie from annotation of the class, in mm.

It is estimated only from cases in which the class is densely annotated. Strokes do not show how large an object is:
lines along its border, or one patch in its middle, may be short in a large object. If every voxel of a class is known,
its largest extent bounds the distance of any voxel of the class from any other, in this case and in cases like it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from autoseg.annotation.touches import promised_classes, touched_classes
from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.dataset.estimates import ReachEstimate
from autoseg.dataset.labels import CaseStatement
from autoseg.dataset.protocol import AnnotationProtocol

AUTO = "auto"
MARGIN = 1.25
"""Factor on the largest diameter, because other cases may contain larger objects."""
LEAST_CASES = 3
"""Number of cases in which a class must be densely annotated. Fewer do not show how much its size varies."""
_NO_STATEMENT = CaseStatement()


@dataclass(frozen=True, slots=True)
class ClassExtents:
    """Extents of the classes in one case: diagonals, in mm, of the boxes around their annotated voxels."""

    known: Mapping[int, float] = field(default_factory=dict)
    """Class index -> extent, for classes that occur and are decided at every voxel of the case (dense annotation)."""
    drawn: Mapping[int, float] = field(default_factory=dict)
    """Class index -> extent, for the other annotated classes: a lower bound of the true extent."""


def is_estimated(protocol: AnnotationProtocol) -> bool:
    """Whether the protocol leaves a reach to be estimated ("auto")."""
    promised = protocol.reach_mm
    return AUTO in promised.values() if isinstance(promised, Mapping) else promised == AUTO


def estimated_classes(protocol: AnnotationProtocol, n_classes: int) -> frozenset[int]:
    """Return the indices of the foreground classes whose reach is to be estimated ("auto")."""
    promised = protocol.reach_mm
    by_class = promised if isinstance(promised, Mapping) else dict.fromkeys(range(1, n_classes), promised)
    return frozenset(index for index, reach in by_class.items() if reach == AUTO)


def resolve_reach(
    protocol: AnnotationProtocol, n_classes: int, estimates: Mapping[int, ReachEstimate] | None = None
) -> dict[int, float]:
    """Return class index -> reach in mm for every foreground class that has one.

    "auto" is replaced by the estimate of the class. A class without an estimate is left out: nothing is promised of it.
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
    codes: CodeArray, label_sets: BoolArray, spacing: Sequence[float], statement: CaseStatement = _NO_STATEMENT
) -> ClassExtents:
    """Return the extents, in mm, of the classes in one case; empty without annotation.

    Classes that are not in ``statement.annotated`` are left out.

    Parameters
    ----------
    codes, label_sets
        The drawn target: (z, y, x) and (N, K).
    spacing
        mm, (z, y, x).
    statement
        Statement of dataset.json about the case.
    """
    occurs = np.bincount(codes.reshape(-1), minlength=len(label_sets)) > 0
    is_open = (label_sets.sum(axis=1) != 1) & occurs
    boxes = ndimage.find_objects(np.add(codes, 1, dtype=np.uint16))  # by code
    touched = touched_classes(label_sets, statement)
    known: dict[int, float] = {}
    drawn: dict[int, float] = {}
    for index in promised_classes(label_sets.shape[1], statement):
        members = [boxes[code] for code in np.flatnonzero(touched[:, index] & occurs)]
        if not members:
            continue
        extent = np.ptp([[[side.start, side.stop - 1] for side in box] for box in members], axis=(0, 2))
        is_known = not (is_open & label_sets[:, index]).any()
        (known if is_known else drawn)[index] = float(np.linalg.norm(extent * spacing))
    return ClassExtents(known, drawn)


def estimate_reach(cases: Collection[ClassExtents]) -> dict[int, ReachEstimate]:
    """Return class index -> estimate of the reach over all cases.

    The estimate is 1.25 times the largest extent, rounded up to 0.1 mm: no voxel of the class lies farther from another
    one. A class that is densely annotated in fewer than ``LEAST_CASES`` cases has no estimate.
    """
    estimates = {}
    for index in sorted({index for case in cases for index in case.known}):
        dense = [case.known[index] for case in cases if index in case.known]
        if len(dense) < LEAST_CASES:
            continue
        diameter = max(*dense, *(case.drawn.get(index, 0.0) for case in cases))
        reach_mm = math.ceil(10 * MARGIN * diameter) / 10
        if reach_mm > 0:
            estimates[index] = ReachEstimate(reach_mm=reach_mm, diameter_mm=round(diameter, 2), n_cases=len(dense))
    return estimates
