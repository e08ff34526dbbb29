"""Mean and deviation of the targets of a regression over all cases, from sums of each case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.core.arrays import Float32Array
from autoseg.core.errors import DatasetError, Fault
from autoseg.core.fingerprint import TargetProperties


@dataclass(frozen=True, slots=True)
class TargetSums:
    """One target in the known voxels of one case; all 0 if there is none."""

    n_voxels: int
    mean: float
    squares: float
    """Sum of squared differences to the mean."""
    least: float
    most: float

    @classmethod
    def of(cls, numbers: Float32Array) -> TargetSums:
        """Measure one target (*S) float32, NaN where unknown; sums are float64."""
        known = numbers[~np.isnan(numbers)].astype(np.float64)
        if not known.size:
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        mean = float(known.mean())
        return cls(known.size, mean, float(np.square(known - mean).sum()), float(known.min()), float(known.max()))


def target_properties(names: Sequence[str], cases: Sequence[Sequence[TargetSums]]) -> dict[str, TargetProperties]:
    """Return the statistics of each target over all known voxels of the cases; {} for classes.

    Parameters
    ----------
    names
        Of the targets.
    cases
        For each case the sums of its targets; none for cases without annotation.

    Raises
    ------
    DatasetError
        If a target is known in no voxel.
    """
    measured = [case for case in cases if case]
    columns = zip(*measured, strict=True) if measured else [() for _ in names]
    properties = {name: _pooled(column) for name, column in zip(names, columns, strict=bool(names))}
    never = [name for name, item in properties.items() if not item.n_voxels]
    if never:
        fix = "Add numbers, or remove it from targets (and its channel from the label files)."
        raise DatasetError([Fault(f"target {name!r}", "no known voxel in any case", "some", fix) for name in never])
    return properties


def _pooled(cases: Sequence[TargetSums]) -> TargetProperties:
    known = [case for case in cases if case.n_voxels]
    n_voxels = sum(case.n_voxels for case in known)
    if not n_voxels:
        return TargetProperties(mean=0.0, std=0.0, min=0.0, max=0.0, n_voxels=0)
    mean = math.fsum(case.n_voxels * case.mean for case in known) / n_voxels
    squares = math.fsum(case.squares + case.n_voxels * (case.mean - mean) ** 2 for case in known)
    return TargetProperties(
        mean=mean,
        std=math.sqrt(squares / n_voxels),
        min=min(case.least for case in known),
        max=max(case.most for case in known),
        n_voxels=n_voxels,
    )
