"""What training tells apart beyond what was drawn: held-out annotation, and unknown voxels by how far it is.

Both are codes of their own, beside those of the case: a patch carries them through every transform, and tables say what
they stand for.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.cases.store import CaseStore
from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.dataset.labels import foreground_codes, informative_codes

HELD_OUT = 3
"""Stream of random numbers below the seed of a run; sampling takes 0 and 1."""
LARGEST_SHARE = 0.5
"""A code of which more than this share would be held out in a case stays in training there."""
CELLS = 4
"""Cells of the grid on which distances are measured, along the shortest distance that is told apart."""
NO_RING = -1


@dataclass(frozen=True, slots=True)
class Marking:
    """What is told apart in each case."""

    held_share: float
    """Share of the blocks whose annotation is held out; 0 holds out nothing."""
    block: tuple[int, int, int]
    """Edges (z, y, x) of the blocks, voxels: what lies together is held out together."""
    seed: int
    distances: tuple[float, ...] = ()
    """mm, ascending: borders of the rings around foreground annotation into which unknown voxels fall."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the codes of a marked case stand for; one row per code."""

    drawn: BoolArray
    """(N, K)."""
    inferred: BoolArray
    """(N, K)."""
    held: BoolArray
    """(N, K): what is known of held-out codes; all True for others."""
    rings: NDArray[np.int64]
    """(N,): ring of a code of unknown voxels, or ``NO_RING``."""
    to_drawn: NDArray[np.int64]
    """(N,): the first code that was drawn alike, before promises and marks told more apart. "Nothing known", which
    voxels beyond the image carry, stands for ``undrawn``: neither has a vote against what was drawn."""
    undrawn: int
    """Code of voxels that nobody annotated."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one case."""

    unknown: int
    """Code of voxels that nobody drew: of which nothing is known, or only that a class is absent from the case."""
    blocks: BoolArray
    """(*ceil(S / block)): the blocks that are held out."""
    block: tuple[int, int, int]
    codes: BoolArray
    """(N,): the codes that are held out there."""
    rings: NDArray[np.uint8]
    """(*ceil(S / cell)): ring of each cell."""
    cell: tuple[int, int, int]
    n_rings: int
    """0 tells no distances apart."""

    @property
    def n_codes(self) -> int:
        """Number of codes of a marked map: those of the case, as many held-out ones, one per ring."""
        return 2 * len(self.codes) + self.n_rings

    def mark(self, codes: CodeArray, first: Sequence[int]) -> CodeArray:
        """Return a box of codes (z, y, x) whose voxel 0 is ``first``, with held-out and unknown voxels renumbered.

        A held-out code n becomes N + n, an unknown voxel of ring r becomes 2 N + r.
        """
        n_codes = len(self.codes)
        known = codes != self.unknown
        marked: CodeArray = codes.astype(np.uint8 if self.n_codes < 256 else np.uint16, order="C")
        if self.n_rings:
            ring = _spread(self.rings, self.cell, codes.shape, first) + marked.dtype.type(2 * n_codes)
            marked = ring + (marked - ring) * known  # differences wrap around; an eighth of the time of np.where
        places = np.flatnonzero(known & _spread(self.blocks, self.block, codes.shape, first))
        flat = marked.reshape(-1)
        flat[places] += self.codes[flat[places]] * marked.dtype.type(n_codes)
        return marked

    def tables(self, plain: Tables) -> Tables:
        """Return the tables of a marked map, from those of the case."""
        n_codes = len(plain.drawn)
        everything = np.ones_like(plain.drawn)
        rows = [self.unknown] * self.n_rings
        truth = np.where(self.codes[:, None], plain.drawn, True)
        return Tables(
            drawn=np.concatenate([plain.drawn, everything, plain.drawn[rows]]),
            inferred=np.concatenate([plain.inferred, everything, plain.inferred[rows]]),
            held=np.concatenate([everything, truth, everything[rows]]),
            rings=np.concatenate([np.full(2 * n_codes, NO_RING), np.arange(self.n_rings)]),
            to_drawn=np.concatenate([plain.to_drawn, plain.to_drawn, plain.to_drawn[rows]]),
            undrawn=plain.undrawn,
        )


