"""Slice axis: the axis across which people annotated slice by slice.

It is stated in dataset.json, or derived from the arrangement of annotated voxels, or from an unambiguous spacing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.touches import touched_classes
from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.dataset.labels import CaseStatement

WHOLE = 0.9
"""Annotated share from which a plane counts as annotated completely."""
THIN = 2.0
"""Largest mean length of runs of adjacent annotated planes along the slice axis."""
LONGER = 2.0
"""Least ratio of the mean length of runs along each other axis to that along the slice axis."""
MANY = 10
"""Number of runs from which ``THIN`` and ``LONGER`` suffice. Fewer runs may lie so by chance. Then each other axis must
also have ``LONGER`` times as many annotated planes, or runs of ``LONG`` planes."""
LONG = 8.0
LEAST_KINDS = 0.75
"""Least mean number of different codes in an annotated slice, relative to the planes of the other axes. Slices in which
people annotated show most classes at once."""
CLEARLY_COARSER = 2.0
"""Ratio of a spacing to both others from which it shows the slice axis. Below it, people may have annotated across
another axis."""
_SAME = 0.01
"""Relative difference up to which spacings count as equal."""
_NO_STATEMENT = CaseStatement()
_NONE = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class SliceCounts:
    """Numbers of annotated planes across each axis (z, y, x) of one case. ``+`` adds the numbers of two cases."""

    planes: tuple[int, ...] = _NONE
    """Planes with an annotated voxel."""
    runs: tuple[int, ...] = _NONE
    """Runs of adjacent annotated planes."""
    whole: tuple[int, ...] = _NONE
    """Planes that are annotated completely (share ``WHOLE``)."""
    classes: tuple[int, ...] = _NONE
    """Different codes per annotated plane, summed over the planes."""
    spacing_axis: int | None = None
    """Slice axis by the spacing alone (:func:`spacing_axis`); None if that is ambiguous."""
    is_flat: bool = False
    """Whether an axis has one voxel, so that the case is a single slice."""

    def __add__(self, other: SliceCounts) -> SliceCounts:
        """Add the numbers of two cases."""
        return SliceCounts(
            planes=_sums(self.planes, other.planes),
            runs=_sums(self.runs, other.runs),
            whole=_sums(self.whole, other.whole),
            classes=_sums(self.classes, other.classes),
        )

    @property
    def drawn_axis(self) -> int | None:
        """The only axis across which the annotation lies in slices. None if there is no such axis or several."""
        if not any(self.planes):
            return None
        axes = [axis for axis in range(3) if self._lies_in_slices(axis)]
        return axes[0] if len(axes) == 1 else None

    def _lies_in_slices(self, axis: int) -> bool:
        """Whether complete planes, or thin runs of planes, lie across ``axis`` and across no other axis.

        Aligned strokes may also form planes of another axis. Such planes show fewer different codes than the slices.
        """
        others = [other for other in range(3) if other != axis]
        if self.whole[axis] and not any(self.whole[other] for other in others):
            return True
        length = [planes / max(runs, 1) for planes, runs in zip(self.planes, self.runs, strict=True)]
        kinds = [classes / max(planes, 1) for classes, planes in zip(self.classes, self.planes, strict=True)]
        is_thin = length[axis] <= THIN and all(length[other] >= LONGER * length[axis] for other in others)
        is_sure = self.runs[axis] >= MANY or all(
            length[other] >= LONG or self.planes[other] >= LONGER * self.planes[axis] for other in others
        )
        return is_thin and is_sure and kinds[axis] >= LEAST_KINDS * max(kinds) and not any(self.whole)


def measure_slices(
    codes: CodeArray, label_sets: BoolArray, spacing: Sequence[float], statement: CaseStatement = _NO_STATEMENT
) -> SliceCounts:
    """Return the numbers of annotated planes of one case, and its slice axis by spacing.

    The numbers are 0 if no voxel, or every voxel, is annotated.

    Parameters
    ----------
    codes, label_sets
        The drawn target: (z, y, x) and (N, K).
    spacing
        mm, (z, y, x).
    statement
        Statement of dataset.json about the case.
    """
    without_planes = SliceCounts(spacing_axis=spacing_axis(spacing), is_flat=1 in codes.shape)
    if without_planes.is_flat:
        return without_planes
    drawn = np.logical_or.reduce(touched_classes(label_sets, statement), axis=1)[codes]
    places = np.nonzero(drawn)
    if not 0 < len(places[0]) < codes.size:
        return without_planes
    kinds = codes[places]
    counts = [np.bincount(place, minlength=length) for place, length in zip(places, codes.shape, strict=True)]
    return replace(
        without_planes,
        planes=tuple(int(np.count_nonzero(count)) for count in counts),
        runs=tuple(_n_runs(count > 0) for count in counts),
        whole=tuple(
            int(np.count_nonzero(count >= WHOLE * codes.size / length))
            for count, length in zip(counts, codes.shape, strict=True)
        ),
        classes=tuple(_n_kinds(place, kinds, len(label_sets)) for place in places),
    )


def common_axis(cases: Collection[SliceCounts]) -> int | None:
    """Return the slice axis that the annotation of all cases together shows; None if it shows none.

    It is also None if the annotation of a single case shows another axis, or if the spacings of the cases show
    different axes. The spacing of each case then determines its slice axis.
    """
    deep = [case for case in cases if not case.is_flat]
    axis = sum(deep, SliceCounts()).drawn_axis
    shown = {case.drawn_axis for case in deep} - {None, axis}
    stored = {case.spacing_axis for case in deep} - {None}
    return None if shown or len(stored) > 1 else axis


def is_clear(case: SliceCounts, axis: int | None) -> bool:
    """Whether the slice axis of a case is known, given the ``axis`` that all cases share (None if there is none)."""
    if case.is_flat or axis is not None:
        return True
    return case.spacing_axis is not None and case.drawn_axis in (None, case.spacing_axis)


def spacing_axis(spacing: Sequence[float], ratio: float = CLEARLY_COARSER) -> int | None:
    """Return the axis whose spacing is at least ``ratio`` times the two others, which must agree within 1 %.

    ``spacing`` in mm, (z, y, x). None if there is no such axis.
    """
    for axis, own in enumerate(spacing):
        one, other = (edge for index, edge in enumerate(spacing) if index != axis)
        if math.isclose(one, other, rel_tol=_SAME) and own >= ratio * max(one, other) * (1 - _SAME):
            return axis
    return None


def case_axis(shape: Sequence[int], spacing: Sequence[float], axis: int | None) -> int | None:
    """Return the slice axis of a case; None if it is unknown.

    Parameters
    ----------
    shape, spacing
        Voxels and mm, (z, y, x). An axis of one voxel is the slice axis.
    axis
        Slice axis stated in dataset.json or shown by the annotation of the data set. If None, the spacing determines
        it.
    """
    if 1 in shape:
        return list(shape).index(1)
    return spacing_axis(spacing) if axis is None else axis


def _sums(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _n_runs(used: BoolArray) -> int:
    """Return the number of runs of True in a mask (n,), n > 0."""
    return int(used[0]) + int(np.count_nonzero(used[1:] & ~used[:-1]))


def _n_kinds(place: NDArray[np.intp], kinds: CodeArray, n_codes: int) -> int:
    """Return the number of different pairs of a plane number in ``place`` (n,) and a code in ``kinds`` (n,)."""
    occurs = np.zeros((int(place.max()) + 1, n_codes), dtype=bool)
    occurs[place, kinds] = True
    return int(np.count_nonzero(occurs))
