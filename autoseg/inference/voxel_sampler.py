"""Observer of a prediction that draws annotated voxels, with their probabilities, for the fit of a calibration."""

from __future__ import annotations

import zlib
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.cases.case import CaseRecord, Target
from autoseg.core.arrays import BoolArray
from autoseg.core.chunks import slabs
from autoseg.dataset.labels import Labels, head_states, informative_codes
from autoseg.inference.calibration_sample import CaseSample
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.temperature import log_scores
from autoseg.tasks.task import task_of

FOLD_VOXELS, FOLD_VALUES = 100_000, 2_000_000
"""Approximate limits of the voxels that one fold records, and of these times the heads."""


def voxels_per_case(n_cases: int, n_heads: int) -> int:
    """Return the approximate number of voxels to sample of each of the cases of a fold, at least 1."""
    return max(1, min(FOLD_VOXELS, FOLD_VALUES // max(1, n_heads)) // max(1, n_cases))


class VoxelSampler:
    """Observer that draws annotated voxels of a case at random, about as many of each of its label sets.

    Each voxel is drawn on its own with a rate that depends on its label set, by random numbers from the name of the
    case and the plane: so the choice does not depend on the slabs, and the same case is always sampled the same.
    """

    needs_members: ClassVar[bool] = False

    def __init__(self, target: Target, record: CaseRecord, labels: Labels, n_voxels: int) -> None:
        """Set the rates.

        Parameters
        ----------
        target
            Annotation (z, y, x) in the file's axes.
        record
            Record of the preprocessing of the case; only voxels of its crop are drawn.
        n_voxels
            Approximate number of voxels to draw; fewer if fewer are annotated.
        """
        codes: NDArray[Any] = record.voxel_order.apply(target.codes)
        crop = tuple(slice(low, high) for low, high in zip(record.crop_low, record.crop_high, strict=True))
        self._codes = codes[crop]
        self._seed = zlib.crc32(record.case.encode())
        self._is_exclusive = task_of(labels).is_exclusive
        positive, negative = head_states(target.label_sets, labels.regions)
        self._states = positive.astype(np.int8) - negative.astype(np.int8)
        self.rates = _rates(self._codes, informative_codes(target.label_sets), n_voxels)
        """(N,) float64: probability with which a voxel of each code is drawn."""
        self._parts: list[CaseSample] = []

    def __call__(self, slab: DecidedSlab) -> None:
        """Draw voxels of a slab."""
        for offset in range(slab.probabilities.shape[1]):
            plane = slab.first + offset
            codes = self._codes[plane]
            drawn = np.random.default_rng((self._seed, plane)).random(codes.shape) < self.rates[codes]
            values = torch.from_numpy(slab.probabilities[:, offset][:, drawn])
            scores = log_scores(values, is_exclusive=self._is_exclusive).numpy().T.astype(np.float16)
            own = codes[drawn]
            self._parts.append(CaseSample(scores, self._states[own], (1 / self.rates[own]).astype(np.float32)))

    def sample(self) -> CaseSample:
        """Return the voxels that were drawn so far."""
        empty = CaseSample(
            np.empty((0, self._states.shape[1]), np.float16),
            np.empty((0, self._states.shape[1]), np.int8),
            np.empty(0, np.float32),
        )
        parts = [empty, *self._parts]
        return CaseSample(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.states for part in parts]),
            np.concatenate([part.weights for part in parts]),
        )


def _rates(codes: NDArray[Any], is_informative: BoolArray, n_voxels: int) -> NDArray[np.float64]:
    """Return (N,): rate of each code, so that those that occur have equal shares of ``n_voxels``; 0 for unknown."""
    counts = np.zeros(len(is_informative), dtype=np.int64)
    for slab in slabs(codes.shape):
        counts += np.bincount(codes[slab].reshape(-1), minlength=len(counts))
    occurs = (counts > 0) & is_informative
    share = n_voxels / max(1, int(occurs.sum()))
    return np.where(occurs, np.minimum(1, share / np.maximum(1, counts)), 0.0)
