"""How much annotation a patch would hold, known from summed-area tables before anything is read or augmented."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.store import TARGET, CaseStore
from autoseg.core.arrays import BoolArray, CodeArray, Shape3
from autoseg.sampling.config import SamplingConfig

MAX_TABLE_BYTES = 1 << 28
"""Of all tables of a process together: 256 MiB."""
MIN_ENTRIES = 1 << 12
"""Of a table, however many cases there are."""

RealBox = tuple[Sequence[float], Sequence[float]]
"""First voxel and one past the last (z, y, x); may hang out of the image, and need not be integers."""


@dataclass(frozen=True, slots=True)
class PatchContent:
    """What was drawn in a box, counted in the voxels of it that lie in the image."""

    voxels: float
    annotated: float
    """Voxels that say something about their class."""
    foreground: float
    """Voxels that are certainly not background."""

    @property
    def annotated_share(self) -> float:
        """Share of the voxels that say something, 0 to 1; 0 outside the image."""
        return self.annotated / self.voxels if self.voxels else 0.0


@dataclass(frozen=True, slots=True)
class AreaTable:
    """Summed-area tables of a case: how many voxels before each grid corner are annotated, and foreground."""

    corners: tuple[NDArray[np.int64], ...]
    """Per axis the voxel positions of the grid, ascending from 0 to the length of the axis."""
    sums: NDArray[np.integer[Any]]
    """(2, *corners): annotated and foreground voxels below each corner."""

    @classmethod
    def build(
        cls,
        shape: Shape3,
        read: Callable[[slice], CodeArray],
        annotated: BoolArray,
        foreground: BoolArray,
        max_entries: int,
        *,
        n_axes: int = 3,
    ) -> AreaTable:
        """Count which voxels are annotated, and foreground, by their code: both (N,). One pass, slab by slab.

        ``read`` returns the codes (planes, y, x) of some planes of a case of ``shape``.

        The grid is the finest of at most about ``max_entries`` corners: every voxel where these suffice, else blocks
        of 2, 4, ... voxels along the last ``n_axes`` axes (2 keeps slices apart).
        """
        edges = _block_edges(shape, max_entries, n_axes)
        starts = [np.arange(0, length, edge) for length, edge in zip(shape, edges, strict=True)]
        corners = tuple(np.append(first, length) for first, length in zip(starts, shape, strict=True))
        speaks = np.stack([annotated, foreground])  # (2, N)
        dtype = np.int32 if math.prod(shape) <= np.iinfo(np.int32).max else np.int64
        sums = np.zeros((2, *map(len, corners)), dtype=dtype)
        for layer, start in enumerate(starts[0]):
            found = speaks[:, read(slice(start, start + edges[0]))]  # (2, edge, y, x)
            flat = found.sum(axis=1, dtype=dtype)
            for axis in (1, 2):
                flat = np.add.reduceat(flat, starts[axis], axis=axis)
            sums[:, layer + 1, 1:, 1:] = flat
        for axis in (1, 2, 3):
            np.cumsum(sums, axis=axis, out=sums)
        return cls(corners, sums)

    def count(self, box: RealBox) -> PatchContent:
        """Return what lies in ``box``: exact where its faces are corners of the grid, else in proportion.

        A block that the box cuts counts by the share of it that lies inside, so the error is at most what the blocks
        on the faces of the box hold.
        """
        indices, weights, size = [], [], 1.0
        for low, high, corners in zip(*box, self.corners, strict=True):
            below, above = (min(max(edge, 0), int(corners[-1])) for edge in (low, high))
            size *= max(above - below, 0)
            (first, into_first), (last, into_last) = _between(below, corners), _between(above, corners)
            indices.append([last, last + 1, first, first + 1])
            weights.append(np.array([1 - into_last, into_last, into_first - 1, -into_first]))
        z, y, x = np.ix_(*indices)
        found: NDArray[Any] = self.sums[:, z, y, x]  # (2, 4, 4, 4)
        for weight in reversed(weights):
            found = found @ weight
        return PatchContent(float(size), float(found[0]), float(found[1]))


@dataclass
class Rejection:
    """Which places of a patch are refused, and what is remembered of the cases to decide that.

    Only what was *drawn* counts, not what follows from promises. A case's table is made when the case is first drawn;
    it costs one read of its codes. Cases share ``MAX_TABLE_BYTES`` evenly and keep their tables, since with cases drawn
    at random any smaller store would make tables again for nearly every patch. With 20 cases a table has 1.6 million
    corners, every voxel of most volumes; with 1000 it has 32 thousand, blocks of 16 voxels of a volume of 512 x 512 x
    512, which is fine enough to tell an annotated place from an empty one.

    Source: PyTorch Connectomics ``DATASET.VALID_RATIO`` and ``REJECT_SAMPLING``; ELEKTRONN
    ``example_ignore_threshold`` (= 1 - ``min_annotated``). These decide after reading and augmenting, keep the last
    patch when they give up, and (ELEKTRONN) may try for ever.
    """

    config: SamplingConfig
    n_cases: int
    """Cases that patches are drawn from."""
    _tables: dict[str, AreaTable] = field(default_factory=dict, init=False, repr=False)
    _warned: set[str] = field(default_factory=set, init=False, repr=False)
    notes: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    """Case -> that no place in it was good enough; whoever draws takes them out, and says them where they are seen."""

    def content(self, case: CaseStore, box: RealBox, *, n_axes: int) -> PatchContent:
        """Return what was drawn in a box of ``case``, for patches of ``n_axes`` axes (2 or 3)."""
        key = case.entry.record.case
        if key not in self._tables:
            entries = max(MAX_TABLE_BYTES // (8 * max(self.n_cases, 1)), MIN_ENTRIES)
            table = case.entry.table
            self._tables[key] = AreaTable.build(
                case.entry.record.shape,
                lambda planes: case.read(TARGET, (planes, slice(None), slice(None))),
                table.annotated, table.foreground, entries, n_axes=n_axes,
            )  # fmt: skip
        return self._tables[key].count(box)

    def accepts(self, content: PatchContent, rng: np.random.Generator) -> bool:
        """Whether a place may be taken; one with too little foreground is let pass now and then."""
        if content.annotated_share < self.config.min_annotated:
            return False
        return content.foreground >= self.config.min_foreground_voxels or rng.random() >= self.config.reject_probability

    def shortfall(self, content: PatchContent) -> float:
        """How far a place is from what is asked: 0 if it has it all, at most 2."""
        share = content.annotated_share / self.config.min_annotated if self.config.min_annotated else 1.0
        voxels = content.foreground / self.config.min_foreground_voxels if self.config.min_foreground_voxels else 1.0
        return max(1 - share, 0.0) + max(1 - voxels, 0.0)

    def warn(self, name: str, best: PatchContent) -> None:
        """Note, once per case and process, that no place drawn in the case was good enough."""
        if name in self._warned:
            return
        self._warned.add(name)
        asked, found = [], []
        if self.config.min_annotated:
            asked.append(f"{100 * self.config.min_annotated:.3g} % of its voxels annotated (min_annotated)")
            found.append(f"{100 * best.annotated_share:.3g} % annotated")
        if self.config.min_foreground_voxels:
            asked.append(f"{self.config.min_foreground_voxels} voxels of foreground (min_foreground_voxels)")
            found.append(f"{best.foreground:.0f} voxels of foreground")
        self.notes[name] = (
            f"case {name}: found no place for a patch in {self.config.max_attempts} tries, expected one with at least "
            f"{' and '.join(asked)}; took the best, with {' and '.join(found)}. Lower these settings if that happens "
            "in many cases."
        )


def _block_edges(shape: Sequence[int], max_entries: int, n_axes: int) -> list[int]:
    """Voxels per block and axis: doubled along the axis with most blocks until there are few enough."""
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
    """Return the corner below a position in their range, and how far it lies on the way to the next one, 0 to 1."""
    lower = min(int(corners.searchsorted(position, side="right")) - 1, len(corners) - 2)
    start, stop = int(corners[lower]), int(corners[lower + 1])
    return lower, (position - start) / (stop - start)
