"""Patch size, network and batch size of one configuration that fit into a memory budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoseg.core.errors import PlanError
from autoseg.core.plan import Topology
from autoseg.planning.memory import feature_map_values
from autoseg.planning.network_options import NetworkOptions
from autoseg.planning.presets import PlannerSettings
from autoseg.planning.topology import Pooling, build_topology, pooling_by_options, pooling_of_patch

_REFERENCE_EDGE = {2: 2048.0, 3: 256.0}
"""Number of axes -> edge, in voxels, of the isotropic patch with which the search starts."""


BY_PLANNER = NetworkOptions()
"""No option is set."""


@dataclass(frozen=True, slots=True)
class ConfigurationInput:
    """Resolution and outputs of one configuration: the start of the search."""

    spacing: tuple[float, ...]
    """mm, per axis of the patch."""
    median_shape: tuple[float, ...]
    """Voxels per axis of the median case at this spacing, at least 1; may be fractions."""
    dataset_voxels: float
    """Voxels of the whole data set at this spacing; all three axes count, also for 2-D patches."""
    n_outputs: int
    """Channels of the output layer."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Patch size (voxels per axis), batch size and network that fit the budget."""

    patch_size: tuple[int, ...]
    batch_size: int
    topology: Topology


def fit(
    start: ConfigurationInput,
    settings: PlannerSettings,
    *,
    budget_scale: float = 1.0,
    network: NetworkOptions = BY_PLANNER,
) -> Fit:
    """Choose the largest patch whose proportions are close to the median shape, then the batch that fills the budget.

    Parameters
    ----------
    start
        Spacing, shapes and outputs of the configuration.
    settings
        Numbers of the planner.
    budget_scale
        Available memory divided by the memory for which the planner's budgets were measured.
    network
        Options of the network as they hold for this configuration. A patch that they name is taken whether or not it
        fits.

    Raises
    ------
    PlanError
        If the network that the options ask for cannot be built.

    Notes
    -----
    Source: nnU-Net 2.8.1, ``get_plans_for_configuration`` of its default and residual encoder planners.
    We differ where nnU-Net does not end or fails: if no smaller patch is possible, the patch is used although it
    exceeds the budget.
    """
    n_dims = len(start.spacing)
    budget = settings.budget(n_dims) * budget_scale
    reference = settings.reference_batch(n_dims)
    patch_batch = reference if settings.patch_batch is None else settings.patch_batch
    min_edge, is_given = settings.min_bottleneck_edge, network.patch_size is not None
    if is_given:
        pooled = pooling_of_patch(start.spacing, min_edge, network)
    else:
        pooled = pooling_by_options(start.spacing, _initial_patch(start), min_edge, network)
    topology, values = _cost(pooled, start, settings, network)
    while not is_given and values / reference * patch_batch > budget:
        smaller = _shrink(pooled, start, min_edge, network)
        if smaller is None:
            break
        pooled = smaller
        topology, values = _cost(pooled, start, settings, network)
    covering = round(start.dataset_voxels * settings.covered_by_batch / math.prod(pooled.patch_size))
    batch = max(min(round(budget / values * reference), covering), settings.min_batch)
    if settings.max_batch is not None:
        batch = min(batch, settings.max_batch)
    return Fit(pooled.patch_size, batch, topology)


def _initial_patch(start: ConfigurationInput) -> list[float]:
    """Edges (voxels) of a patch with equal physical extents and the reference volume, at most the median shape."""
    n_dims = len(start.spacing)
    inverse = 1 / np.array(start.spacing)
    scale = (_REFERENCE_EDGE[n_dims] ** n_dims / np.prod(inverse)) ** (1 / n_dims)
    edges = [round(float(edge)) for edge in inverse * scale]
    return [max(min(edge, limit), 1) for edge, limit in zip(edges, start.median_shape, strict=True)]


def _cost(
    pooled: Pooling, start: ConfigurationInput, settings: PlannerSettings, network: NetworkOptions
) -> tuple[Topology, int]:
    """Return the network for a pooling, and its feature map values for one patch."""
    topology = build_topology(pooled, settings, network)
    return topology, feature_map_values(topology, pooled.patch_size, start.n_outputs)


def _shrink(pooled: Pooling, start: ConfigurationInput, min_edge: int, network: NetworkOptions) -> Pooling | None:
    """Make the patch smaller by one step; None if no axis can be made smaller.

    The axis is the one that covers most of the median shape (the last one of equals). The step is the divisor that the
    *smaller* patch needs, so that an axis is cut no more than its new network requires.
    """
    patch = pooled.patch_size
    covered = np.array(patch) / np.array(start.median_shape)
    for axis in np.argsort(covered, kind="stable")[::-1]:
        trial = list(patch)
        trial[axis] -= pooled.divisor[axis]
        if trial[axis] < 1:
            continue
        try:
            trial[axis] = patch[axis] - pooling_by_options(start.spacing, trial, min_edge, network).divisor[axis]
            return pooling_by_options(start.spacing, trial, min_edge, network)
        except PlanError:  # too small along this axis for the levels that are asked for
            continue
    return None
