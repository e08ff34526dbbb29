"""The plan that follows from a fingerprint: configurations with their resolution, patch, batch and network."""

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
from autoseg.planning.fit_memory import ConfigurationInput, Fit, fit
from autoseg.planning.network_options import NetworkOptions
from autoseg.planning.network_plan import NetworkBudget, with_network
from autoseg.planning.presets import PlannerSettings, planner_settings
from autoseg.planning.target_spacing import median_resampled_shape, target_spacing, transpose_axes
from autoseg.preprocessing.volume_size import IN_MEMORY_VOXELS
from autoseg.tasks.task import outputs_of, task_of

_NORMALIZATION_OF_CHANNEL: Mapping[str, Normalization] = {
    "ct": "ct",
    "nonorm": "none",
    "zscore": "zscore",
    "rescale_to_0_1": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}
"""Channel name in lower case -> normalisation; every other channel gets the z-score of each image."""

_MASKED_BELOW = 0.75
"""If cropping leaves less than this share of the median case, z-scores are computed over the non-zero part only."""

_LOWRES_STEP = 1.03
_LOWRES_MIN_REDUCTION = 2.0
"""Minimum ratio of the voxels of a case at full resolution to those at low resolution."""


@dataclass(frozen=True, slots=True)
class PlannerInput:
    """All facts about a data set on which the decisions of a plan depend, whatever file they come from."""

    spacings: tuple[tuple[float, ...], ...]
    """mm, (cases, 3), axes as in the file."""
    shapes: tuple[tuple[int, ...], ...]
    """Voxels after cropping, (cases, 3), axes as in the file."""
    channel_names: tuple[str, ...]
    relative_size_after_cropping: float
    """Median over cases of the voxels after cropping divided by those before."""
    n_cases: int
    """Number of training cases."""
    n_outputs: int
    """Output channels of the network that count for its memory."""
    has_cascade: bool = True
    """Whether a second stage can learn from the classes that a first one predicts; not for regression."""
    has_lowres: bool = True
    """Whether cases can be resampled to a low resolution; not if a volume is larger than memory, since all of it would
    be resampled, to a network that hardly sees what is annotated."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions of a planner; all axes are in the transposed order."""

    transpose_forward: Shape3
    transpose_backward: Shape3
    original_median_spacing: tuple[float, float, float]
    """mm, median of the files, transposed."""
    original_median_shape: Shape3
    """Voxels after cropping, median of the files, transposed."""
    configurations: dict[str, Configuration]
    """Name -> configuration, in the order 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres."""


def plan(
    dataset: Dataset,
    fingerprint: Fingerprint,
    planner: str = "default",
    gpu_memory_gb: float | None = None,
    network: NetworkOptions | None = None,
) -> Plan:
    """Plan the preprocessing and training of a data set.

    On densely labelled data every decision is that of nnU-Net 2.8.1. On partially labelled data two things differ. The
    ignore label does not count for the memory, because it has no output. Intensity statistics are those of annotated
    foreground.

    Parameters
    ----------
    dataset
        Gives the names of channels and classes, and the number of cases.
    fingerprint
        Fingerprint of the same data set.
    planner
        A key of :data:`autoseg.planning.PLANNERS`.
    gpu_memory_gb
        Memory to plan for, GB; None takes the memory of the planner.
    network
        Options of the network. They change networks, patches and batches, not resolutions.

    Raises
    ------
    ConfigError
        If the planner or the task is unknown, or the memory is not a positive number.
    PlanError
        If the fingerprint has no cases, or does not fit the data set, or a network cannot be built.
    """
    statistics = fingerprint.foreground_intensity_properties_per_channel
    if statistics.keys() != {str(channel) for channel in range(len(dataset.channels))}:
        raise PlanError(
            f"fingerprint of {dataset.name}: it has {len(statistics)} channels, but dataset.json has "
            f"{len(dataset.channels)}: {list(dataset.channels)}. Extract the fingerprint again."
        )
    facts = PlannerInput(
        spacings=fingerprint.spacings,
        shapes=fingerprint.shapes_after_crop,
        channel_names=dataset.channels,
        relative_size_after_cropping=fingerprint.median_relative_size_after_cropping,
        n_cases=_n_cases(dataset, fingerprint),
        n_outputs=_n_outputs(dataset),
        has_cascade=not (dataset.labels.targets or dataset.labels.instances),
        has_lowres=not (fingerprint.has_volumes and _largest(fingerprint) > IN_MEMORY_VOXELS),
    )
    settings = planner_settings(planner)
    decisions = make_decisions(facts, settings, budget_scale=budget_scale_of(settings, gpu_memory_gb))
    configurations = decisions.configurations
    if network is not None:
        budget = network_budget(dataset, fingerprint, planner, gpu_memory_gb)
        configurations = with_network(configurations, network, budget)
    return Plan(
        dataset_name=dataset.name,
        planner=planner,
        transpose_forward=decisions.transpose_forward,
        transpose_backward=decisions.transpose_backward,
        original_median_spacing=decisions.original_median_spacing,
        original_median_shape=decisions.original_median_shape,
        channel_names=dataset.channels,
        intensities=tuple(statistics[str(channel)] for channel in range(len(dataset.channels))),
        configurations=configurations,
        direction=fingerprint.direction,
        crop=fingerprint.crop,
        targets=tuple(fingerprint.targets[name] for name in dataset.labels.targets),
    )


