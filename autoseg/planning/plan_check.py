"""Check of a plan when it is read: people edit plans.json, and the errors of torch would not name the key."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoseg.core.errors import Fault
from autoseg.core.plan import Configuration, Plan

FARTHEST_SPACING = 30.0
"""Largest allowed factor between the spacing of a configuration and the median spacing of the data.

Beyond it a number was mistyped."""


def plan_faults(plan: Plan, where: str) -> list[Fault]:
    """Return all faults of a plan, in the order of its keys; empty if its networks can be built and trained.

    Parameters
    ----------
    where
        Name of the file, shown in the messages.
    """
    n_channels = len(plan.channel_names)
    faults = []
    if sorted(plan.transpose_forward) != [0, 1, 2]:
        faults.append(_fault(f"{where}: transpose_forward", plan.transpose_forward, "the axes 0, 1, 2 in some order"))
    elif any(plan.transpose_backward[axis] != at for at, axis in enumerate(plan.transpose_forward)):
        faults.append(
            _fault(f"{where}: transpose_backward", plan.transpose_backward, "the inverse of transpose_forward")
        )
    if not _are_positive(plan.original_median_spacing):
        faults.append(
            _fault(f"{where}: original_median_spacing", plan.original_median_spacing, "positive numbers (mm)")
        )
    if len(plan.intensities) != n_channels:
        faults.append(
            _fault(f"{where}: intensities", f"{len(plan.intensities)} entries", f"{n_channels}, one per channel")
        )
    if not plan.configurations:
        faults.append(_fault(f"{where}: configurations", "none", "at least one"))
    for name, configuration in plan.configurations.items():
        place = f"{where}: configurations.{name}"
        if configuration.name != name:
            faults.append(_fault(f"{place}.name", repr(configuration.name), repr(name)))
        if configuration.previous_stage is not None and configuration.previous_stage not in plan.configurations:
            faults.append(
                _fault(f"{place}.previous_stage", repr(configuration.previous_stage), "a configuration of this plan")
            )
        faults += _topology_faults(configuration, f"{place}.topology") or _size_faults(configuration, place)
        faults += _far_spacing(configuration, place, plan.original_median_spacing)
        faults += _channel_faults(configuration, place, n_channels)
    return faults


def _size_faults(configuration: Configuration, place: str) -> list[Fault]:
    """Return the faults of spacing, shape, patch and batch size; the topology must be free of faults."""
    faults = []
    n_dims = configuration.topology.n_dims
    if len(configuration.spacing) != n_dims or not _are_positive(configuration.spacing):
        faults.append(_fault(f"{place}.spacing", configuration.spacing, f"{n_dims} positive numbers (mm)"))
    if len(configuration.median_shape) != n_dims or not _are_positive(configuration.median_shape):
        faults.append(_fault(f"{place}.median_shape", configuration.median_shape, f"{n_dims} positive numbers"))
    if configuration.batch_size < 1:
        faults.append(_fault(f"{place}.batch_size", configuration.batch_size, "at least 1 patch"))
    steps = [math.prod(edges) for edges in zip(*configuration.topology.strides, strict=True)]
    patch = configuration.patch_size
    if len(patch) != n_dims or any(edge < 1 for edge in patch):
        return [*faults, _fault(f"{place}.patch_size", patch, f"{n_dims} edges of at least 1 voxel")]
    if any(edge % step for edge, step in zip(patch, steps, strict=True)):
        fitting = [max(1, round(edge / step)) * step for edge, step in zip(patch, steps, strict=True)]
        expected = f"multiples of {steps}, the product of the strides of each axis"
        faults.append(Fault(f"{place}.patch_size", str(list(patch)), expected, f"Write, for example, {fitting}."))
    elif math.prod(patch) == math.prod(steps):
        expected = f"more than {steps} on one axis: otherwise the coarsest stage of the network has a single voxel"
        fitting = [steps[0] * 2, *steps[1:]]
        faults.append(Fault(f"{place}.patch_size", str(list(patch)), expected, f"Write, for example, {fitting}."))
    return faults


def _far_spacing(configuration: Configuration, place: str, median: Sequence[float]) -> list[Fault]:
    """Return a fault if a spacing is far from that of the data: such a cache would be too large to compute."""
    median_of_axes = median[len(median) - len(configuration.spacing) :]
    if not (_are_positive(configuration.spacing) and _are_positive(median_of_axes)):
        return []
    factors = [edge / typical for edge, typical in zip(configuration.spacing, median_of_axes, strict=True)]
    if all(1 / FARTHEST_SPACING <= factor <= FARTHEST_SPACING for factor in factors):
        return []
    expected = f"within a factor of {FARTHEST_SPACING:g} of {list(median_of_axes)}, the median spacing of the data (mm)"
    return [_fault(f"{place}.spacing", configuration.spacing, expected)]


def _topology_faults(configuration: Configuration, place: str) -> list[Fault]:
    topology = configuration.topology
    n_stages = len(topology.strides)
    if not n_stages or any(len(edges) not in (2, 3) for edges in topology.strides):
        return [_fault(f"{place}.strides", topology.strides, "2 or 3 numbers for each stage, and at least one stage")]
    n_dims = topology.n_dims
    faults = []
    for key, n_entries in (("features", n_stages), ("encoder_blocks", n_stages), ("decoder_blocks", n_stages - 1)):
        values = getattr(topology, key)
        if len(values) != n_entries or any(value < 1 for value in values):
            faults.append(_fault(f"{place}.{key}", values, f"{n_entries} numbers of at least 1"))
    if (topology.dropout and len(topology.dropout) != n_stages) or any(not 0 <= rate < 1 for rate in topology.dropout):
        faults.append(_fault(f"{place}.dropout", topology.dropout, f"none, or {n_stages} numbers from 0 to below 1"))
    if any(len(edges) != n_dims or any(edge < 1 for edge in edges) for edges in topology.strides):
        faults.append(_fault(f"{place}.strides", topology.strides, f"{n_dims} numbers of at least 1 for each stage"))
    elif any(edge != 1 for edge in topology.strides[0]):
        faults.append(_fault(f"{place}.strides", topology.strides[0], "1 for every axis of the first stage"))
    if len(topology.kernels) != n_stages or any(
        len(edges) != n_dims or any(edge < 1 or edge % 2 == 0 for edge in edges) for edges in topology.kernels
    ):
        faults.append(
            _fault(f"{place}.kernels", topology.kernels, f"{n_dims} odd numbers for each of {n_stages} stages")
        )
    return faults


def _channel_faults(configuration: Configuration, place: str, n_channels: int) -> list[Fault]:
    return [
        _fault(f"{place}.{key}", f"{len(values)} entries", f"{n_channels}, one per channel")
        for key, values in (
            ("normalization", configuration.normalization),
            ("use_mask_for_norm", configuration.use_mask_for_norm),
        )
        if len(values) != n_channels
    ]


def _are_positive(numbers: Sequence[float]) -> bool:
    return all(math.isfinite(number) and number > 0 for number in numbers)


def _fault(where: str, value: object, expected: str) -> Fault:
    return Fault(where, str(list(value) if isinstance(value, tuple) else value), expected, "Correct it.")
