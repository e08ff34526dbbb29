"""Pooling of a U-Net: how often and along which axes, from the voxel spacing and the patch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoseg.core.errors import PlanError
from autoseg.core.plan import Topology
from autoseg.planning.network_options import NetworkOptions
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


def pooling(
    spacing: Sequence[float], patch_size: Sequence[float], min_edge: int = 4, levels: int | None = None
) -> Pooling:
    """Pool the finest axes until all spacings are similar, then all axes together, down to ``min_edge`` voxels.

    Parameters
    ----------
    spacing
        mm, per axis of the patch.
    patch_size
        Voxels per axis, at least 1; fractions are allowed (a median over cases may end in .5).
    min_edge
        No axis is pooled below this many voxels.
    levels
        Largest number of stages; None for any.

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
    while len(strides) != levels and (axes := _axes_to_pool(current_spacing, size, min_edge)):
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


def pooling_by_options(
    spacing: Sequence[float], patch_size: Sequence[float], min_edge: int, network: NetworkOptions
) -> Pooling:
    """Pool as :func:`pooling`, but with the levels, strides and kernels that a user set.

    More levels than the patch has room for are pooled down to 2 voxels. Raises ``PlanError`` if that is not enough, or
    if the coarsest level would be a single voxel.
    """
    n_dims, wanted = len(spacing), network.n_levels
    pooled = pooling(spacing, patch_size, min_edge, wanted)
    while wanted is not None and network.strides is None and len(pooled.strides) < wanted and min_edge > 2:
        min_edge -= 1
        pooled = pooling(spacing, patch_size, min_edge, wanted)
    n_levels = len(pooled.strides) if wanted is None else wanted
    if network.strides is None and len(pooled.strides) < n_levels:
        raise PlanError(
            f"{n_levels} levels, but a patch of {_by(patch_size)} has room for {len(pooled.strides)}. Set "
            f"network.levels to at most {len(pooled.strides)}, or a larger network.patch_size, or network.strides."
        )
    strides = pooled.strides
    if network.strides is not None:
        strides = _per_stage(network.strides, n_levels, n_dims)
        if len(network.strides) == 1:
            strides = ((1,) * n_dims, *strides[1:])
    kernels = tuple(pooled.kernels[min(stage, len(pooled.kernels) - 1)] for stage in range(n_levels))
    if network.kernels is not None:
        kernels = _per_stage(network.kernels, n_levels, n_dims)
    divisor = tuple(math.prod(steps) for steps in zip(*strides, strict=True))
    padded = tuple(step * math.ceil(edge / step) for edge, step in zip(patch_size, divisor, strict=True))
    if n_levels > 1 and padded == divisor:
        raise PlanError(
            f"{n_levels} levels with strides of {_by(divisor)} in all leave a single voxel of a patch of "
            f"{_by(patch_size)}. Set fewer network.levels, smaller network.strides, or a larger network.patch_size."
        )
    return Pooling(strides, kernels, divisor, padded)


def pooling_of_patch(spacing: Sequence[float], min_edge: int, network: NetworkOptions) -> Pooling:
    """Return the pooling of the patch that a user set, with the nearest patch that it divides; the smaller of equals.

    Raises ``PlanError`` as :func:`pooling_by_options`.
    """
    wanted = network.patch_size or ()
    edges = wanted * len(spacing) if len(wanted) == 1 else wanted
    pooled = pooling_by_options(spacing, edges, min_edge, network)
    nearest = tuple(
        step * max(1, math.ceil(edge / step - 0.5)) for edge, step in zip(edges, pooled.divisor, strict=True)
    )
    is_single = len(pooled.strides) > 1 and nearest == pooled.divisor
    return pooled if is_single else replace(pooled, patch_size=nearest)


def build_topology(pooled: Pooling, settings: PlannerSettings, network: NetworkOptions | None = None) -> Topology:
    """Return the network for a pooling: stages by the numbers of a planner, and by the options that a user set."""
    n_stages, n_dims = len(pooled.strides), len(pooled.divisor)
    options = network or NetworkOptions()
    first = options.first_features or settings.base_features
    limit = options.max_features or max(first, settings.max_features(n_dims))
    features = options.features or tuple(min(limit, first * 2**stage) for stage in range(n_stages))
    dropout = options.dropout * n_stages if len(options.dropout) == 1 else options.dropout
    return Topology(
        kind=settings.kind,
        features=features * n_stages if len(features) == 1 else features,
        strides=pooled.strides,
        kernels=pooled.kernels,
        encoder_blocks=settings.blocks(n_stages),
        decoder_blocks=(settings.decoder_blocks,) * (n_stages - 1),
        activation=options.activation,
        normalization=options.normalization,
        pooling=options.pooling,
        dropout=dropout if any(dropout) else (),
    )


def _per_stage(levels: tuple[tuple[int, ...], ...], n_stages: int, n_dims: int) -> tuple[tuple[int, ...], ...]:
    """Return one number per stage and axis; a single level is for all stages, a single number for all axes."""
    stages = levels * n_stages if len(levels) == 1 else levels
    return tuple(edges * n_dims if len(edges) == 1 else edges for edges in stages)


def _by(edges: Sequence[float]) -> str:
    return " x ".join(f"{edge:g}" for edge in edges)


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
