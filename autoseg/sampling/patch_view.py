"""View of a training patch for people: the classes that each voxel may have, and the origin of the patch."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoseg.augmentation.sections import Section, runs
from autoseg.cases.code_table import CodeTable
from autoseg.core.arrays import BoolArray, CodeArray, Float32Array
from autoseg.dataset.labels import Labels
from autoseg.sampling.origin import Origin

MeaningKind: TypeAlias = Literal["annotated", "held out", "inferred", "unannotated"]
NAMED = 4
"""Largest number of classes that are named one by one; larger sets are named by the missing ones if that is shorter."""


class Meaning(NamedTuple):
    """Meaning of a code: the kind of its annotation, and the possible classes."""

    kind: MeaningKind
    """Annotated; annotated but held out from training; narrowed by a promise only; or unannotated."""
    classes: frozenset[int]
    """Indices of the classes that a voxel with the code may have."""

    def text(self, labels: Labels) -> str:
        """Return the meaning in words, for a legend."""
        names = class_set_name(self.classes, labels)
        if self.kind == "unannotated":
            absent = [name for index, name in enumerate(labels.class_names) if index not in self.classes]
            return f"unannotated, not {' or '.join(absent)}" if absent else "unannotated"
        return names + {"annotated": "", "held out": " (held out)", "inferred": " (promised)"}[self.kind]


def meanings_of(table: CodeTable) -> tuple[Meaning, ...]:
    """Return the meaning of each of the N codes of a table."""
    annotated = table.annotated
    meanings = []
    for code in range(len(table)):
        kind: MeaningKind
        row = table.drawn[code]
        if table.held_out[code]:
            kind = "held out"
        elif annotated[code]:
            kind = "annotated"
        elif (table.learnt[code] != row).any():
            kind, row = "inferred", table.learnt[code]
        else:
            kind = "unannotated"
        meanings.append(Meaning(kind, frozenset(int(index) for index in np.flatnonzero(row))))
    return tuple(meanings)


def class_set_name(classes: Collection[int], labels: Labels) -> str:
    """Return a name for a set of classes: ``liver or tumour``, or ``any but liver`` for a large set."""
    inside = [name for index, name in enumerate(labels.class_names) if index in classes]
    outside = [name for index, name in enumerate(labels.class_names) if index not in classes]
    if len(inside) > NAMED and len(outside) < len(inside):
        return f"any but {', '.join(outside)}" if outside else "any class"
    return " or ".join([*([", ".join(inside[:-1])] if inside[1:] else []), *inside[-1:]]) or "no class"


@dataclass(frozen=True, slots=True)
class PatchView:
    """One training patch, as the network gets it."""

    case: str
    iteration: int
    sample: int
    """Index in its batch, from 0."""
    image: Float32Array
    """(C, *P) float32, normalised and augmented."""
    codes: CodeArray
    """(*P) integers."""
    meanings: tuple[Meaning, ...]
    """(N,) meaning of each code."""
    spacing: tuple[float, ...]
    """Spacing in mm along each patch axis."""
    origin: Origin
    centre_in_file: tuple[float, float, float]
    """Point (z, y, x) of the patch's centre, in voxels of the file; of a box, of the volume in which it lies."""
    numbers: tuple[Float32Array, ...] = ()
    """Of a regression, each target as the network learns it, (*P), NaN where unknown."""

    def where(self, *kinds: MeaningKind) -> BoolArray:
        """Return (*P) bool: voxels whose code is of one of these kinds."""
        mask: BoolArray = np.array([meaning.kind in kinds for meaning in self.meanings])[self.codes]
        return mask

    @property
    def annotated_share(self) -> float:
        """Share of annotated voxels in the patch, those held out from training included."""
        return float(self.where("annotated", "held out").mean())

    def counts(self) -> dict[Meaning, int]:
        """Return the number of voxels of each meaning that occurs, largest number first."""
        n_voxels: dict[Meaning, int] = {}
        for code, count in zip(*np.unique(self.codes, return_counts=True), strict=True):
            meaning = self.meanings[int(code)]
            n_voxels[meaning] = n_voxels.get(meaning, 0) + int(count)
        return dict(sorted(n_voxels.items(), key=lambda item: -item[1]))

    def reason(self, labels: Labels) -> str:
        """Return the reason for the place of the patch, in words."""
        origin = self.origin
        if origin.head is not None:
            return f"sampled for {labels.heads[origin.head].name}"
        if origin.code is not None:
            return "sampled around annotation"
        return "sampled anywhere, as context" if origin.is_context else "sampled anywhere"

    def transform(self) -> str:
        """Return the transform in words: ``turned by 12 degrees, enlarged 1.3 times, mirrored in y``; "" for none.

        The angle is that of the whole rotation, about any axis.
        """
        n_axes = len(self.origin.matrix)
        scale, angle = scale_and_angle(np.asarray(self.origin.matrix))
        parts = []
        if round(angle):
            parts.append(f"turned by {angle:.0f} degrees")
        if round(scale, 3) != 1:
            parts.append(f"enlarged {1 / scale:.2f} times" if scale < 1 else f"reduced {scale:.2f} times")
        if self.origin.displaced:
            parts.append(f"displaced by up to {self.origin.displaced:.1f} voxels")
        parts += section_moves(self.origin.sections)
        if self.origin.order and self.origin.order != tuple(range(n_axes)):
            swapped = [axis for axis, source in enumerate(self.origin.order) if axis != source]
            parts.append(f"transposed in {', '.join('zyx'[axis - n_axes] for axis in swapped)}")
        axes = [name for name, is_mirrored in zip("zyx"[-n_axes:], self.origin.mirrors, strict=True) if is_mirrored]
        if axes:
            parts.append(f"mirrored in {', '.join(axes)}")
        return ", ".join(parts)

    def as_json(self, labels: Labels) -> dict[str, Any]:
        """Return everything but the voxels as plain JSON values; points are in voxels, by axis name."""
        origin = self.origin
        return {
            "case": self.case,
            "iteration": self.iteration,
            "sample": self.sample,
            "centre": _by_axis(origin.centre),
            "centre_in_file": _by_axis(self.centre_in_file),
            "shape": list(self.codes.shape),
            "reason": self.reason(labels),
            "forced": None if origin.head is None else labels.heads[origin.head].name,
            "mirrored": [axis for axis, flips in zip("zyx"[-self.codes.ndim :], origin.mirrors, strict=True) if flips],
            "matrix": [list(row) for row in origin.matrix],
            "order": list(origin.order or range(self.codes.ndim)),
            "moved_sections": section_moves(origin.sections),
            "displaced": round(origin.displaced, 3),
            "annotated_share": round(self.annotated_share, 6),
            "voxels": [
                {"kind": meaning.kind, "classes": [labels.class_names[k] for k in sorted(meaning.classes)], "n": count}
                for meaning, count in self.counts().items()
            ],
            "intensities": [[round(float(channel.min()), 4), round(float(channel.max()), 4)] for channel in self.image],
        }


