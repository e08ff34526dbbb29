"""Low-resolution pass of a fast prediction: windows in which a coarser copy of the image shows no foreground."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.core.arrays import BoolArray, Float32Array, Shape3
from autoseg.core.findings import listed
from autoseg.core.plan import Configuration
from autoseg.inference.window import Slab, WindowGrid, WindowSelection, volume_grid, window_shape
from autoseg.tasks.regions import Regions
from autoseg.tasks.semantic import Semantic
from autoseg.tasks.task import Task

log = logging.getLogger(__name__)

FACTOR = 2
"""Voxels of the image, along an axis, that become one of the low-resolution image."""
MOST_WINDOWS = 1 / 4
"""Largest number of windows of the low-resolution image, as a share of those of the image, for which the pass is done:
it costs as much time as so many windows."""
FOREGROUND = 0.05
"""Probability of foreground from which the windows around a low-resolution voxel are predicted."""
RECOGNISED = 0.5
"""Probability that every foreground head must reach somewhere in the low-resolution image."""
MARGIN = 1 / 8
"""Distance from a window within which foreground makes it predicted, as a share of its edge; at least one voxel."""


def select_windows(
    image: Float32Array,
    configuration: Configuration,
    task: Task,
    step: float,
    predict: Callable[[Tensor], Iterable[Slab]],
    *,
    case: str,
) -> WindowSelection | None:
    """Return the windows with foreground nearby in a low-resolution copy of the image; None: predict all.

    Foreground is every head but the background: 1 - the probability of background for classes, the largest probability
    of a region for regions. Its probability must stay under ``FOREGROUND`` within ``MARGIN`` of a window that is left
    out. All windows are predicted, with a line in the log, if

    * the task is neither of classes nor of regions, because its background is unknown here,
    * the configuration is 2-D, because half the resolution of two axes only costs more than it saves,
    * the network is the second stage of a cascade, because it knows its further input at full resolution only,
    * the low-resolution image has too many windows for the pass to pay (``MOST_WINDOWS``),
    * a foreground head is recognised nowhere in it (``RECOGNISED``): it may be there and too small for it,
    * foreground is near every window.

    Objects of a recognised class that vanish at low resolution, and lie far from all others, are lost.

    Parameters
    ----------
    image
        (C, *S) float32, preprocessed.
    configuration
        Patch size, and the spacing that tells which axes are made coarser.
    task
        Probabilities of heads from logits.
    step
        Largest distance of neighbouring windows as a share of the patch.
    predict
        Returns the slabs of logits (O, planes, y, x) of an image (C, *S).
    case
        Name for the log.
    """
    shape = (image.shape[1], image.shape[2], image.shape[3])
    grid = volume_grid(shape, configuration.patch_size, step)
    factors = low_resolution_factors(configuration)
    n_coarse = _n_coarse_windows(shape, factors, configuration, step)
    obstacle = _obstacle(task, configuration, n_coarse, grid.n_windows)
    if obstacle is not None:
        log.debug("case %s: all %d windows predicted (%s)", case, grid.n_windows, obstacle)
        return None
    coarse = _foreground(predict(_coarser(image, factors)), task)
    if coarse.unrecognised:
        names = listed(coarse.unrecognised)
        log.info("case %s: all %d windows predicted (not recognised coarsely: %s)", case, grid.n_windows, names)
        return None
    corners = tuple(_near(coarse.mask, grid, factors, configuration.patch_size))
    n_left_out = grid.n_windows - len(corners)
    log.info("case %s: %d of %d windows left out, without foreground nearby", case, n_left_out, grid.n_windows)
    return WindowSelection(corners, coarse.background) if n_left_out else None


def _obstacle(task: Task, configuration: Configuration, n_coarse: int, n_windows: int) -> str | None:
    """Return why there is no low-resolution pass of ``n_coarse`` windows for an image of ``n_windows``; else None."""
    if not isinstance(task, Semantic | Regions):
        return f"{type(task).__name__} is neither a task of classes nor of regions"
    if configuration.is_2d:
        return "slices"
    if configuration.previous_stage is not None:
        return "second stage of a cascade"
    if n_coarse > MOST_WINDOWS * n_windows:
        return f"a low-resolution pass would need {n_coarse}"
    return None


def _n_coarse_windows(shape: Shape3, factors: Shape3, configuration: Configuration, step: float) -> int:
    """Return the number of windows of the low-resolution copy of an image of ``shape`` (z, y, x)."""
    coarse = [math.ceil(size / factor) for size, factor in zip(shape, factors, strict=True)]
    return volume_grid(coarse, configuration.patch_size, step).n_windows


def low_resolution_factors(configuration: Configuration) -> Shape3:
    """Return how many voxels along each axis (z, y, x) become one: 1 along axes much coarser than others."""
    finest = min(configuration.spacing)
    factors = [1 if step >= FACTOR * finest else FACTOR for step in configuration.spacing]
    z, y, x = [*[1] * (3 - len(factors)), *factors]
    return (z, y, x)


@dataclass(frozen=True, eq=False, slots=True)
class _Foreground:
    """Foreground that a model predicts in a low-resolution image."""

    mask: BoolArray
    """(z, y, x): voxels where foreground is possible."""
    unrecognised: tuple[str, ...]
    """Names of the foreground heads that are recognised nowhere."""
    background: Tensor
    """(O,) float32: mean logits of the voxels outside ``mask``, which a decision therefore takes for background; 0
    where there is no such voxel."""


def _coarser(image: Float32Array, factors: Shape3) -> Tensor:
    """Return the means (C, z', y', x') of blocks of an image (C, z, y, x); the last block of an axis may be smaller."""
    return nn.functional.avg_pool3d(torch.from_numpy(np.ascontiguousarray(image)), factors, ceil_mode=True)


def _foreground(slabs: Iterable[Slab], task: Task) -> _Foreground:
    """Return where the logits (O, planes, y, x) of the slabs of a low-resolution image show foreground."""
    heads = list(task.labels.foreground_heads)
    highest = torch.zeros(len(heads))
    masks, total, n_background = [], torch.zeros(len(task.outputs), dtype=torch.float64), 0
    for _, slab in slabs:
        logits = torch.from_numpy(slab)
        probabilities = task.probabilities(logits[None])[0, heads]  # (F, planes, y, x)
        foreground = probabilities.sum(dim=0) if task.is_exclusive else probabilities.amax(dim=0)
        mask = foreground >= FOREGROUND
        highest = torch.maximum(highest, probabilities.flatten(1).amax(dim=1))
        total += logits[:, ~mask].sum(dim=1, dtype=torch.float64)
        n_background += int((~mask).sum())
        masks.append(mask.numpy())
    names = [task.labels.heads[head].name for head in heads]
    return _Foreground(
        np.concatenate(masks),
        tuple(name for name, value in zip(names, highest.tolist(), strict=True) if value < RECOGNISED),
        (total / max(1, n_background)).float(),
    )


def _near(mask: BoolArray, grid: WindowGrid, factors: Shape3, patch_size: Sequence[int]) -> Iterator[Shape3]:
    """Yield the first voxel of the windows within ``MARGIN`` of a True voxel of a low-resolution mask (z', y', x')."""
    edges = window_shape(patch_size)
    margins = [max(1, round(MARGIN * edge)) for edge in edges]
    for corner in grid.corners():
        box = []
        for first, low, edge, margin, factor in zip(corner, grid.pad_low, edges, margins, factors, strict=True):
            start, stop = first - low - margin, first - low + edge + margin
            box.append(slice(max(0, start) // factor, math.ceil(stop / factor)))
        if mask[tuple(box)].any():
            yield corner
