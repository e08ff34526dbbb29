"""Uncertainty of a model about unannotated voxels: predictive entropy, summed over the boxes of a case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.cases.case import CaseRecord, Target
from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.core.chunks import VOXELS
from autoseg.dataset.labels import Labels, background_value, head_states
from autoseg.inference.box_sums import BoxGrid, box_sums, count_in_boxes
from autoseg.inference.entropy import binary_entropies, entropy
from autoseg.inference.export import scores
from autoseg.inference.logit_resampling import resampled_slabs
from autoseg.preprocessing import restore
from autoseg.tasks.task import task_of

SHADES = 255
"""Value that stands for entropy 1 in a stored map."""


@dataclass(frozen=True, slots=True)
class BoxUncertainty:
    """Uncertainty in the boxes of one case; (*n) is the number of boxes along each file axis."""

    grid: BoxGrid
    """Boxes in the file's axes (z, y, x)."""
    open_voxels: NDArray[np.float64]
    """(*n): number of voxels whose class the annotation leaves open."""
    entropy: NDArray[np.float64]
    """(*n): sum of the entropy over the open voxels, each 0 to 1."""
    entropy_of: NDArray[np.float64]
    """(F, *n): the same, each voxel weighted with the probability of a foreground head."""
    predicted: NDArray[np.float64]
    """(F, *n): number of open voxels predicted as each foreground head."""


@dataclass(frozen=True, slots=True)
class UncertaintyMaps:
    """Maps (z, y, x) for a picture of a case, in the file's axes."""

    entropy: NDArray[np.uint8]
    """Entropy, 0 to ``SHADES``; 0 where the annotation leaves nothing open."""
    labels: NDArray[np.unsignedinteger]
    """Predicted file values."""
    is_open: BoolArray
    """Voxels whose class the annotation leaves open."""


def open_voxels(target: Target | None, labels: Labels, shape: tuple[int, ...]) -> BoolArray:
    """Return (*S) bool: voxels of which at least one head is undecided; all voxels without annotation."""
    if target is None:
        return np.ones(shape, dtype=bool)
    by_code: BoolArray = np.asarray(_undecided(target.label_sets, labels).any(axis=1))
    is_open: BoolArray = by_code[target.codes]
    return is_open


def measure(
    logits: Float32Array, record: CaseRecord, labels: Labels, target: Target | None, grid: BoxGrid
) -> tuple[BoxUncertainty, UncertaintyMaps]:
    """Measure the predictive entropy of a case in every box of ``grid``.

    Parameters
    ----------
    logits
        (O, *S) float32 on the plan's grid.
    record
        Record of the preprocessing of the case.
    labels
        Meaning of outputs, heads and codes.
    target
        Annotation (*S) in the file's axes; None if there is none.
    grid
        Slices or patches in the file's axes.

    Notes
    -----
    The entropy of a voxel is that of the predicted probabilities *within its label set*, divided by its largest
    possible value. So it is 0 where one class is annotated, whatever the model predicts, and that of all classes where
    the voxel is unannotated. Region heads: the mean over all heads, where decided heads count as 0. Logits are
    resampled slab by slab, so that the heads never exist at full size. Outside the crop the prediction is background
    with entropy 0. Source of the weighting with the probability of a class: nnActive (Lüth et al. 2025)
    ``strategies/uncertainties.py``.
    """
    task, order = task_of(labels), record.voxel_order
    is_open = open_voxels(target, labels, order.inverse.permuted(record.shape_before_crop))
    turned = grid.turned(order, record.shape_before_crop)
    foreground = list(labels.foreground_heads)
    sums = np.zeros((1 + 2 * len(foreground), *turned.shape))
    shades = np.zeros(record.shape_after_crop, dtype=np.uint8)
    decided: NDArray[np.unsignedinteger] = np.zeros(record.shape_after_crop, dtype=np.uint8)
    for first, slab in resampled_slabs(logits, record, slab_values=VOXELS):
        undecided = _slab_of_undecided(target, labels, record, first, slab.shape[1])
        total, weighted, predicted = entropies(scores(slab, task), undecided, labels)
        maps = np.concatenate([total[None], weighted[foreground], predicted[foreground]])
        corner = (record.crop_low[0] + first, record.crop_low[1], record.crop_low[2])
        sums += box_sums(maps, turned, corner)
        stop = first + slab.shape[1]
        shades[first:stop] = np.rint(total * SHADES)
        values = task.decode(slab.numpy())
        decided = decided.astype(values.dtype, copy=False)
        decided[first:stop] = values
    sums = order.invert(sums)
    uncertainty = BoxUncertainty(
        grid,
        count_in_boxes(is_open, grid),
        sums[0],
        sums[1 : 1 + len(foreground)],
        sums[1 + len(foreground) :],
    )
    return uncertainty, UncertaintyMaps(
        restore(shades, record), task.finish(restore(decided, record, fill=background_value(labels))), is_open
    )


def entropies(
    logits: Tensor, undecided: BoolArray | None, labels: Labels
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Return the entropy of every voxel, the same weighted for every head, and the predicted heads.

    Parameters
    ----------
    logits
        (H, *S) float32, logits of heads.
    undecided
        (H, *S) bool: heads that the annotation leaves open; None if all are open everywhere.
    labels
        Data set's labels: heads are classes (softmax) or regions (sigmoid).

    Returns
    -------
    entropy, weighted, predicted
        float32: (*S) in [0, 1]; (H, *S), weighted with the head's probability; (H, *S), 0 or 1. All are 0 where nothing
        is open.
    """
    is_open = torch.ones(logits.shape, dtype=torch.bool) if undecided is None else torch.from_numpy(undecided)
    is_open_anywhere = is_open.any(dim=0)
    if not task_of(labels).is_exclusive:
        probability = torch.sigmoid(logits)
        each = binary_entropies(probability) * is_open
        total, weighted = each.mean(dim=0).clamp(0, 1), each * probability
        predicted = (logits > 0) & is_open
    else:
        inside = torch.where(is_open, logits, -torch.inf)
        probability = torch.where(is_open_anywhere, torch.softmax(inside, dim=0), 0.0)
        total = entropy(probability, is_exclusive=True)
        weighted = total * probability
        predicted = torch.nn.functional.one_hot(inside.argmax(dim=0), len(logits)).movedim(-1, 0) * is_open_anywhere
    return total.numpy(), weighted.numpy(), predicted.float().numpy()


def _undecided(label_sets: BoolArray, labels: Labels) -> BoolArray:
    """Return (N, H) bool: the heads that each row of ``label_sets`` (N, K) leaves open; an empty row leaves none."""
    positive, negative = head_states(label_sets, labels.regions)
    undecided: BoolArray = ~(positive | negative) & label_sets.any(axis=1, keepdims=True)
    return undecided


def _slab_of_undecided(
    target: Target | None, labels: Labels, record: CaseRecord, first: int, planes: int
) -> BoolArray | None:
    """Return (H, planes, y, x) bool: undecided heads in the crop from plane ``first`` on; None without annotation."""
    if target is None:
        return None
    low, high = record.crop_low, record.crop_high
    codes: NDArray[Any] = record.voxel_order.apply(target.codes)
    part = codes[low[0] + first : low[0] + first + planes, low[1] : high[1], low[2] : high[2]]
    return np.ascontiguousarray(np.moveaxis(_undecided(target.label_sets, labels)[part], -1, 0))