def network_budget(
    dataset: Dataset, fingerprint: Fingerprint, planner: str, gpu_memory_gb: float | None
) -> NetworkBudget:
    """Return what bounds the networks of a plan; parameters and errors as for :func:`plan`."""
    settings = planner_settings(planner)
    scale = budget_scale_of(settings, gpu_memory_gb)
    return NetworkBudget(settings, scale, _n_outputs(dataset), _n_cases(dataset, fingerprint))


def _n_cases(dataset: Dataset, fingerprint: Fingerprint) -> int:
    return len(dataset.cases) or len(fingerprint.spacings)


def _n_outputs(dataset: Dataset) -> int:
    """Return the outputs that count for the memory, as in nnU-Net, which counts background with regions."""
    n_outputs = len(outputs_of(dataset.labels))
    return n_outputs + int(not (dataset.labels.targets or task_of(dataset.labels).is_exclusive))


def make_decisions(facts: PlannerInput, settings: PlannerSettings, *, budget_scale: float = 1.0) -> Decisions:
    """Make all decisions of a plan.

    Source: nnU-Net 2.8.1 ``default_experiment_planner.py``, ``plan_experiment``. Raises ``PlanError`` if there is no
    case, or if a spacing or shape is not positive.
    """
    spacings, shapes = _checked(facts)
    target = target_spacing(spacings, shapes, anisotropy=settings.anisotropy)
    forward, backward = transpose_axes(target)
    order = list(forward)
    shape = tuple(float(edge) for edge in median_resampled_shape(spacings, shapes, target)[order])
    spacing = tuple(float(edge) for edge in target[order])
    z, y, x = (float(edge) for edge in np.median(spacings, axis=0)[order])
    size_z, size_y, size_x = (round(float(edge)) for edge in np.median(shapes, axis=0)[order])
    search = _Search(facts, settings, budget_scale)
    return Decisions(forward, backward, (z, y, x), (size_z, size_y, size_x), search.configurations(spacing, shape))


