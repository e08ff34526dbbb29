"""Locations of the voxels of each code, so that training places patches around annotated voxels without a search."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.core.chunks import chunks
from autoseg.dataset.labels import informative_codes

SEED = 1234
_AT_LEAST = 10_000
_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Locations:
    """Random sample of the voxels of each informative code."""

    indices: NDArray[np.signedinteger]
    """(n,) flat indices into *S, int32 if they fit, otherwise int64; one ascending run per code."""
    slices: dict[int, tuple[int, int]]
    """Code -> first entry and one past the last entry of its run in ``indices``; only codes that occur."""
    counts: dict[int, int]
    """Code -> number of voxels; all codes that occur, informative or not."""


def find_locations(codes: CodeArray, label_sets: BoolArray) -> Locations:
    """Sample the voxels of every informative code, uniformly and without replacement.

    Of ``n`` voxels ``max(min(10000, n), ceil(n / 100))`` are sampled, so a rare class keeps all of them. The sample
    depends only on the code and the map.

    Parameters
    ----------
    codes
        (*S) unsigned integers < N.
    label_sets
        (N, K) bool.

    Notes
    -----
    Source: nnU-Net ``default_preprocessor.py:_sample_foreground_locations``. We sample codes instead of labels and
    regions: annotated background counts, too, and each code has its own random generator.
    """
    flat = np.ascontiguousarray(codes).reshape(-1)
    counts = np.zeros(len(label_sets), dtype=np.int64)
    for chunk in chunks(flat.size):
        counts += np.bincount(flat[chunk], minlength=len(label_sets))
    wanted = [int(code) for code in np.flatnonzero(informative_codes(label_sets)) if counts[code]]
    dtype = np.int32 if flat.size <= np.iinfo(np.int32).max else np.int64
    extents = _extents(codes)
    runs = [_sample(flat, extents.get(code, (0, flat.size)), code, int(counts[code])).astype(dtype) for code in wanted]
    stops = np.cumsum([len(run) for run in runs], dtype=np.int64).tolist()
    return Locations(
        indices=np.concatenate(runs) if runs else np.zeros(0, dtype=dtype),
        slices={code: (stop - len(run), stop) for code, run, stop in zip(wanted, runs, stops, strict=True)},
        counts={code: int(count) for code, count in enumerate(counts) if count},
    )


def sample_size(count: int) -> int:
    """Return how many of ``count`` voxels of a code are sampled."""
    return max(min(_AT_LEAST, count), math.ceil(_SHARE * count))


def _extents(codes: CodeArray) -> dict[int, tuple[int, int]]:
    """Return code -> first and one past the last flat index of the slices of ``codes`` (*S) with it, from code 1 on."""
    if codes.size == 0:
        return {}
    slice_size = codes.size // len(codes)
    boxes = enumerate(ndimage.find_objects(codes), start=1)
    return {code: (box[0].start * slice_size, box[0].stop * slice_size) for code, box in boxes if box is not None}


def _sample(flat: CodeArray, extent: tuple[int, int], code: int, count: int) -> NDArray[np.intp]:
    """Return ascending flat indices (m,) of sampled voxels of ``code`` in ``flat`` (n,).

    The code occurs ``count`` times, always within ``extent`` (first and one past the last flat index).
    """
    size = sample_size(count)
    rng = np.random.default_rng([SEED, code])
    ranks = np.arange(count) if size == count else np.sort(rng.choice(count, size=size, replace=False, shuffle=False))
    chosen = []
    n_before = 0
    for chunk in chunks(extent[1], start=extent[0]):  # so that no list of all background voxels is needed
        indices = np.flatnonzero(flat[chunk] == code)
        first, last = np.searchsorted(ranks, (n_before, n_before + len(indices)))
        chosen.append(chunk.start + indices[ranks[first:last] - n_before])
        n_before += len(indices)
    return np.concatenate(chosen)
