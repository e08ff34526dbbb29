"""Fit patch size, network and batch size of one configuration into a memory budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoseg.core.plan import Topology
from autoseg.planning.memory import feature_map_values
from autoseg.planning.presets import PlannerSettings
from autoseg.planning.topology import Pooling, build_topology, pooling

_REFERENCE_EDGE = {2: 2048.0, 3: 256.0}
"""Edge, by the number of axes, of the isotropic patch with which the search starts."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the search for one configuration starts from."""

    spacing: tuple[float, ...]
    """mm, per axis of the patch."""
    median_shape: tuple[float, ...]
    """Voxels of the median case at this spacing, at least 1."""
    dataset_voxels: float
    """Voxels of the whole data set at this spacing (3-D also for 2-D patches)."""
    n_outputs: int
    """Channels of the output layer."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A patch, a network and a batch size that fit the budget."""

    patch_size: tuple[int, ...]
    batch_size: int
    topology: Topology


def fit(request: Request, settings: PlannerSettings, *, budget_scale: float = 1.0) -> Fit:
    """Choose the largest patch, as close to the median shape as may be, then the batch that fills the budget.

    Parameters
    ----------
    budget_scale
        Available memory over the memory for which the planner's budgets were measured.

    Notes
    -----
    Source: nnU-Net 2.8.1, ``get_plans_for_configuration`` of its default and residual encoder planners.
    Differs where that never ends or fails: a patch that cannot be made smaller is kept, though it exceeds the budget.
    """
    n_dims = len(request.spacing)
    budget = settings.budget(n_dims) * budget_scale
    reference = settings.reference_batch(n_dims)
    patch_batch = reference if settings.patch_batch is None else settings.patch_batch
    pooled = pooling(request.spacing, _initial_patch(request), settings.min_bottleneck_edge)
    topology, values = _cost(pooled, request, settings)
    while values / reference * patch_batch > budget:
        smaller = _shrink(pooled, request, settings.min_bottleneck_edge)
        if smaller is None:
            break
        pooled = smaller
        topology, values = _cost(pooled, request, settings)
    covering = round(request.dataset_voxels * settings.covered_by_batch / math.prod(pooled.patch_size))
    batch = max(min(round(budget / values * reference), covering), settings.min_batch)
    if settings.max_batch is not None:
        batch = min(batch, settings.max_batch)
    return Fit(pooled.patch_size, batch, topology)


def _initial_patch(request: Request) -> list[float]:
    """Edges of a patch with equal physical extents and the reference volume, no larger than the median shape."""
    n_dims = len(request.spacing)
    inverse = 1 / np.array(request.spacing)
    scale = (_REFERENCE_EDGE[n_dims] ** n_dims / np.prod(inverse)) ** (1 / n_dims)
    edges = [round(float(edge)) for edge in inverse * scale]
    return [max(min(edge, limit), 1) for edge, limit in zip(edges, request.median_shape, strict=True)]


def _cost(pooled: Pooling, request: Request, settings: PlannerSettings) -> tuple[Topology, int]:
    topology = build_topology(pooled, settings)
    return topology, feature_map_values(topology, pooled.patch_size, request.n_outputs)


def _shrink(pooled: Pooling, request: Request, min_edge: int) -> Pooling | None:
    """Take one step off the axis that covers most of the median shape (the last of equals); None if impossible.

    The step is the divisor that the *smaller* patch needs, so an axis is not cut by more than its new topology asks.
    """
    patch = pooled.patch_size
    covered = np.array(patch) / np.array(request.median_shape)
    for axis in np.argsort(covered, kind="stable")[::-1]:
        trial = list(patch)
        trial[axis] -= pooled.divisor[axis]
        if trial[axis] < 1:
            continue
        trial[axis] = patch[axis] - pooling(request.spacing, trial, min_edge).divisor[axis]
        return pooling(request.spacing, trial, min_edge)
    return None