@dataclass(frozen=True, slots=True)
class _Search:
    """Search for the configurations of one data set."""

    facts: PlannerInput
    settings: PlannerSettings
    budget_scale: float

    def configurations(self, spacing: tuple[float, ...], shape: tuple[float, ...]) -> dict[str, Configuration]:
        """Plan the configurations for a target spacing (mm) and a median shape (voxels).

        2d always; 3d_fullres if cases have more than one slice; 3d_lowres and the cascade if a patch covers too little
        of the median case.
        """
        voxels = math.prod(shape) * self.facts.n_cases
        flat = self._configuration("2d", spacing[1:], shape[1:], voxels)
        if shape[0] == 1:
            return {"2d": flat}
        fullres = self._configuration("3d_fullres", spacing, shape, voxels)
        lowres = self._lowres(fullres) if self.facts.has_lowres else None
        if lowres is None:
            return {"2d": flat, "3d_fullres": fullres}
        if not self.facts.has_cascade:
            return {"2d": flat, "3d_lowres": lowres, "3d_fullres": fullres}
        fullres = fullres.model_copy(update={"batch_dice": True})
        cascade = fullres.model_copy(update={"name": "3d_cascade_fullres", "previous_stage": "3d_lowres"})
        return {"2d": flat, "3d_lowres": lowres, "3d_fullres": fullres, "3d_cascade_fullres": cascade}

    def _lowres(self, fullres: Configuration) -> Configuration | None:
        """Coarsen the spacing step by step until a patch covers enough of the median case.

        None if full resolution covers enough already, or the result has hardly fewer voxels.
        """
        latest, spacing = fullres, np.array(fullres.spacing)
        full_voxels = voxels = math.prod(fullres.median_shape)
        while math.prod(latest.patch_size) / voxels < self.settings.lowres_below:
            finer = spacing.max() / spacing > 2
            spacing = np.where(finer if finer.any() else True, spacing * _LOWRES_STEP, spacing)
            exact = np.array(fullres.spacing) / spacing * np.array(fullres.median_shape)
            shape = tuple(float(edge) for edge in np.maximum(np.round(exact), 1))
            voxels = float(np.prod(exact))  # the rounded shape would sometimes end the search one step early
            latest = self._configuration(
                "3d_lowres", tuple(float(edge) for edge in spacing), shape, voxels * self.facts.n_cases
            )
        if latest is fullres or full_voxels / voxels < _LOWRES_MIN_REDUCTION:
            return None
        return latest

    def _configuration(
        self, name: str, spacing: tuple[float, ...], shape: tuple[float, ...], dataset_voxels: float
    ) -> Configuration:
        start = ConfigurationInput(spacing, shape, dataset_voxels, self.facts.n_outputs)
        fitted: Fit = fit(start, self.settings, budget_scale=self.budget_scale)
        normalization = normalizations(self.facts.channel_names)
        masked = self.facts.relative_size_after_cropping < _MASKED_BELOW
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


def _largest(fingerprint: Fingerprint) -> int:
    """Return the number of voxels of the largest case."""
    return max((math.prod(shape) for shape in fingerprint.shapes_after_crop), default=0)


def normalizations(channel_names: Sequence[str]) -> tuple[Normalization, ...]:
    """Return the normalisation of each channel by its name, upper or lower case; z-score for names without a rule."""
    return tuple(_NORMALIZATION_OF_CHANNEL.get(name.casefold(), "zscore") for name in channel_names)


def budget_scale_of(settings: PlannerSettings, gpu_memory_gb: float | None) -> float:
    """Return the memory to plan for divided by the planner's own; raise ``ConfigError`` if it is not positive."""
    if gpu_memory_gb is None:
        return 1.0
    if not (math.isfinite(gpu_memory_gb) and gpu_memory_gb > 0):
        raise ConfigError(
            f"gpu_memory_gb is {gpu_memory_gb}, expected a positive number of GB. For example: --gpu-memory-gb 8."
        )
    return gpu_memory_gb / settings.memory_gb


def _checked(facts: PlannerInput) -> tuple[np.ndarray, np.ndarray]:
    """Return spacings (mm) and shapes (voxels), each (cases, 3) float64; raise ``PlanError`` if one is not positive."""
    if not facts.spacings:
        raise PlanError("fingerprint: it has no cases, expected at least one. Add training cases with labels.")
    if len(facts.spacings) != len(facts.shapes):
        raise PlanError(
            f"fingerprint: it has {len(facts.spacings)} spacings and {len(facts.shapes)} shapes, expected one of "
            "each per case. Extract the fingerprint again."
        )
    spacings, shapes = np.array(facts.spacings, dtype=np.float64), np.array(facts.shapes, dtype=np.float64)
    if not (np.isfinite(spacings).all() and (spacings > 0).all() and (shapes > 0).all()):
        raise PlanError(
            "fingerprint: a spacing or a shape is not positive. "
            "Correct the header of that file, then extract the fingerprint again."
        )
    return spacings, shapes
