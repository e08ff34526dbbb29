"""Choice of the box of a large case that holds most of its annotation, by voxels that preprocessing sampled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.case import CaseRecord
from autoseg.cases.store import CaseStore
from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box, box_of, n_blocks

CELLS = 4
"""Cells that a box is wide on each axis, about. Boxes start at cells, and annotated voxels are counted in them: there
are 15 million cells for boxes of 2^22 voxels in a volume of 10^12."""

Float64Array = NDArray[np.float64]


def annotated_box(store: CaseStore, shape: Shape3, spacing: tuple[float, float, float], n_voxels: int) -> Box:
    """Return the box of at most ``n_voxels`` of a case in which its annotation is scored best.

    It holds voxels of as many classes as possible; among such boxes that one is taken whose shares of the annotated
    voxels of each class have the largest sum, so that a rare class counts as much as background. What lies farther than
    a cell from every annotated cell is cut off. Its edges are equal in mm, as far as the case reaches.

    Voxels are counted by the locations of the preprocessed case, each of which stands for its share of the voxels with
    its code; voxels that may have several classes are a class of their own here.

    Parameters
    ----------
    store
        The preprocessed case.
    shape, spacing
        Voxels (z, y, x) of the case in the axes of its files, and their size in mm.
    n_voxels
        At least 1.

    Returns
    -------
    box
        In voxels of the case, not empty. Of a case without locations it starts at the first voxel.
    """
    edges = _edges(shape, spacing, n_voxels)
    cell, edges = _cells(edges, shape)
    wide = n_blocks(edges, cell)
    drawn = np.zeros(n_blocks(shape, cell), dtype=bool)
    shares = np.zeros_like(_sums(drawn.astype(float), wide))
    n_classes = np.zeros(shares.shape, dtype=int)
    for counts in _counts_by_class(store, shape, cell):
        inside = _sums(counts, wide)
        n_classes += inside > 0
        shares += inside / counts.sum()
        drawn |= counts > 0
    if not drawn.any():
        return Box((0, 0, 0), edges)
    best = np.where(n_classes == n_classes.max(), shares, -1.0)
    index = np.unravel_index(int(best.argmax()), best.shape)
    found = drawn[tuple(slice(first, first + n) for first, n in zip(index, wide, strict=True))]
    spans = [
        _span(int(first), np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis}))), *of_axis)
        for axis, (first, of_axis) in enumerate(zip(index, zip(cell, edges, shape, strict=True), strict=True))
    ]
    return box_of((spans[0], spans[1], spans[2]))


def _edges(shape: Shape3, spacing: tuple[float, float, float], n_voxels: int) -> Shape3:
    """Return the edges of the largest box within ``shape`` of at most ``n_voxels`` whose edges are equal in mm."""

    def edges_of(length: float) -> Shape3:
        z, y, x = (min(edge, max(1, int(length / size))) for edge, size in zip(shape, spacing, strict=True))
        return (z, y, x)

    low, high = 0.0, max(edge * size for edge, size in zip(shape, spacing, strict=True)) * (1 + 1e-9)
    if math.prod(shape) <= n_voxels:
        return shape
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(edges_of(middle)) <= n_voxels else (low, middle)
    return edges_of(low)


def _cells(edges: Shape3, shape: Shape3) -> tuple[Shape3, Shape3]:
    """Return the edges of a cell, and those of the box rounded down to whole cells unless it is as long as the case."""
    cells, rounded = [], []
    for edge, whole in zip(edges, shape, strict=True):
        cells.append(-(-edge // CELLS) if edge == whole else max(1, edge // CELLS))
        rounded.append(edge if edge == whole else edge // cells[-1] * cells[-1])
    return (cells[0], cells[1], cells[2]), (rounded[0], rounded[1], rounded[2])


def _counts_by_class(store: CaseStore, shape: Shape3, cell: Shape3) -> Iterator[Float64Array]:
    """Yield the numbers (cells z, y, x) of annotated voxels in each cell, estimated, of each class that has any."""
    entry, n_cells = store.entry, n_blocks(shape, cell)
    table = entry.table.drawn
    codes_of: dict[int, list[int]] = {}
    for code in sorted(entry.locations):
        members = np.flatnonzero(table[code])
        codes_of.setdefault(int(members[0]) if len(members) == 1 else -1, []).append(code)
    for codes in codes_of.values():
        counts = np.zeros(n_cells)
        for code in codes:
            voxels = _file_voxels(store.locations_of(code), entry.record, shape)
            places = np.ravel_multi_index([at // edge for at, edge in zip(voxels, cell, strict=True)], n_cells)
            found = np.bincount(places, minlength=counts.size).reshape(n_cells)
            counts += found * (entry.code_counts[code] / max(1, len(places)))
        if counts.any():
            yield counts


def _file_voxels(locations: NDArray[np.integer[Any]], record: CaseRecord, shape: Shape3) -> list[NDArray[np.int64]]:
    """Return z, y and x (n,) of locations (n,) of a preprocessed case, as voxels of its files, of ``shape``."""
    axes: dict[int, NDArray[np.int64]] = {}
    points = np.unravel_index(locations, record.shape)
    before = zip(record.shape_before_resampling, record.context_low, record.shape_after_crop, strict=True)
    for axis, (at, (edge, context, own)) in enumerate(zip(points, before, strict=True)):
        share = ((at + 0.5) * (edge / record.shape[axis]) - context) / own
        share = 1 - share if record.flipped[axis] else share
        of_file = record.transpose[axis]
        axes[of_file] = np.clip(np.floor(share * shape[of_file]).astype(np.int64), 0, shape[of_file] - 1)
    return [axes[axis] for axis in range(3)]


def _sums(counts: Float64Array, wide: Shape3) -> Float64Array:
    """Return the sum of ``counts`` (cells) over the ``wide`` (z, y, x) cells from each on, where so many are left.

    Sums of nothing are exactly 0.
    """
    for axis, n in enumerate(wide):
        along = np.moveaxis(counts, axis, 0)
        total = np.zeros((len(along) - n + 1, *along.shape[1:]))
        for first in range(n):
            total += along[first : first + len(total)]
        counts = np.moveaxis(total, 0, axis)
    return counts


def _span(first: int, drawn: NDArray[np.integer[Any]], cell: int, edge: int, whole: int) -> tuple[int, int]:
    """Return first voxel and one past the last of a box of ``edge`` voxels along an axis of ``whole`` voxels.

    It starts at the cell ``first``, earlier if it would reach beyond the case. ``drawn`` are the cells (n,), counted
    from there, with an annotated voxel; with the cell before and behind them the box ends.
    """
    start, stop = min(first * cell, whole - edge), min(first * cell + edge, whole)
    low, high = max(0, int(drawn[0]) - 1), int(drawn[-1]) + 2
    return (
        (first + low) * cell if low else start,
        min((first + high) * cell, whole) if (first + high) * cell < stop else stop,
    )
