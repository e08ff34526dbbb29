"""Counts over the voxels of one case: unusable intensities, label values, annotated voxels. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.core.chunks import chunks
from autoseg.dataset.labels import (
    CaseStatement,
    Labels,
    annotated_codes,
    drawn_sets,
    head_states,
    informative_codes,
    undrawn_code,
)

_BINNED_VALUES = 1 << 16


@dataclass(frozen=True, slots=True)
class ChannelCondition:
    """Unusable intensities in one channel of an image."""

    nan: int
    """Voxels that are not a number."""
    infinite: int
    """Voxels that are plus or minus infinity."""
    is_constant: bool
    """Whether all finite voxels are equal. True if there are none."""
    value: float
    """Smallest finite intensity. NaN if there is none."""
    first: str = ""
    """Box of the first voxels that are not finite, of a volume that is read block by block; otherwise ""."""


@dataclass(frozen=True, slots=True)
class CaseAnnotation:
    """Numbers of annotated voxels of a case."""

    voxels: int
    """Voxels of the label file."""
    informative: int
    """Informative voxels: those whose label set is not all classes."""
    drawn: int
    """Annotated voxels. The other informative voxels only lack the classes that are declared absent from the case."""
    positive: Mapping[str, int]
    """Head (class or region) -> voxels that certainly belong to it."""
    decided: Mapping[str, int]
    """Head -> voxels that certainly belong to it or certainly do not."""

    @property
    def annotated_fraction(self) -> float:
        """Share of informative voxels, 0 to 1. 0 if there are no voxels."""
        return self.informative / self.voxels if self.voxels else 0.0

    @property
    def drawn_fraction(self) -> float:
        """Share of annotated voxels, 0 to 1. 0 if there are no voxels."""
        return self.drawn / self.voxels if self.voxels else 0.0

    def positive_fraction(self, head: str) -> float:
        """Share of all voxels that certainly belong to ``head``, 0 to 1. 0 if there are no voxels."""
        return self.positive[head] / self.voxels if self.voxels else 0.0


def inspect_channels(image: Float32Array) -> tuple[ChannelCondition, ...]:
    """Return the condition of each channel of ``image`` (C, *S), with intensities of any unit."""
    return tuple(_inspect_channel(channel) for channel in image)


def count_values(file_labels: NDArray[Any]) -> dict[int, int]:
    """Return value -> number of voxels for an integer label map (*S), values ascending. Empty for an empty map."""
    flat = file_labels.reshape(-1)
    if flat.size and flat.dtype.kind in "ub" and int(flat.max()) < _BINNED_VALUES:
        counts = np.zeros(int(flat.max()) + 1, dtype=np.int64)
        for chunk in chunks(flat.size):  # bincount makes an 8-byte copy of what it is given
            counts += np.bincount(flat[chunk], minlength=counts.size)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(flat, return_counts=True)
    return {int(value): int(number) for value, number in zip(values, numbers, strict=True)}


def undeclared_values(counts: Mapping[int, int], labels: Labels) -> dict[int, int]:
    """Return the part of ``counts`` (file value -> voxels) whose values dataset.json does not declare."""
    declared = set(labels.file_values())
    return {value: number for value, number in counts.items() if value not in declared}


def contradictions(counts: Mapping[int, int], labels: Labels, case: str) -> dict[int, str]:
    """Return file value -> meaning for the values that occur in ``case`` although all their classes are absent.

    A class is absent if ``dataset.json: cases`` declares it so. The meaning is the name of the class or, for a value
    that stands for a set of classes, ``"value 5"``. ``counts``: file value -> voxels.
    """
    absent = labels.statements.get(case, CaseStatement()).absent
    drawn = drawn_sets(labels, case)
    meanings = {value: f"value {value}" for value, members in drawn.items() if members <= absent}
    for index in absent:
        value = labels.class_values[index]
        if index != 0 or value in meanings:  # 0 may mean "none of the annotated classes"
            meanings[value] = repr(labels.class_names[index])
    return {value: meaning for value, meaning in sorted(meanings.items()) if counts.get(value, 0)}


def drawn_unannotated(counts: Mapping[int, int], labels: Labels, case: str) -> dict[str, int]:
    """Return name -> voxels for foreground classes that occur in ``case`` although its ``annotated`` omits them.

    ``counts``: file value -> voxels.
    """
    annotated = labels.statements.get(case, CaseStatement()).annotated
    left_out = () if annotated is None else range(1, labels.n_classes)
    voxels = {
        labels.class_names[index]: counts.get(labels.class_values[index], 0)
        for index in left_out
        if annotated is not None and index not in annotated
    }
    return {name: number for name, number in voxels.items() if number}


def voxels_by_code(counts: Mapping[int, int], labels: Labels, case: str = "") -> tuple[NDArray[np.int64], BoolArray]:
    """Return the voxels of each code of a case, (N,), and its label sets (N, K); undeclared values are ignored.

    ``counts``: file value -> voxels.
    """
    values = labels.file_values()
    codes, label_sets = labels.encode(np.array(values), case)
    numbers = np.zeros(len(label_sets), dtype=np.int64)
    np.add.at(numbers, codes, [counts.get(value, 0) for value in values])
    return numbers, label_sets


def annotated_values(labels: Labels, case: str = "") -> frozenset[int]:
    """Return the file values of annotated voxels of ``case``; those of unannotated ones are left out.

    The rule is :func:`autoseg.dataset.labels.annotated_codes`.
    """
    values = labels.file_values()
    codes, label_sets = labels.encode(np.array(values), case)
    is_annotated = annotated_codes(label_sets, undrawn_code(labels, case))[codes]
    return frozenset(value for value, annotated in zip(values, is_annotated, strict=True) if annotated)


def summarise_annotation(counts: Mapping[int, int], labels: Labels, case: str = "") -> CaseAnnotation:
    """Return the numbers of annotated voxels of a case, from ``counts`` (file value -> voxels).

    Undeclared values count as unannotated. Whether a voxel is informative, and which heads it decides, follows from the
    label sets alone (``dataset.labels.head_states``), never from the ignore value.
    """
    numbers, label_sets = voxels_by_code(counts, labels, case)
    positive, negative = head_states(label_sets, labels.regions)
    names = [head.name for head in labels.heads]
    return CaseAnnotation(
        voxels=sum(counts.values()),
        informative=int(numbers[informative_codes(label_sets)].sum()),
        drawn=int(numbers[annotated_codes(label_sets, undrawn_code(labels, case))].sum()),
        positive=dict(zip(names, (numbers @ positive).tolist(), strict=True)),
        decided=dict(zip(names, (numbers @ (positive | negative)).tolist(), strict=True)),
    )


def _inspect_channel(channel: Float32Array) -> ChannelCondition:
    """Return the condition of one channel (*S).

    NaN and infinity are counted only if minimum or maximum is not finite, so that a sound channel takes one pass.
    """
    low, high = (float(channel.min()), float(channel.max())) if channel.size else (np.nan, np.nan)
    nan = infinite = 0
    if not (np.isfinite(low) and np.isfinite(high)):
        nan, infinite = int(np.isnan(channel).sum()), int(np.isinf(channel).sum())
        finite = channel[np.isfinite(channel)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
    return ChannelCondition(nan, infinite, is_constant=not low < high, value=low)