def scale_and_angle(matrix: NDArray[np.float64]) -> tuple[float, float]:
    """Return the scale (source voxels per patch voxel) and the angle (degrees) of a rotation times a scale.

    ``matrix`` is (n, n) float64. If a 3-D matrix does not change axis 0, scale and angle are those of axes 1 and 2.
    """
    unit = np.eye(len(matrix))[0]
    moving = (
        matrix[1:, 1:] if len(matrix) == 3 and (matrix[0] == unit).all() and (matrix[:, 0] == unit).all() else matrix
    )
    scale = float(abs(np.linalg.det(moving)) ** (1 / len(moving)))
    cosine = (np.trace(moving) / scale - (len(moving) - 2)) / 2
    return scale, math.degrees(math.acos(min(1.0, max(-1.0, float(cosine)))))


def section_moves(sections: Sequence[Section]) -> list[str]:
    """Return the moves of the sections of a patch in words, by ranges of sections; [] for none."""
    if not sections:
        return []
    texts = []
    for planes, section, _ in runs(sections):
        which = f"section {planes.start}" if planes.stop - planes.start == 1 else f"sections {planes.start} on"
        if section.angle:
            texts.append(f"{which} turned by {math.degrees(section.angle):.1f} degrees")
        elif any(section.shift):
            texts.append(f"{which} shifted by {section.shift[0]:g}, {section.shift[1]:g}")
    n_missing = sections[-1].step - sections[0].step
    return [*texts, *([f"{n_missing} section{'s' * (n_missing > 1)} missing"] if n_missing else [])]


def _by_axis(point: Sequence[float]) -> dict[str, float]:
    return {axis: round(float(value), 3) for axis, value in zip("zyx", point, strict=True)}
