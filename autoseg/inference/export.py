"""From logits on the plan's grid to a label map in the file's axes, slab by slab, never all of them at full size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoseg.core.case import CaseRecord, Float32Array, Shape3
from autoseg.core.errors import PlanError
from autoseg.core.labels import Labels
from autoseg.preprocessing import anisotropic_axis, restore
from autoseg.preprocessing.axes import linear_taps, nearest_indices

LabelMap = NDArray[np.unsignedinteger]
Amend = Callable[[LabelMap, Float32Array, int], LabelMap]
"""Changes a slab of decided voxels (planes, y, x), given its logits (H, planes, y, x) and its first plane."""
_SLAB_VALUES = 2**23


def decide(
    logits: Float32Array,
    record: CaseRecord,
    labels: Labels,
    *,
    amend: Amend | None = None,
    slab_values: int = _SLAB_VALUES,
) -> LabelMap:
    """Return the label map that logits mean, in the axes and shape of the case's file.

    Parameters
    ----------
    logits
        (H, *S) float32 on ``record.shape``, the plan's axes.
    record
        What preprocessing did to the case.
    labels
        What the heads mean; the ignore value never occurs in the result. Voxels outside the crop are background.
    amend
        Has the last word on each slab, on the grid between crop and resampling (the plan's axes).
    slab_values
        Resampled logits held at a time; at least one plane of all heads.

    Notes
    -----
    Logits are resampled linearly (the nearest plane along a coarse axis) and decided then. Source: nnU-Net
    ``inference/export_prediction.py``; differs in that no more than a slab is resampled at a time, in float32.

    Raises
    ------
    PlanError
        If the logits do not lie on the record's grid or have another number of heads.
    """
    _check(logits, record, labels)
    decided: LabelMap | None = None
    for first, slab in resampled_slabs(logits, record, slab_values=slab_values):
        values = labels.decode(slab.numpy())
        if amend is not None:
            values = amend(values, slab.numpy(), first)
        if decided is None:
            decided = np.zeros(record.shape_after_crop, dtype=values.dtype)
        decided[first : first + slab.shape[1]] = values
    if decided is None:
        raise PlanError(f"case {record.case}: found an empty crop, expected at least one voxel. Preprocess it again.")
    restored: LabelMap = restore(decided, record, fill=0)
    return restored


def probabilities(
    logits: Float32Array, record: CaseRecord, labels: Labels, *, slab_values: int = _SLAB_VALUES
) -> Float32Array:
    """Return (H, *S) float32 in [0, 1] in the file's axes: softmax over classes, or one sigmoid per region.

    Parameters and errors as for :func:`decide`. Outside the crop background has 1 and every other head 0 (regions: all
    0). Source: nnU-Net ``export_prediction.py`` (resampled logits first, then softmax).
    """
    _check(logits, record, labels)
    result = np.zeros((labels.n_heads, *record.shape_after_crop), dtype=np.float32)
    for first, slab in resampled_slabs(logits, record, slab_values=slab_values):
        values = torch.sigmoid(slab) if labels.has_regions else torch.softmax(slab, dim=0)
        result[:, first : first + slab.shape[1]] = values.numpy()
    restored: Float32Array = restore(result, record, fill=0)
    if not labels.has_regions:
        background = next(index for index, head in enumerate(labels.heads) if head.is_background)
        inside = restore(np.ones(record.shape_after_crop, dtype=bool), record, fill=0)
        restored[background][~inside] = 1
    return restored


def resampled_slabs(
    logits: Float32Array, record: CaseRecord, *, slab_values: int = _SLAB_VALUES
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(first plane, logits (H, planes, y, x) float32)`` of the grid between crop and resampling, in order."""
    shape = record.shape_after_crop
    source = torch.from_numpy(np.require(logits, np.float32, ["W"]))
    coarse = anisotropic_axis(record.spacing, record.spacing_before)
    planes = max(1, slab_values // max(1, source.shape[0] * math.prod(shape[1:])))
    for first in range(0, shape[0], planes):
        stop = min(first + planes, shape[0])
        slab = _take(source, 1, shape[0], first, stop, nearest=coarse == 0)
        yield first, _resample_planes(slab, shape, coarse)


def _check(logits: Float32Array, record: CaseRecord, labels: Labels) -> None:
    expected = (labels.n_heads, *record.shape)
    if logits.shape != expected:
        raise PlanError(
            f"case {record.case}: found logits of shape {logits.shape}, expected {expected} (heads, then the grid of "
            "the plan). Predict with the model's own plan and labels."
        )


def _resample_planes(slab: Tensor, shape: Shape3, coarse: int | None) -> Tensor:
    """(H, planes, y', x') -> (H, planes, y, x)."""
    if tuple(slab.shape[2:]) == shape[1:]:
        return slab
    if coarse in (1, 2):
        for axis in (1, 2):
            slab = _take(slab, axis + 1, shape[axis], 0, shape[axis], nearest=coarse == axis)
        return slab
    return nn.functional.interpolate(slab, size=shape[1:], mode="bilinear", align_corners=False)


def _take(values: Tensor, axis: int, size: int, first: int, stop: int, *, nearest: bool) -> Tensor:
    """Resample ``axis`` to ``size`` points and return the points ``first`` to ``stop``.

    Linear between voxel centres and constant beyond the outer ones, or the nearest (the higher one on a tie).
    """
    if values.shape[axis] == size:
        return values.narrow(axis, first, stop - first)
    if nearest:
        return values.index_select(axis, torch.from_numpy(nearest_indices(values.shape[axis], size)[first:stop].copy()))
    lower, upper, weight = (torch.from_numpy(taps[first:stop].copy()) for taps in linear_taps(values.shape[axis], size))
    shape = [1] * values.ndim
    shape[axis] = -1
    return torch.lerp(values.index_select(axis, lower), values.index_select(axis, upper), weight.float().view(shape))