def plain_tables(drawn: BoolArray, inferred: BoolArray, undrawn: int) -> Tables:
    """Return the tables of a case without marks, from what was drawn and what is left of it: both (N, K)."""
    _, first, alike = np.unique(drawn, axis=0, return_index=True, return_inverse=True)
    to_drawn = first[alike.reshape(-1)]
    to_drawn[to_drawn == drawn.shape[1]] = undrawn
    return Tables(drawn, inferred, np.ones_like(drawn), np.full(len(drawn), NO_RING), to_drawn, undrawn)


def mark_case(case: CaseStore, rule: Marking) -> Marks:
    """Choose what is held out of ``case`` and measure distances: the same in every process and resumed run.

    Only voxels drawn as one class are held out: they alone tell whether a class is recognised. A code stays in training
    where the blocks would take more than half of it. Distances go to the nearest cell with foreground annotation,
    through all axes; in a case without any, all voxels count as near: nothing is known of where its foreground lies.
    """
    shape = case.entry.record.shape
    key = (HELD_OUT, zlib.crc32(case.entry.record.case.encode()))
    rng = np.random.default_rng(np.random.SeedSequence(rule.seed, spawn_key=key))
    blocks: BoolArray = rng.random(_n_cells(shape, rule.block)) < rule.held_share
    table = case.entry.table
    codes = informative_codes(table) & (table.sum(axis=1) == 1)
    for code in np.flatnonzero(codes):
        codes[code] = 0 < _share_held(case, int(code), blocks, rule.block) <= LARGEST_SHARE
    cell, rings = _rings(case, rule.distances)
    n_rings = len(rule.distances) + 1 if rule.distances else 0
    return Marks(case.entry.undrawn, blocks, rule.block, codes, rings, cell, n_rings)


def _rings(case: CaseStore, distances: Sequence[float]) -> tuple[tuple[int, int, int], NDArray[np.uint8]]:
    """Return the edges of the cells, voxels, and the ring of each."""
    if not distances:
        return (1, 1, 1), np.zeros((0, 0, 0), dtype=np.uint8)
    spacing, shape = case.entry.record.spacing, case.entry.record.shape
    z, y, x = (max(1, int(distances[0] / CELLS / step)) for step in spacing)
    cell = (z, y, x)
    is_empty = np.ones(_n_cells(shape, cell), dtype=bool)
    for code in np.flatnonzero(foreground_codes(case.entry.table)):
        is_empty[_cells_of(case, int(code), cell)] = False
    if is_empty.all():
        return cell, np.zeros(is_empty.shape, dtype=np.uint8)
    away = ndimage.distance_transform_edt(
        is_empty, sampling=[edge * step for edge, step in zip(cell, spacing, strict=True)]
    )
    return cell, np.digitize(away, distances).astype(np.uint8)


def _n_cells(shape: Sequence[int], cell: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-edge // size) for edge, size in zip(shape, cell, strict=True))


def _cells_of(case: CaseStore, code: int, cell: Sequence[int]) -> tuple[NDArray[np.integer[Any]], ...]:
    """Return the cells of the known voxels of a code, as one index per axis."""
    places = np.unravel_index(case.locations_of(code), case.entry.record.shape)
    return tuple(place // size for place, size in zip(places, cell, strict=True))


def _spread(grid: NDArray[Any], cell: Sequence[int], shape: Sequence[int], first: Sequence[int]) -> NDArray[Any]:
    """Return the values of ``grid`` at the voxels of a box of ``shape`` whose voxel 0 is ``first``."""
    index = [(start + np.arange(edge)) // size for start, edge, size in zip(first, shape, cell, strict=True)]
    for axis in (2, 1, 0):  # most voxels come last, in whole planes
        grid = grid.take(index[axis], axis=axis)
    return grid


def _share_held(case: CaseStore, code: int, blocks: BoolArray, block: Sequence[int]) -> float:
    """Return the share of the known voxels of a code that lie in held-out blocks; 0 if the code does not occur."""
    return float(blocks[_cells_of(case, code, block)].mean()) if len(case.locations_of(code)) else 0.0
