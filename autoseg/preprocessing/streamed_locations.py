"""Counts and locations of the codes of a map that is read box by box, in one pass and bounded memory."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, CodeArray, Shape3
from autoseg.core.boxes import Box
from autoseg.core.chunks import chunks
from autoseg.dataset.labels import informative_codes
from autoseg.preprocessing.locations import SEED, Locations, sample_size

MOST_LOCATIONS = 1 << 18
"""Largest number of locations of a code: 2 MB."""
_FEW_CODES = 16
_ROW = 4096  # voxels that are searched one by one for those that were drawn


class StreamedLocations:
    """Exact counts of all codes, and a uniform sample of the voxels of each informative one.

    The sample has the size of :func:`autoseg.preprocessing.locations.find_locations`, but never more than
    ``MOST_LOCATIONS``; a code with at most 10,000 voxels keeps all of them. It depends on the map, and on the boxes and
    their order, which follow from the shape of the case; so it is the same in each run.

    Every voxel has a random key in 0 to 1, of which the smallest are kept. Keys above the largest that is kept are
    never drawn: how many of a box lie below it is a binomial number.

    Parameters
    ----------
    shape
        (z, y, x) of the map.
    """

    def __init__(self, shape: Shape3) -> None:
        self._shape = shape
        self._counts: Counter[int] = Counter()
        self._samples: dict[int, _Sample] = {}

    def add(self, codes: CodeArray, box: Box, label_sets: BoolArray) -> None:
        """Add the codes (*box) of a box; boxes do not overlap. ``label_sets`` (N, K) may have more rows each time."""
        is_informative = informative_codes(label_sets)
        for code, count in count_codes(codes).items():
            self._counts[code] += count
            if not is_informative[code]:
                continue
            sample = self._samples.setdefault(code, _Sample(code))
            ranks, keys = sample.draw(count)
            if len(ranks):
                sample.keep(keys, self._flat(places_of(codes == code, ranks), box))

    def finish(self) -> Locations:
        """Return counts and locations of everything that was added."""
        runs = {code: self._samples[code].finish(self._counts[code]) for code in sorted(self._samples)}
        stops = np.cumsum([len(run) for run in runs.values()], dtype=np.int64).tolist()
        return Locations(
            indices=np.concatenate(list(runs.values())) if runs else np.zeros(0, dtype=np.int64),
            slices={code: (stop - len(run), stop) for (code, run), stop in zip(runs.items(), stops, strict=True)},
            counts=dict(sorted(self._counts.items())),
        )

    def _flat(self, inner: NDArray[np.intp], box: Box) -> NDArray[np.int64]:
        """Return flat indices into the map of flat indices into a box."""
        z, y, x = np.unravel_index(inner, box.shape)
        (z0, y0, x0), (_, height, width) = box.start, self._shape
        flat: NDArray[np.int64] = ((z.astype(np.int64) + z0) * height + y + y0) * width + x + x0
        return flat


class _Sample:
    """The voxels of one code with the smallest keys."""

    def __init__(self, code: int) -> None:
        self._rng = np.random.default_rng([SEED, code])
        self._keys = np.zeros(0)
        self._indices = np.zeros(0, dtype=np.int64)
        self._highest = 1.0

    def draw(self, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return which of ``count`` voxels have keys below the highest that is kept (n,), ascending, and their keys."""
        if count * self._highest > 2 * MOST_LOCATIONS:  # far more than enough lie below this
            self._highest = 2 * MOST_LOCATIONS / count
        n_drawn = int(self._rng.binomial(count, self._highest))
        ranks = np.arange(count) if n_drawn == count else np.sort(
            self._rng.choice(count, size=n_drawn, replace=False, shuffle=False)
        )  # fmt: skip
        return ranks, self._rng.random(n_drawn) * self._highest

    def keep(self, keys: NDArray[np.float64], indices: NDArray[np.int64]) -> None:
        """Add voxels; those with the largest keys are dropped when there are twice as many as needed."""
        self._keys, self._indices = np.concatenate([self._keys, keys]), np.concatenate([self._indices, indices])
        if len(self._keys) > 2 * MOST_LOCATIONS:
            self._shorten(MOST_LOCATIONS)
            self._highest = float(self._keys.max())

    def finish(self, count: int) -> NDArray[np.int64]:
        """Return the flat indices (m,), ascending, that are kept of ``count`` voxels."""
        self._shorten(min(sample_size(count), MOST_LOCATIONS))
        return np.sort(self._indices)

    def _shorten(self, size: int) -> None:
        if len(self._keys) > size:
            kept = np.argpartition(self._keys, size - 1)[:size]
            self._keys, self._indices = self._keys[kept], self._indices[kept]


def places_of(mask: BoolArray, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the flat indices (n,) of some of the True voxels of a mask, which are counted in C order from 0.

    ``ranks`` (n,) ascend. If they are few, only the rows of voxels that hold them are searched.
    """
    flat = np.ascontiguousarray(mask).reshape(-1)
    starts = np.arange(0, flat.size, _ROW)
    if len(ranks) * 8 > len(starts):
        return np.flatnonzero(flat)[ranks]
    ends = np.cumsum(np.add.reduceat(flat.view(np.uint8), starts, dtype=np.int64))
    rows = np.searchsorted(ends, ranks, side="right")
    places = np.empty(len(ranks), dtype=np.intp)
    for index, (rank, row) in enumerate(zip(ranks.tolist(), rows.tolist(), strict=True)):
        inside = np.flatnonzero(flat[row * _ROW : (row + 1) * _ROW])
        places[index] = row * _ROW + inside[rank - (ends[row - 1] if row else 0)]
    return places


def count_codes(codes: CodeArray) -> dict[int, int]:
    """Return code -> number of voxels for the codes that occur in a map (any shape), ascending."""
    if not codes.size:
        return {}
    low, high = int(codes.min()), int(codes.max())
    if low == high:
        return {low: codes.size}
    if high - low < _FEW_CODES:  # comparing is several times faster than counting bins
        counts = {code: int(np.count_nonzero(codes == code)) for code in range(low, high + 1)}
        return {code: count for code, count in counts.items() if count}
    flat = codes.reshape(-1)
    bins = np.zeros(high + 1, dtype=np.int64)
    for chunk in chunks(flat.size):
        bins += np.bincount(flat[chunk], minlength=high + 1)
    return {int(code): int(bins[code]) for code in np.flatnonzero(bins)}
