"""Estimate of the memory that a process needs for the largest case of a data set, from file headers alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress

from autoseg.core.boxes import Box
from autoseg.core.errors import FileFormatError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.io.images import read_header
from autoseg.preprocessing.context import TRAINED_CONTEXT, context_margin
from autoseg.preprocessing.pipeline import resampled_shape, target_spacing
from autoseg.preprocessing.volume_size import is_large

_BASE = 200_000_000
"""Bytes of a process before it has read anything: interpreter and libraries that are not shared."""
_BOXES = 2_000_000_000
"""Bytes for a case that is too large for memory, whatever its size (docs/performance.md)."""
_CANDIDATES = 16
"""Cases whose headers are read: those with the largest files.

The 16 largest files almost surely include the largest volume, even if compression ratios differ."""
_LABEL_BYTES = 2
"""Bytes of labels per voxel: file values and codes, or codes before and after resampling."""
_REACH_BYTES = 24
"""Bytes per voxel when distances to annotation are measured: scipy's distances, nearest voxels and masks."""


def survey_bytes(dataset: Dataset) -> int:
    """Return the bytes for checking and measuring the largest case: image (taken for float32), labels and codes."""
    in_memory, in_boxes = _split(dataset.cases)
    return max(_BASE + max((n * (4 * c + _LABEL_BYTES) for c, n in _largest(in_memory)), default=0), in_boxes)


def preprocessing_bytes(
    dataset: Dataset, fingerprint: Fingerprint, plan: Plan, configuration: Configuration, names: Collection[str]
) -> int:
    """Return the bytes for preprocessing the largest of some cases.

    Counted are the case as stored, the cropped and normalised image, the array between two resampled axes, and the
    result; of a box of a volume with its context.

    Parameters
    ----------
    names
        Names of the cases. Those that the fingerprint does not list count only as stored.
    """
    chosen, in_boxes = _split([case for case in dataset.cases if case.name in names])
    held = {case.name for case in chosen}
    growth = {case.name: _growth(case, plan, configuration) for case in chosen if case.volume is not None}
    stored = max((n * (4 * c + 1) for c, n in _largest(chosen)), default=0) * max(growth.values(), default=1.0)
    n_channels = len(configuration.normalization)
    has_reach = not dataset.labels.is_dense and bool(dataset.protocol.reach_mm)
    shapes = zip(fingerprint.cases, fingerprint.shapes_after_crop, fingerprint.spacings, strict=True)
    needs = [
        growth.get(name, 1.0)
        * (
            _resampling_bytes(
                [shape[axis] for axis in plan.transpose_forward],
                [spacing[axis] for axis in plan.transpose_forward],
                configuration,
                n_channels,
            )
            + (name in fingerprint.turned) * 4 * n_channels * math.prod(shape)
        )
        + has_reach * _REACH_BYTES * math.prod(shape)
        for name, shape, spacing in shapes
        if name in held
    ]
    return max(_BASE + math.ceil(stored + max(needs, default=0)), in_boxes)


def _growth(case: CaseFiles, plan: Plan, configuration: Configuration) -> float:
    """Return the ratio of the voxels that are read of a case of a volume, with context, to its own; at least 1."""
    if case.volume is None or case.volume.box is None:
        return 1.0
    box = case.volume.box
    try:
        (_, z, y, x), geometry = read_header(case.volume.images[0])
    except FileFormatError:
        return 1.0
    read = box.grown(context_margin(plan, configuration, geometry, TRAINED_CONTEXT))
    return read.intersection(Box.whole((z, y, x))).n_voxels / box.n_voxels


def _resampling_bytes(
    shape: Sequence[int], spacing: Sequence[float], configuration: Configuration, n_channels: int
) -> int:
    """Return the bytes of the cropped case, of one channel between two resampled axes, and of the result."""
    after = resampled_shape(shape, spacing, target_spacing(tuple(spacing), configuration))
    plane_before, plane_after = math.prod(shape[1:]), math.prod(after[1:])
    between = min(after[0] * plane_before, shape[0] * plane_after)
    return 4 * n_channels * shape[0] * plane_before + 4 * between + (4 * n_channels + 1) * after[0] * plane_after


def _split(cases: Sequence[CaseFiles]) -> tuple[list[CaseFiles], int]:
    """Return the cases that are read into memory, and the bytes for one that is read box by box; 0 if there is none."""
    in_memory = []
    for case in cases:
        try:
            if not is_large(case):
                in_memory.append(case)
        except FileFormatError:
            continue
    return in_memory, _BOXES if len(in_memory) < len(cases) else 0


def _largest(cases: Sequence[CaseFiles]) -> list[tuple[int, int]]:
    """Return (channels, voxels) of the cases with the largest image files, without those that cannot be read."""
    by_size = sorted(cases, key=_file_bytes, reverse=True)[:_CANDIDATES]
    sizes = []
    for case in by_size:
        try:
            shapes = [read_header(path)[0] for path in case.images]
        except FileFormatError:
            continue
        sizes.append((sum(shape[0] for shape in shapes), math.prod(shapes[0][1:])))
    return sizes


def _file_bytes(case: CaseFiles) -> int:
    """Return the bytes of the images; of a volume those of the case's own voxels, taken for 2 bytes each."""
    if case.volume is not None:
        with suppress(FileFormatError):
            return sum(2 * math.prod(read_header(path)[0]) for path in case.images)
        return 0
    return sum(path.stat().st_size for path in case.images if path.exists())
