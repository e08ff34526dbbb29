"""Turn a fingerprint into a plan: which configurations, at which resolution, with which patch, batch and network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.core.arrays import Shape3
from autoseg.core.errors import ConfigError, PlanError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Configuration, Normalization, Plan
from autoseg.dataset.dataset import Dataset
from autoseg.planning.fit_memory import Fit, Request, fit
from autoseg.planning.presets import PlannerSettings, planner_settings
from autoseg.planning.target_spacing import median_resampled_shape, target_spacing, transpose_axes
from autoseg.tasks.task import task_of

_NORMALIZATION_OF_CHANNEL: Mapping[str, Normalization] = {
    "ct": "ct",
    "nonorm": "none",
    "zscore": "zscore",
    "rescale_to_0_1": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}
"""Channel name, case folded -> normalisation; every other channel gets its z-score."""

_MASKED_BELOW = 0.75
"""If cropping leaves less than this share of the median case, z-scores are taken over the non-zero part only."""

_LOWRES_STEP = 1.03
_LOWRES_MIN_REDUCTION = 2.0
"""A low resolution configuration must have this many times fewer voxels than full resolution."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that decisions depend on, whatever file it came from."""

    spacings: tuple[tuple[float, ...], ...]
    """mm, per case, file axes."""
    shapes: tuple[tuple[int, ...], ...]
    """Voxels after cropping, per case, file axes."""
    channel_names: tuple[str, ...]
    relative_size_after_cropping: float
    """Median over cases of voxels after over voxels before cropping."""
    n_cases: int
    """Training cases."""
    n_outputs: int
    """Channels of the network's output that are counted for its memory."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a planner decides; axes are transposed."""

    transpose_forward: Shape3
    transpose_backward: Shape3
    original_median_spacing: tuple[float, float, float]
    """mm, of the files."""
    original_median_shape: Shape3
    """Voxels after cropping, of the files."""
    configurations: dict[str, Configuration]
    """By name, in the order 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres."""


def plan(
    dataset: Dataset, fingerprint: Fingerprint, planner: str = "default", gpu_memory_gb: float | None = None
) -> Plan:
    """Plan the preprocessing and training of a data set.

    On densely labelled data every decision is nnU-Net 2.8.1's. With partial labels two things differ: the ignore label
    takes no part in the memory estimate (it has no output), and intensities are those of annotated foreground.

    Parameters
    ----------
    dataset
        Names its channels and classes, and how many cases there are.
    fingerprint
        Of the same data set.
    planner
        A key of :data:`autoseg.planning.PLANNERS`.
    gpu_memory_gb
        Memory to plan for; None takes the planner's own.

    Raises
    ------
    ConfigError
        If the planner or the task is unknown, or the memory is not a positive number.
    PlanError
        If the fingerprint has no cases, or does not fit the data set.
    """
    statistics = fingerprint.foreground_intensity_properties_per_channel
    if statistics.keys() != {str(channel) for channel in range(len(dataset.channels))}:
        raise PlanError(
            f"fingerprint of {dataset.name}: found {len(statistics)} channels, expected {len(dataset.channels)} "
            f"{list(dataset.channels)}. Extract the fingerprint again."
        )
    task = task_of(dataset.labels)
    evidence = Evidence(
        spacings=fingerprint.spacings,
        shapes=fingerprint.shapes_after_crop,
        channel_names=dataset.channels,
        relative_size_after_cropping=fingerprint.median_relative_size_after_cropping,
        n_cases=len(dataset.cases) or len(fingerprint.spacings),
        n_outputs=len(task.outputs) + int(not task.is_exclusive),  # as nnU-Net, which counts background with regions
    )
    settings = planner_settings(planner)
    decided = decide(evidence, settings, budget_scale=budget_scale_of(settings, gpu_memory_gb))
    return Plan(
        dataset_name=dataset.name,
        planner=planner,
        transpose_forward=decided.transpose_forward,
        transpose_backward=decided.transpose_backward,
        original_median_spacing=decided.original_median_spacing,
        original_median_shape=decided.original_median_shape,
        channel_names=dataset.channels,
        intensities=tuple(statistics[str(channel)] for channel in range(len(dataset.channels))),
        configurations=decided.configurations,
        direction=fingerprint.direction,
        crop=fingerprint.crop,
    )


def decide(evidence: Evidence, settings: PlannerSettings, *, budget_scale: float = 1.0) -> Decisions:
    """Make all decisions of a plan.

    Source: nnU-Net 2.8.1 ``default_experiment_planner.py``, ``plan_experiment``. Raises ``PlanError`` if there is no
    case, or a spacing or shape that is not positive.
    """
    spacings, shapes = _checked(evidence)
    target = target_spacing(spacings, shapes, anisotropy=settings.anisotropy)
    forward, backward = transpose_axes(target)
    order = list(forward)
    shape = tuple(float(edge) for edge in median_resampled_shape(spacings, shapes, target)[order])
    spacing = tuple(float(edge) for edge in target[order])
    z, y, x = (float(edge) for edge in np.median(spacings, axis=0)[order])
    size_z, size_y, size_x = (round(float(edge)) for edge in np.median(shapes, axis=0)[order])
    search = _Search(evidence, settings, budget_scale)
    return Decisions(forward, backward, (z, y, x), (size_z, size_y, size_x), search.configurations(spacing, shape))


