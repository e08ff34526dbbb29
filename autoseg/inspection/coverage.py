"""Coverage of a data set by annotation: which parts of the field of view, and whether whole slices are annotated.

A network has learnt nothing about parts that are annotated in no case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.label_counts import annotated_values
from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.core.orientation import VoxelOrder
from autoseg.dataset.labels import Labels

N_BINS = 20
"""Number of parts of equal length into which each axis is divided."""
LEAST_GAP = 3
"""Smallest number of neighbouring parts without annotation that is reported."""
LEAST_FILLED = 0.5
"""A slice counts as annotated as a whole if at least this share of its voxels is annotated."""


def annotated_parts(
    file_labels: NDArray[np.integer[Any]], counts: Mapping[int, int], labels: Labels, case: str
) -> BoolArray:
    """(3, 20) bool: the twentieths along each axis of a case that contain an annotated voxel.

    Parameters
    ----------
    file_labels
        (z, y, x) integers, file values. Read once, one plane at a time.
    counts
        File value -> voxels of ``file_labels``.
    labels, case
        Meaning of the values. A class that is only stated to be absent from the case is not an annotation, unless a
        single class remains.
    """
    annotated = annotated_values(labels, case)
    undrawn = [value for value in counts if value not in annotated]
    if not undrawn:
        return np.ones((3, N_BINS), dtype=bool)
    along_z = np.zeros(len(file_labels), dtype=bool)
    anywhere = np.zeros(file_labels.shape[1:], dtype=bool)
    for index, plane in enumerate(file_labels):
        drawn_here = plane != undrawn[0]
        for value in undrawn[1:]:
            drawn_here &= plane != value
        along_z[index] = drawn_here.any()
        anywhere |= drawn_here
    along_y, along_x = (np.asarray(anywhere.any(axis=axis)) for axis in (1, 0))
    return np.stack([_parts(profile) for profile in (along_z, along_y, along_x)])


def turned_parts(parts: BoolArray, order: VoxelOrder) -> BoolArray:
    """(3, 20) bool: the twentieths along each axis after a change of voxel order; ``parts`` (3, 20): before it."""
    rows = zip(parts[list(order.axes)], order.flipped, strict=True)
    return np.stack([row[::-1] if is_flipped else row for row, is_flipped in rows])


def _parts(profile: BoolArray) -> BoolArray:
    """(20,) bool: twentieths of an axis that overlap a True element of ``profile`` (L,)."""
    edges = np.arange(N_BINS + 1) * len(profile) / N_BINS
    first, stop = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    return np.array([profile[low:high].any() for low, high in zip(first, stop, strict=True)], dtype=bool)


def gaps(covered: BoolArray) -> list[tuple[int, int]]:
    """Return first and last percent of each stretch of ``covered`` (20,) that is False and at least 15 % long."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], covered, [True])).astype(np.int8)))
    step = 100 // N_BINS
    return [(low * step, high * step) for low, high in edges.reshape(-1, 2).tolist() if high - low >= LEAST_GAP]


def describe_gaps(parts: Iterable[BoolArray]) -> dict[int, str]:
    """Return axis -> places, as text, where no case is annotated along that axis; empty without cases or gaps.

    Parameters
    ----------
    parts
        (3, 20) bool for each case, see :func:`annotated_parts`.
    """
    of_cases = list(parts)
    if not of_cases:
        return {}
    covered = np.any(of_cases, axis=0)
    gaps_of_axis = {axis: gaps(row) for axis, row in enumerate(covered)}
    return {
        axis: ", ".join(f"{low} to {high} %" for low, high in places) for axis, places in gaps_of_axis.items() if places
    }


def share_in_slices(codes: CodeArray, informative: BoolArray) -> float:
    """Return the share, 0 to 1, of the annotated voxels in slices that are annotated as a whole, along any axis.

    It is 1 for annotated slices (and dense cases), and 0 for scribbles, points, small patches and without annotation.

    Parameters
    ----------
    codes
        (z, y, x) unsigned integers < N; read one plane at a time. In an image of one slice only that slice counts.
    informative
        (N,) bool: codes that count as annotated.
    """
    shape = codes.shape
    filled = [np.zeros(length, dtype=np.int64) for length in shape]
    for index, plane in enumerate(codes):
        annotated = informative[plane]
        filled[0][index] = np.count_nonzero(annotated)
        if filled[0][index] == 0:
            continue
        filled[1] += np.count_nonzero(annotated, axis=1)
        filled[2] += np.count_nonzero(annotated, axis=0)
    n_annotated = int(filled[0].sum())
    if n_annotated == 0:
        return 0.0
    slice_axes = (shape.index(1),) if 1 in shape else range(3)
    is_whole = [
        counts >= LEAST_FILLED * codes.size / length if axis in slice_axes else np.zeros(length, dtype=bool)
        for axis, (counts, length) in enumerate(zip(filled, shape, strict=True))
    ]
    elsewhere = sum(
        np.count_nonzero(informative[codes[index]][np.ix_(~is_whole[1], ~is_whole[2])])
        for index in np.flatnonzero((filled[0] > 0) & ~is_whole[0])
    )
    return 1 - elsewhere / n_annotated
