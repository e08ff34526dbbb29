"""Extra codes for training: held-out annotated voxels, and unannotated voxels by their distance to annotation.

They follow the codes of the case, have rows in the code table, and are moved with a patch as all codes are.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.cases.code_table import CodeTable
from autoseg.cases.store import CaseStore
from autoseg.core.arrays import BoolArray, CodeArray, Shape3

HELD_OUT = 3
"""Key of the random numbers for held-out annotation below the seed of a run; sampling has the keys 0 and 1."""
LARGEST_SHARE = 0.5
"""Largest share of the voxels of a code in a case that may be held out; a code with more is not held out there."""
CELLS_PER_ZONE = 4
"""Number of grid cells across the nearest zone; distances are measured on this grid."""
MOST_CELLS = 1 << 23
"""Cells of a grid, at most: those of a case of billions of voxels are larger. Measuring distances takes 24 bytes a
cell."""


@dataclass(frozen=True, slots=True)
class ExtraCodeRule:
    """Rule for the voxels of each case that get extra codes."""

    held_out_share: float
    """Share of the blocks whose annotation is held out; 0 holds out nothing."""
    block: Shape3
    """Edges (z, y, x) of the blocks in voxels; neighbouring voxels are held out together."""
    seed: int
    zone_borders_mm: tuple[float, ...] = ()
    """Distances to foreground annotation, ascending, at which the next zone of unannotated voxels begins; () for no
    zones."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A value for each cell of a grid over a case."""

    values: NDArray[Any]
    """(*ceil(S / cell)); cell 0 begins at voxel 0."""
    cell: Shape3
    """Edges (z, y, x) of a cell in voxels."""

    def in_box(self, shape: Sequence[int], first: Sequence[int]) -> NDArray[Any]:
        """Return the value at each voxel of a box: (z, y, x), as ``shape``; ``first`` is the box's first voxel."""
        index = [(start + np.arange(edge)) // size for start, edge, size in zip(first, shape, self.cell, strict=True)]
        values = self.values
        for axis in (2, 1, 0):  # the last step, with most voxels, copies whole planes
            values = values.take(index[axis], axis=axis)
        return values


@dataclass(frozen=True, slots=True)
class ExtraCodes:
    """The extra codes of one case."""

    undrawn: int
    """Code of unannotated voxels."""
    held_out_blocks: Grid
    """Grid of bool: held-out blocks."""
    held_out: BoolArray
    """(N,) bool: codes whose voxels in these blocks are held out."""
    zones: Grid | None
    """Grid of uint8: distance zone of each cell; None without zones."""
    n_zones: int
    """Number of distance zones; 0 without zones."""

    def apply(self, codes: CodeArray, first: Sequence[int]) -> CodeArray:
        """Return a box of codes (z, y, x), whose first voxel is ``first``, with extra codes where they apply.

        A held-out voxel of code n, of the N codes of the case, gets N + n; an unannotated voxel of zone r gets 2 N + r.
        The dtype is uint8 if all codes fit, otherwise uint16.
        """
        n_codes = len(self.held_out)
        annotated = codes != self.undrawn
        changed: CodeArray = codes.astype(np.uint8 if 2 * n_codes + self.n_zones < 256 else np.uint16, order="C")
        if self.zones is not None:
            zone = self.zones.in_box(codes.shape, first) + changed.dtype.type(2 * n_codes)
            changed = zone + (changed - zone) * annotated  # differences wrap around; an eighth of the time of np.where
        places = np.flatnonzero(annotated & self.held_out_blocks.in_box(codes.shape, first))
        flat = changed.reshape(-1)
        flat[places] += self.held_out[flat[places]] * changed.dtype.type(n_codes)
        return changed

    def extend(self, table: CodeTable) -> CodeTable:
        """Return the table of the case, N rows, with rows for the extra codes: 2 N + ``n_zones`` rows."""
        return table.with_extra_codes(self.held_out, self.n_zones)


def choose_extra_codes(case: CaseStore, rule: ExtraCodeRule) -> ExtraCodes:
    """Return the held-out blocks and distance zones of ``case``: the same in every process and resumed run.

    Only voxels annotated as one class are held out, since only they test whether a class is recognised. A code is not
    held out if the blocks contain more than half of its voxels. Distances are measured in 3-D, in mm, to the nearest
    cell with foreground annotation. In a case without foreground annotation all voxels are in the nearest zone, since
    the place of its foreground is unknown.
    """
    shape = case.entry.record.shape
    key = (HELD_OUT, zlib.crc32(case.entry.record.case.encode()))
    rng = np.random.default_rng(np.random.SeedSequence(rule.seed, spawn_key=key))
    block = _bounded(rule.block, shape)
    blocks = Grid(rng.random(_n_cells(shape, block)) < rule.held_out_share, block)
    table = case.entry.table
    held_out = table.informative & table.single
    for code in np.flatnonzero(held_out):
        held_out[code] = 0 < _share_in(blocks, case, int(code)) <= LARGEST_SHARE
    zones = _distance_zones(case, table, rule.zone_borders_mm) if rule.zone_borders_mm else None
    return ExtraCodes(table.undrawn, blocks, held_out, zones, 0 if zones is None else len(rule.zone_borders_mm) + 1)


def _distance_zones(case: CaseStore, table: CodeTable, borders_mm: Sequence[float]) -> Grid:
    """Return the distance zone of each cell of ``case``, uint8: the number of borders at or below its distance."""
    spacing, shape = case.entry.record.spacing, case.entry.record.shape
    z, y, x = (max(1, int(borders_mm[0] / CELLS_PER_ZONE / step)) for step in spacing)
    cell = _bounded((z, y, x), shape)
    is_empty = np.ones(_n_cells(shape, cell), dtype=bool)
    for code in np.flatnonzero(table.foreground):
        is_empty[_cells_of(case, int(code), cell)] = False
    if is_empty.all():
        return Grid(np.zeros(is_empty.shape, dtype=np.uint8), cell)
    sampling = [edge * step for edge, step in zip(cell, spacing, strict=True)]
    distances = ndimage.distance_transform_edt(is_empty, sampling=sampling)
    return Grid(np.digitize(distances, borders_mm).astype(np.uint8), cell)


def _bounded(cell: Shape3, shape: Sequence[int]) -> Shape3:
    """Return the edges of a cell, doubled along the axis with most cells until the grid has at most ``MOST_CELLS``."""
    edges = list(cell)
    while math.prod(_n_cells(shape, edges)) > MOST_CELLS:
        counts = _n_cells(shape, edges)
        edges[counts.index(max(counts))] *= 2
    return (edges[0], edges[1], edges[2])


def _n_cells(shape: Sequence[int], cell: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-edge // size) for edge, size in zip(shape, cell, strict=True))


def _cells_of(case: CaseStore, code: int, cell: Sequence[int]) -> tuple[NDArray[np.integer[Any]], ...]:
    """Return the cells of the stored locations of a code: three index arrays (n,), for z, y and x."""
    places = np.unravel_index(case.locations_of(code), case.entry.record.shape)
    return tuple(place // size for place, size in zip(places, cell, strict=True))


def _share_in(blocks: Grid, case: CaseStore, code: int) -> float:
    """Return the share of the stored locations of a code that lie in ``blocks``; 0 if the code does not occur."""
    if not len(case.locations_of(code)):
        return 0.0
    return float(blocks.values[_cells_of(case, code, blocks.cell)].mean())