@dataclass(frozen=True, slots=True)
class _Search:
    """The search for the configurations of one data set."""

    evidence: Evidence
    settings: PlannerSettings
    budget_scale: float

    def configurations(self, spacing: tuple[float, ...], shape: tuple[float, ...]) -> dict[str, Configuration]:
        """Plan 2d always, 3d where there is more than one slice, lowres and cascade where patches see too little."""
        voxels = math.prod(shape) * self.evidence.n_cases
        flat = self._configuration("2d", spacing[1:], shape[1:], voxels)
        if shape[0] == 1:
            return {"2d": flat}
        fullres = self._configuration("3d_fullres", spacing, shape, voxels)
        lowres = self._lowres(fullres)
        if lowres is None:
            return {"2d": flat, "3d_fullres": fullres}
        fullres = fullres.model_copy(update={"batch_dice": True})
        cascade = fullres.model_copy(update={"name": "3d_cascade_fullres", "previous_stage": "3d_lowres"})
        return {"2d": flat, "3d_lowres": lowres, "3d_fullres": fullres, "3d_cascade_fullres": cascade}

    def _lowres(self, fullres: Configuration) -> Configuration | None:
        """Coarsen step by step until a patch sees enough of the median case; None if that is hardly coarser."""
        latest, spacing = fullres, np.array(fullres.spacing)
        full_voxels = voxels = math.prod(fullres.median_shape)
        while math.prod(latest.patch_size) / voxels < self.settings.lowres_below:
            finer = spacing.max() / spacing > 2
            spacing = np.where(finer if finer.any() else True, spacing * _LOWRES_STEP, spacing)
            exact = np.array(fullres.spacing) / spacing * np.array(fullres.median_shape)
            shape = tuple(float(edge) for edge in np.maximum(np.round(exact), 1))
            voxels = float(np.prod(exact))  # not of the rounded shape: that would end the search a step early at times
            latest = self._configuration(
                "3d_lowres", tuple(float(edge) for edge in spacing), shape, voxels * self.evidence.n_cases
            )
        if latest is fullres or full_voxels / voxels < _LOWRES_MIN_REDUCTION:
            return None
        return latest

    def _configuration(
        self, name: str, spacing: tuple[float, ...], shape: tuple[float, ...], dataset_voxels: float
    ) -> Configuration:
        request = Request(spacing, shape, dataset_voxels, self.evidence.n_outputs)
        fitted: Fit = fit(request, self.settings, budget_scale=self.budget_scale)
        normalization = normalizations(self.evidence.channel_names)
        masked = self.evidence.relative_size_after_cropping < _MASKED_BELOW
        return Configuration(
            name=name,
            spacing=spacing,
            patch_size=fitted.patch_size,
            batch_size=fitted.batch_size,
            median_shape=shape,
            normalization=normalization,
            use_mask_for_norm=tuple(masked and scheme == "zscore" for scheme in normalization),
            topology=fitted.topology,
            batch_dice=name == "2d",
        )


def normalizations(channel_names: Sequence[str]) -> tuple[Normalization, ...]:
    """Return the normalisation of each channel, by its name (whatever its case); z-score unless the name says more."""
    return tuple(_NORMALIZATION_OF_CHANNEL.get(name.casefold(), "zscore") for name in channel_names)


def budget_scale_of(settings: PlannerSettings, gpu_memory_gb: float | None) -> float:
    """Return the memory to plan for over the planner's own; raise ``ConfigError`` unless it is a positive number."""
    if gpu_memory_gb is None:
        return 1.0
    if not (math.isfinite(gpu_memory_gb) and gpu_memory_gb > 0):
        raise ConfigError(
            f"gpu_memory_gb: found {gpu_memory_gb}, expected a positive number of GB. Write --gpu-memory-gb 8, say."
        )
    return gpu_memory_gb / settings.memory_gb


def _checked(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """(cases, 3) spacings and shapes; raise ``PlanError`` if they cannot be planned for."""
    if not evidence.spacings:
        raise PlanError("fingerprint: found no cases, expected at least one. Add training cases with labels.")
    if len(evidence.spacings) != len(evidence.shapes):
        raise PlanError(
            f"fingerprint: found {len(evidence.spacings)} spacings and {len(evidence.shapes)} shapes, expected one of "
            "each per case. Extract the fingerprint again."
        )
    spacings, shapes = np.array(evidence.spacings, dtype=np.float64), np.array(evidence.shapes, dtype=np.float64)
    if not (np.isfinite(spacings).all() and (spacings > 0).all() and (shapes > 0).all()):
        raise PlanError(
            "fingerprint: found a spacing or a shape that is not positive, expected only positive ones. "
            "Correct the header of that file, then extract the fingerprint again."
        )
    return spacings, shapes
