"""Estimate how far a class may lie from its annotation: only where the class is densely annotated in some cases.

Strokes do not tell how large an object is: lines inside and outside of its border, or one patch in its middle, are
short however large it is. Where every voxel of a class is known, its largest extent is a bound that holds wherever
another case of its size is touched.
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
"""Factor on the largest diameter, since other cases may hold larger objects."""
LEAST_CASES = 3
"""Cases in which a class must be densely annotated: fewer do not tell how much its size varies."""
_NOTHING_SAID = CaseStatement()


@dataclass(frozen=True, slots=True)
class ReachEvidence:
    """What one case says about how far two voxels of a class lie apart, mm: the diagonal of the box around them."""

    known: Mapping[int, float] = field(default_factory=dict)
    """Class index -> diagonal, where it is known of every voxel whether it is of the class, and some are."""
    drawn: Mapping[int, float] = field(default_factory=dict)
    """The same around what was drawn as the class, elsewhere."""


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
    codes: CodeArray, label_sets: BoolArray, spacing: Sequence[float], statement: CaseStatement = _NOTHING_SAID
) -> ReachEvidence:
    """Return what a case, codes (z, y, x) and sets (N, K), says about the size of its classes.

    Classes that its annotators did not look for are left out. ``spacing`` in mm.
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
    return ReachEvidence(known, drawn)


def estimate_reach(evidence: Collection[ReachEvidence]) -> dict[int, ReachEstimate]:
    """Return class index -> estimate over all cases.

    It is 1.25 times the largest diameter, rounded up to 0.1 mm: from anything that was drawn of a class, no other voxel
    of it lies farther. A class that is densely annotated in fewer than ``LEAST_CASES`` cases has no estimate.
    """
    estimates = {}
    for index in sorted({index for case in evidence for index in case.known}):
        dense = [case.known[index] for case in evidence if index in case.known]
        if len(dense) < LEAST_CASES:
            continue
        diameter = max(*dense, *(case.drawn.get(index, 0.0) for case in evidence))
        reach_mm = math.ceil(10 * MARGIN * diameter) / 10
        if reach_mm > 0:
            estimates[index] = ReachEstimate(reach_mm=reach_mm, diameter_mm=round(diameter, 2), n_cases=len(dense))
    return estimates
