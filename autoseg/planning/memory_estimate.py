"""How much memory a process needs for the largest case of a data set, estimated from headers before voxels are read."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from autoseg.core.errors import FileFormatError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.io.images import read_header
from autoseg.preprocessing.pipeline import resampled_shape, target_spacing

_BASE = 200_000_000
"""Bytes of a process that has read nothing: interpreter and libraries, as far as they are not shared."""
_CANDIDATES = 16
"""Cases with the largest files whose headers are read; compression hardly hides a larger volume than all of them."""
_LABEL_BYTES = 2
"""Of a voxel: file values and codes, or codes before and after resampling."""
_REACH_BYTES = 24
"""Of a voxel of which the distance to annotation is measured: scipy's distances, nearest voxels and masks."""


def survey_bytes(dataset: Dataset) -> int:
    """Bytes for checking and measuring the largest case: its image as stored (taken for float32), labels and codes."""
    return _BASE + max((n * (4 * c + _LABEL_BYTES) for c, n in _largest(dataset.cases)), default=0)


def preprocessing_bytes(
    dataset: Dataset, fingerprint: Fingerprint, plan: Plan, configuration: Configuration, names: Collection[str]
) -> int:
    """Bytes for preprocessing the largest of some cases: as stored, cropped and normalised, between axes, resampled.

    ``names`` are those of the cases; what the fingerprint does not know of, it says nothing of.
    """
    stored = max(
        (n * (4 * c + 1) for c, n in _largest([case for case in dataset.cases if case.name in names])), default=0
    )
    n_channels = len(configuration.normalization)
    has_reach = not dataset.labels.is_dense and bool(dataset.protocol.reach_mm)
    shapes = zip(fingerprint.cases, fingerprint.shapes_after_crop, fingerprint.spacings, strict=True)
    needs = [
        _resampling_bytes(
            [shape[axis] for axis in plan.transpose_forward],
            [spacing[axis] for axis in plan.transpose_forward],
            configuration,
            n_channels,
        )
        + has_reach * _REACH_BYTES * math.prod(shape)
        + (name in fingerprint.turned) * 4 * n_channels * math.prod(shape)
        for name, shape, spacing in shapes
        if name in names
    ]
    return _BASE + stored + max(needs, default=0)


def _resampling_bytes(
    shape: Sequence[int], spacing: Sequence[float], configuration: Configuration, n_channels: int
) -> int:
    """Bytes of the cropped case, of what resampling one channel keeps between two axes, and of the result."""
    after = resampled_shape(shape, spacing, target_spacing(tuple(spacing), configuration))
    plane_before, plane_after = math.prod(shape[1:]), math.prod(after[1:])
    between = min(after[0] * plane_before, shape[0] * plane_after)
    return 4 * n_channels * shape[0] * plane_before + 4 * between + (4 * n_channels + 1) * after[0] * plane_after


def _largest(cases: Sequence[CaseFiles]) -> list[tuple[int, int]]:
    """Return channels and voxels of the cases with the largest image files; those that cannot be read are left out."""
    by_size = sorted(cases, key=_file_bytes, reverse=True)[:_CANDIDATES]
    found = []
    for case in by_size:
        try:
            shapes = [read_header(path)[0] for path in case.images]
        except FileFormatError:
            continue
        found.append((sum(shape[0] for shape in shapes), math.prod(shapes[0][1:])))
    return found


def _file_bytes(case: CaseFiles) -> int:
    return sum(path.stat().st_size for path in case.images if path.exists())
