"""Rejection of patches with little annotation, counted by summed-area tables before a patch is read or augmented."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.store import TARGET, CaseStore
from autoseg.core.arrays import BoolArray, CodeArray, Shape3
from autoseg.core.boxes import Box, blocks
from autoseg.sampling.config import SamplingConfig

MAX_TABLE_BYTES = 1 << 28
"""Size of all tables of a process together: 256 MiB."""
READ_BOX: Shape3 = (32, 64, 2048)
"""Voxels (z, y, x) that are read together when a table is made. Powers of two, as the blocks of tables are, so that a
box holds whole blocks or lies in one along each axis; thick, since stored arrays have chunks that are cubes."""
MIN_ENTRIES = 1 << 12
"""Smallest number of entries of a table, for any number of cases."""

REPORTED = 100
"""Number of patches of a process after which the log says how many places they took."""
ALL_CASES = ""
"""Key of this among the notes on cases."""

RealBox = tuple[Sequence[float], Sequence[float]]
"""Low and high corner (z, y, x) of a box in voxels; real numbers, which may lie outside the image."""


@dataclass(frozen=True, slots=True)
class PatchContent:
    """Numbers of voxels in the part of a box that lies in the image."""

    voxels: float
    """Number of all voxels."""
    annotated: float
    """Number of annotated voxels."""
    foreground: float
    """Number of voxels annotated as certain foreground."""

    @property
    def annotated_share(self) -> float:
        """Share of annotated voxels, 0 to 1; 0 for a box outside the image."""
        return self.annotated / self.voxels if self.voxels else 0.0


@dataclass(frozen=True, slots=True)
class AreaTable:
    """Summed-area tables of a case: the numbers of annotated and of foreground voxels below each grid corner."""

    corners: tuple[NDArray[np.int64], ...]
    """For each axis the voxel positions of the grid, ascending from 0 to the length of the axis."""
    sums: NDArray[np.integer[Any]]
    """(2, *corners): number of annotated and of foreground voxels below each corner."""

    @classmethod
    def build(
        cls,
        shape: Shape3,
        read: Callable[[Box], CodeArray],
        annotated: BoolArray,
        foreground: BoolArray,
        max_entries: int,
        *,
        n_axes: int = 3,
    ) -> AreaTable:
        """Return the table of a case of ``shape`` (z, y, x), in one pass over its codes, box by box.

        ``read`` returns the codes of a box, which has at most the shape ``READ_BOX`` however large the case is.
        ``annotated`` and ``foreground`` are (N,) bool, by code. The grid is the finest with at most about
        ``max_entries`` corners: one per voxel if these suffice, otherwise blocks of 2, 4, ... voxels along the last
        ``n_axes`` axes (with 2, slices are not joined).
        """
        edges = _block_edges(shape, max_entries, n_axes)
        starts = [np.arange(0, length, edge) for length, edge in zip(shape, edges, strict=True)]
        corners = tuple(np.append(first, length) for first, length in zip(starts, shape, strict=True))
        is_counted = np.stack([annotated, foreground])  # (2, N)
        dtype = _count_type(shape)
        sums = np.zeros((2, *map(len, corners)), dtype=dtype)
        for box in blocks(Box.whole(shape), READ_BOX):
            counts = is_counted[:, read(box)].view(np.uint8)  # (2, z, y, x)
            for axis, (length, edge) in enumerate(zip(box.shape, edges, strict=True), start=1):
                counts = np.add.reduceat(counts, np.arange(0, length, edge), axis=axis, dtype=dtype)
            first = [at // edge for at, edge in zip(box.start, edges, strict=True)]
            z, y, x = (slice(at + 1, at + 1 + n) for at, n in zip(first, counts.shape[1:], strict=True))
            sums[:, z, y, x] += counts
        for axis in (1, 2, 3):
            np.cumsum(sums, axis=axis, out=sums)
        return cls(corners, sums)

    def count(self, box: RealBox) -> PatchContent:
        """Return the numbers of voxels in ``box``; exact if its faces lie on corners of the grid.

        Otherwise a block that a face cuts counts by its share inside the box, so the error is at most the number of
        voxels in the blocks on the faces.
        """
        indices, weights, size = [], [], 1.0
        for low, high, corners in zip(*box, self.corners, strict=True):
            below, above = (min(max(edge, 0), int(corners[-1])) for edge in (low, high))
            size *= max(above - below, 0)
            (first, into_first), (last, into_last) = _between(below, corners), _between(above, corners)
            indices.append([last, last + 1, first, first + 1])
            weights.append(np.array([1 - into_last, into_last, into_first - 1, -into_first]))
        z, y, x = np.ix_(*indices)
        counts: NDArray[Any] = self.sums[:, z, y, x]  # (2, 4, 4, 4)
        for weight in reversed(weights):
            counts = counts @ weight
        return PatchContent(float(size), float(counts[0]), float(counts[1]))


@dataclass
class Rejection:
    """Rule that rejects places of patches, with the summed-area tables of the cases drawn so far.

    Only *annotated* voxels count, not the classes that promises leave. The table of a case is made when the case is
    first drawn, by one read of its codes. Cases share ``MAX_TABLE_BYTES`` evenly and keep their tables: cases are drawn
    at random, so a smaller store would have to make a table for nearly every patch. With 20 cases a table has 1.6
    million corners, one per voxel of most volumes; with 1000 cases it has 32 thousand, blocks of 16 voxels in a volume
    of 512 x 512 x 512, which is fine enough to distinguish an annotated place from an empty one.

    Source: PyTorch Connectomics ``DATASET.VALID_RATIO`` and ``REJECT_SAMPLING``; ELEKTRONN
    ``example_ignore_threshold`` (= 1 - ``min_annotated``). These decide after reading and augmenting, keep the last
    patch when they give up, and (ELEKTRONN) may try for ever.
    """

    config: SamplingConfig
    n_cases: int
    """Number of cases that patches are drawn from."""
    _tables: dict[str, AreaTable] = field(default_factory=dict, init=False, repr=False)
    _warned: set[str] = field(default_factory=set, init=False, repr=False)
    _tries: list[int] = field(default_factory=list, init=False, repr=False)
    notes: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    """Case -> warning that no place in it was accepted, and ``ALL_CASES`` -> what the first patches took; the loader
    takes them out and sends them to the log."""

    def content(self, case: CaseStore, box: RealBox, *, n_axes: int) -> PatchContent:
        """Return the numbers of voxels in a box of ``case``, for patches of ``n_axes`` axes (2 or 3)."""
        key = case.entry.record.case
        if key not in self._tables:
            entry_bytes = 2 * np.dtype(_count_type(case.entry.record.shape)).itemsize
            entries = max(MAX_TABLE_BYTES // (entry_bytes * max(self.n_cases, 1)), MIN_ENTRIES)
            table = case.entry.table
            self._tables[key] = AreaTable.build(
                case.entry.record.shape,
                lambda box: case.read(TARGET, box),
                table.annotated, table.foreground, entries, n_axes=n_axes,
            )  # fmt: skip
        return self._tables[key].count(box)

    def accepts(self, content: PatchContent, rng: np.random.Generator) -> bool:
        """Whether a place is accepted; one with too little foreground is, with 1 - ``reject_probability``."""
        if content.annotated_share < self.config.min_annotated:
            return False
        return content.foreground >= self.config.min_foreground_voxels or rng.random() >= self.config.reject_probability

    def shortfall(self, content: PatchContent) -> float:
        """Return how far a place is from being accepted, for choosing the best: 0 if it would be, at most 2."""
        share = content.annotated_share / self.config.min_annotated if self.config.min_annotated else 1.0
        voxels = content.foreground / self.config.min_foreground_voxels if self.config.min_foreground_voxels else 1.0
        return max(1 - share, 0.0) + max(1 - voxels, 0.0)

    def count_tries(self, number: int) -> None:
        """Count the places that were drawn for a patch; after ``REPORTED`` patches a note says how many they took."""
        if len(self._tries) >= REPORTED:
            return
        self._tries.append(number)
        if len(self._tries) == REPORTED:
            again = sum(tries > 1 for tries in self._tries)
            exhausted = sum(tries == self.config.max_attempts for tries in self._tries)
            self.notes[ALL_CASES] = (
                f"rejection: the first {REPORTED} patches took {sum(self._tries) / REPORTED:.1f} places each; {again} "
                f"were drawn again, {exhausted} took all {self.config.max_attempts} tries"
            )

    def warn(self, name: str, best: PatchContent) -> None:
        """Add a warning to ``notes``, once per case and process, that no place drawn in the case was accepted."""
        if name in self._warned:
            return
        self._warned.add(name)
        required, actual = [], []
        if self.config.min_annotated:
            required.append(f"{100 * self.config.min_annotated:.3g} % of its voxels annotated (min_annotated)")
            actual.append(f"{100 * best.annotated_share:.3g} % annotated")
        if self.config.min_foreground_voxels:
            required.append(f"{self.config.min_foreground_voxels} voxels of foreground (min_foreground_voxels)")
            actual.append(f"{best.foreground:.0f} voxels of foreground")
        self.notes[name] = (
            f"case {name}: found no place for a patch in {self.config.max_attempts} tries, expected one with at least "
            f"{' and '.join(required)}; took the best, with {' and '.join(actual)}. Lower these settings if that "
            "happens in many cases."
        )


def _count_type(shape: Sequence[int]) -> type[np.signedinteger[Any]]:
    """Return the type that holds the number of all voxels of a case."""
    return np.int32 if math.prod(shape) <= np.iinfo(np.int32).max else np.int64


def _block_edges(shape: Sequence[int], max_entries: int, n_axes: int) -> list[int]:
    """Return the edges of a block in voxels: doubled along the axis with most blocks until there are few enough."""
    edges = [1] * len(shape)
    blocks = list(shape)
    coarsened = range(len(shape) - n_axes, len(shape))
    while np.prod(blocks, dtype=np.int64) > max_entries:
        axis = max(coarsened, key=lambda index: blocks[index])
        if blocks[axis] <= 1:
            break
        edges[axis] *= 2
        blocks[axis] = -(-shape[axis] // edges[axis])
    return edges


def _between(position: float, corners: NDArray[np.int64]) -> tuple[int, float]:
    """Return (index, share): the corner at or below ``position``, and the position between it and the next, 0 to 1.

    ``corners`` are (n,) int64, ascending; ``position`` lies in their range.
    """
    lower = min(int(corners.searchsorted(position, side="right")) - 1, len(corners) - 2)
    start, stop = int(corners[lower]), int(corners[lower + 1])
    return lower, (position - start) / (stop - start)
