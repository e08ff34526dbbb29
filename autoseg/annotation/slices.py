"""Across which axis people drew slice by slice: said, or shown by what they drew, or by an unambiguous spacing."""

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
"""A plane of which at least this share is drawn was drawn as a whole."""
THIN = 2.0
"""Planes that were drawn in come in runs of at most so many neighbours, on average, across the axis of the slices."""
LONGER = 2.0
"""Along the other axes these runs are at least so many times as long."""
MANY = 10
"""From so many runs on that is enough. Fewer lie like that by chance, unless the other axes show so many times as many
planes, too, or runs of ``LONG`` planes."""
LONG = 8.0
LEAST_KINDS = 0.75
"""Of the classes that the planes of another axis show: slices that people drew in show most classes at once."""
CLEARLY_COARSER = 2.0
"""Times the two other spacings; below, people may as well have drawn across another axis."""
_SAME = 0.01
"""Relative difference of spacings that counts as none."""
_NOTHING_SAID = CaseStatement()
_NONE = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class SliceEvidence:
    """How what is drawn lies in the planes across each axis (z, y, x) of one case; ``+`` adds cases."""

    planes: tuple[int, ...] = _NONE
    """Planes with anything drawn."""
    runs: tuple[int, ...] = _NONE
    """Runs of neighbours among them."""
    whole: tuple[int, ...] = _NONE
    """Planes drawn as a whole."""
    classes: tuple[int, ...] = _NONE
    """Drawn kinds of annotation, summed over the planes."""
    spacing_axis: int | None = None
    """The axis that the spacing of the case shows beyond doubt."""
    is_flat: bool = False
    """One voxel along an axis: the case is one slice."""

    def __add__(self, other: SliceEvidence) -> SliceEvidence:
        """Add the counts of two cases."""
        return SliceEvidence(
            planes=_sums(self.planes, other.planes),
            runs=_sums(self.runs, other.runs),
            whole=_sums(self.whole, other.whole),
            classes=_sums(self.classes, other.classes),
        )

    @property
    def drawn_axis(self) -> int | None:
        """The only axis across which the drawing lies in slices; None where none or several would do."""
        if not any(self.planes):
            return None
        found = [axis for axis in range(3) if self._lies_in_slices(axis)]
        return found[0] if len(found) == 1 else None

    def _lies_in_slices(self, axis: int) -> bool:
        """Whether whole planes, or thin runs of planes, lie across ``axis`` and across no other one.

        Aligned strokes can fill planes of another axis: then the slices proper show more classes each.
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
    codes: CodeArray, label_sets: BoolArray, spacing: Sequence[float], statement: CaseStatement = _NOTHING_SAID
) -> SliceEvidence:
    """Return what the drawing of one case, codes (z, y, x) and sets (N, K), and its spacing (mm) say about slices.

    A case without annotation, or of which every voxel is drawn, says nothing by its drawing.
    """
    evidence = SliceEvidence(spacing_axis=spacing_axis(spacing), is_flat=1 in codes.shape)
    if evidence.is_flat:
        return evidence
    drawn = np.logical_or.reduce(touched_classes(label_sets, statement), axis=1)[codes]
    places = np.nonzero(drawn)
    if not 0 < len(places[0]) < codes.size:
        return evidence
    kinds = codes[places]
    counts = [np.bincount(place, minlength=length) for place, length in zip(places, codes.shape, strict=True)]
    return replace(
        evidence,
        planes=tuple(int(np.count_nonzero(count)) for count in counts),
        runs=tuple(_n_runs(count > 0) for count in counts),
        whole=tuple(
            int(np.count_nonzero(count >= WHOLE * codes.size / length))
            for count, length in zip(counts, codes.shape, strict=True)
        ),
        classes=tuple(_n_kinds(place, kinds, len(label_sets)) for place in places),
    )


def common_axis(cases: Collection[SliceEvidence]) -> int | None:
    """Return the axis that the drawings of all cases together show; None where they do not.

    It must not be another one than the drawing of a single case shows, nor may cases be stored in several orders, as
    spacings tell: then each goes by its own spacing.
    """
    deep = [case for case in cases if not case.is_flat]
    axis = sum(deep, SliceEvidence()).drawn_axis
    shown = {case.drawn_axis for case in deep} - {None, axis}
    stored = {case.spacing_axis for case in deep} - {None}
    return None if shown or len(stored) > 1 else axis


def is_clear(case: SliceEvidence, axis: int | None) -> bool:
    """Whether the slices of a case are known, with the axis that all cases share (None: there is none)."""
    if case.is_flat or axis is not None:
        return True
    return case.spacing_axis is not None and case.drawn_axis in (None, case.spacing_axis)


def spacing_axis(spacing: Sequence[float], ratio: float = CLEARLY_COARSER) -> int | None:
    """Return the axis whose spacing is at least ``ratio`` times that of the two others, which agree within 1 %."""
    for axis, own in enumerate(spacing):
        one, other = (edge for index, edge in enumerate(spacing) if index != axis)
        if math.isclose(one, other, rel_tol=_SAME) and own >= ratio * max(one, other) * (1 - _SAME):
            return axis
    return None


def case_axis(shape: Sequence[int], spacing: Sequence[float], axis: int | None) -> int | None:
    """Return the axis that counts the slices of a case; None where nothing tells.

    Parameters
    ----------
    shape, spacing
        Voxels and mm, (z, y, x). An image of one voxel along an axis has its slices there.
    axis
        As said in dataset.json or shown by the drawings of the data set; None leaves it to the spacing.
    """
    if 1 in shape:
        return list(shape).index(1)
    return spacing_axis(spacing) if axis is None else axis


def _sums(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _n_runs(used: BoolArray) -> int:
    return int(used[0]) + int(np.count_nonzero(used[1:] & ~used[:-1]))


def _n_kinds(place: NDArray[np.intp], kinds: CodeArray, n_codes: int) -> int:
    """Return the number of different (plane, code) pairs."""
    seen = np.zeros((int(place.max()) + 1, n_codes), dtype=bool)
    seen[place, kinds] = True
    return int(np.count_nonzero(seen))
