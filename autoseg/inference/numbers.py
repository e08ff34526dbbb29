"""Conversion of the outputs of a regression to numbers in the axes and units of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

import numpy as np

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array
from autoseg.core.boxes import Box
from autoseg.core.fingerprint import TargetProperties
from autoseg.core.pipelined import map_in_background
from autoseg.dataset.labels import Labels
from autoseg.inference.logit_resampling import Logits, Part, checked_slabs, parts_of, resampled, resampling_of
from autoseg.inference.window import SLAB_VALUES
from autoseg.preprocessing import restore
from autoseg.tasks.regression import Regression


def decide_numbers(
    outputs: Logits,
    record: CaseRecord,
    labels: Labels,
    targets: Sequence[TargetProperties],
    *,
    pool: Executor | None = None,
    slab_values: int = SLAB_VALUES,
) -> Float32Array:
    """Return the numbers (R, z, y, x) float32 of a regression, in the axes, shape and units of the case's files.

    Parameters as for :func:`autoseg.inference.export.decide`; ``targets`` are the statistics by which numbers were
    standardised. Outputs are resampled linearly. Voxels outside the crop, of which a plan of regression has none, are
    NaN. Raises ``PlanError`` as ``decide``.
    """
    pieces = number_slabs(outputs, record, labels, targets, pool=pool, slab_values=slab_values)
    numbers = np.full((len(labels.targets), *record.shape_after_crop), np.nan, dtype=np.float32)
    for first, values in pieces:
        numbers[:, first : first + values.shape[1]] = values
    restored: Float32Array = restore(numbers, record, fill=np.nan)
    return restored


def number_slabs(
    outputs: Logits,
    record: CaseRecord,
    labels: Labels,
    targets: Sequence[TargetProperties],
    *,
    box: Box | None = None,
    pool: Executor | None = None,
    slab_values: int = SLAB_VALUES,
) -> Iterator[tuple[int, Float32Array]]:
    """Yield ``(first plane, numbers (R, planes, y, x) float32)`` of the crop, or of a box of it.

    Parameters and errors as for :func:`decide_numbers`; ``box`` as for :func:`autoseg.inference.export.decided_slabs`.
    """
    task, grid = Regression(labels), resampling_of(record, box)

    def decided(part: Part) -> tuple[int, Float32Array]:
        return part.first, task.decode(resampled(part, grid).numpy(), targets)

    parts = parts_of(checked_slabs(outputs, grid, len(task.outputs)), grid, slab_values)
    return map(decided, parts) if pool is None else map_in_background(pool, decided, parts)
