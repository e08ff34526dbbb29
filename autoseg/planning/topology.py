"""Pooling of a U-Net: how often and along which axes, from the voxel spacing and the patch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.core.plan import Topology
from autoseg.planning.presets import PlannerSettings

_SIMILAR = 2.0
"""Axes whose spacings differ by less than this factor are pooled and convolved together."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """Strides and kernels of the stages of a network, and the patch that they need."""

    strides: tuple[tuple[int, ...], ...]
    """Per stage and axis; 1 everywhere in stage 0."""
    kernels: tuple[tuple[int, ...], ...]
    """Per stage and axis."""
    divisor: tuple[int, ...]
    """Per axis, the product of the strides; the patch edge must be a multiple of it."""
    patch_size: tuple[int, ...]
    """Voxels per axis: the given patch, padded to multiples of ``divisor``."""


def pooling(spacing: Sequence[float], patch_size: Sequence[float], min_edge: int = 4) -> Pooling:
    """Pool the finest axes until all spacings are similar, then all axes together, down to ``min_edge`` voxels.

    Parameters
    ----------
    spacing
        mm, per axis of the patch.
    patch_size
        Voxels per axis, at least 1; fractions are allowed (a median over cases may end in .5).
    min_edge
        No axis is pooled below this many voxels.

    Returns
    -------
    Pooling
        At least one stage; a patch with less than ``2 * min_edge`` voxels along every axis is not pooled.

    Notes
    -----
    Source: nnU-Net 2.8.1 ``experiment_planning/experiment_planners/network_topology.py``.
    """
    n_dims = len(spacing)
    current_spacing, size = list(spacing), list(patch_size)
    divisor, kernel = [1] * n_dims, [1] * n_dims
    strides: list[tuple[int, ...]] = [(1,) * n_dims]
    kernels: list[tuple[int, ...]] = []
    while axes := _axes_to_pool(current_spacing, size, min_edge):
        finest = min(current_spacing)
        kernel = [
            3 if edge == 3 or step / finest < _SIMILAR else 1
            for edge, step in zip(kernel, current_spacing, strict=True)
        ]
        for axis in axes:
            divisor[axis] *= 2
            current_spacing[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
        strides.append(tuple(2 if axis in axes else 1 for axis in range(n_dims)))
        kernels.append(tuple(kernel))
    kernels.append((3,) * n_dims)
    padded = tuple(factor * math.ceil(edge / factor) for edge, factor in zip(patch_size, divisor, strict=True))
    return Pooling(tuple(strides), tuple(kernels), tuple(divisor), padded)


def build_topology(pooled: Pooling, settings: PlannerSettings) -> Topology:
    """Return the network for a pooling: channels and blocks of each stage by the numbers of a planner."""
    n_stages, n_dims = len(pooled.strides), len(pooled.divisor)
    limit = settings.max_features(n_dims)
    return Topology(
        kind=settings.kind,
        features=tuple(min(limit, settings.base_features * 2**stage) for stage in range(n_stages)),
        strides=pooled.strides,
        kernels=pooled.kernels,
        encoder_blocks=settings.blocks(n_stages),
        decoder_blocks=(settings.decoder_blocks,) * (n_stages - 1),
    )


def _axes_to_pool(spacing: Sequence[float], size: Sequence[float], min_edge: int) -> list[int]:
    """Return the axes that the next stage halves; empty at the bottleneck."""
    large = [axis for axis, edge in enumerate(size) if edge >= 2 * min_edge]
    if not large:
        return []
    finest = min(spacing[axis] for axis in large)
    axes = [axis for axis in large if spacing[axis] / finest < _SIMILAR]
    if len(axes) == 1 and size[axes[0]] < 3 * min_edge:
        return []
    return axes
