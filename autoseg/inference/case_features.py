"""Features of a preprocessed image, which tell how like the training images it is; one pass over its voxels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array
from autoseg.core.plan import Configuration
from autoseg.evaluation.likeness import QUANTILES, CaseFeatures

OCTAVES = 5
"""Number of scales of detail, from 1 to 2 voxels on."""
_SAMPLED_VOXELS = 2**20
"""Number of voxels from which quantiles are estimated, on a regular grid of the image."""
_SMALLEST_VARIANCE = 1e-6


def case_features(image: Float32Array, record: CaseRecord, configuration: Configuration) -> CaseFeatures:
    """Return the features of a preprocessed case.

    Parameters
    ----------
    image
        (C, *S) float32, normalised, on the plan's grid: the channels of the files only, without those of a previous
        stage.
    record
        Record of its preprocessing.
    configuration
        2-D: spacing, size and detail along y and x only.

    Notes
    -----
    The detail of an octave is the variance within blocks of 2 voxels per axis, of the image averaged over the blocks of
    the octave before. Axes that have become 1 voxel long are left out, and an octave without any has the smallest
    variance. On the images of four laboratories, distances of quantiles and octaves together separated one laboratory
    from the others better than either alone (docs/quality.md), and need no pass through the network.
    """
    n_dims = len(configuration.patch_size)
    spacing, shape = record.spacing_before[-n_dims:], record.shape_after_crop[-n_dims:]
    channels = [torch.from_numpy(channel) for channel in image]
    return CaseFeatures(
        spacing=spacing,
        size=tuple(edge * n for edge, n in zip(spacing, shape, strict=True)),
        intensity=tuple(_quantiles(channel) for channel in channels),
        texture=tuple(_octaves(channel, n_dims) for channel in channels),
    )


def _quantiles(channel: Tensor) -> tuple[float, ...]:
    """Return the ``QUANTILES`` of (z, y, x)."""
    step = max(1, math.ceil((channel.numel() / _SAMPLED_VOXELS) ** (1 / 3)))
    steps = [step if edge >= 8 * step else 1 for edge in channel.shape]
    sampled = channel[:: steps[0], :: steps[1], :: steps[2]].numpy()
    return tuple(np.quantile(sampled.ravel(), QUANTILES).tolist())


def _octaves(channel: Tensor, n_dims: int) -> tuple[float, ...]:
    """Return the logarithm of the variance within the blocks of each octave of (z, y, x), finest first."""
    current, variances = channel, []
    for _ in range(OCTAVES):
        edges = [2 if edge > 1 and axis >= 3 - n_dims else 1 for axis, edge in enumerate(current.shape)]
        whole = current[tuple(slice(n // edge * edge) for n, edge in zip(current.shape, edges, strict=True))]
        means = torch.nn.functional.avg_pool3d(whole[None], tuple(edges))[0]
        variances.append(_mean_square(whole) - _mean_square(means))
        current = means
    return tuple(math.log(max(_SMALLEST_VARIANCE, variance)) for variance in variances)


def _mean_square(values: Tensor) -> float:
    """Return the mean of the squares of (z, y, x), summed in float64 plane by plane."""
    return sum(float(plane.double().square().sum()) for plane in values) / values.numel()
