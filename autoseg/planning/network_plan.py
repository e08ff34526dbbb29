"""Networks of a plan by the options of a user: built, fitted into the memory, and compared with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autoseg.core.errors import PlanError
from autoseg.core.findings import listed
from autoseg.core.plan import Configuration
from autoseg.planning.fit_memory import ConfigurationInput, fit
from autoseg.planning.memory import feature_map_values
from autoseg.planning.network_options import PER_AXIS, NetworkOptions
from autoseg.planning.presets import PlannerSettings


@dataclass(frozen=True, slots=True)
class NetworkBudget:
    """All facts on which the networks of a plan depend beside resolution and options."""

    settings: PlannerSettings
    scale: float
    """Memory to plan for divided by the planner's own."""
    n_outputs: int
    """Output channels of the network that count for its memory."""
    n_cases: int
    """Number of training cases."""

    @property
    def memory_gb(self) -> float:
        """Memory to plan for, GB."""
        return self.settings.memory_gb * self.scale

    def gb(self, configuration: Configuration) -> float:
        """Return the estimated memory of training a configuration, GB."""
        return self._share(configuration, configuration.batch_size) * self.memory_gb

    def is_exceeded(self, configuration: Configuration) -> bool:
        """Whether the smallest batch needs more than the memory."""
        return self._share(configuration, self.settings.min_batch) > 1

    def _share(self, configuration: Configuration, batch_size: int) -> float:
        n_dims = configuration.topology.n_dims
        values = feature_map_values(configuration.topology, configuration.patch_size, self.n_outputs) * batch_size
        return values / self.settings.reference_batch(n_dims) / (self.settings.budget(n_dims) * self.scale)


def with_network(
    configurations: Mapping[str, Configuration], network: NetworkOptions, budget: NetworkBudget
) -> dict[str, Configuration]:
    """Return the configurations with networks, patches and batches by the options; resolutions stay.

    Raises ``PlanError`` if an option is for no configuration, or a network cannot be built.
    """
    _check_reach(configurations, network)
    return {name: _with_network(item, network, budget) for name, item in configurations.items()}


def network_notes(
    configurations: Mapping[str, Configuration], network: NetworkOptions, budget: NetworkBudget
) -> Iterator[tuple[str, bool]]:
    """Yield what a user should know of networks by options: text, and whether it is a warning.

    These are patches that differ from what was asked for, and networks that need more memory than there is, with what
    would fit.
    """
    for name, configuration in configurations.items():
        own = network.for_configuration(name, configuration.topology.n_dims)
        if own == NetworkOptions() or configuration.previous_stage is not None:
            continue
        wanted = own.patch_size
        if wanted is not None:
            edges = wanted * configuration.topology.n_dims if len(wanted) == 1 else wanted
            if edges != configuration.patch_size:
                steps = [math.prod(each) for each in zip(*configuration.topology.strides, strict=True)]
                yield (
                    f"network.patch_size: {name}: {_by(edges)} asked for, {_by(configuration.patch_size)} taken, the "
                    f"nearest multiple of {_by(steps)} (products of the strides)",
                    False,
                )
        if budget.is_exceeded(configuration):
            yield (
                f"network: {name} needs about {budget.gb(configuration):.1f} GB for patches of "
                f"{_by(configuration.patch_size)} and {configuration.batch_size} per batch, planned for "
                f"{budget.memory_gb:g} GB. {_what_fits(configuration, own, budget)}",
                True,
            )


def _with_network(configuration: Configuration, network: NetworkOptions, budget: NetworkBudget) -> Configuration:
    own = network.for_configuration(configuration.name, configuration.topology.n_dims)
    if own == NetworkOptions():
        return configuration
    try:
        return _fitted(configuration, own, budget)
    except PlanError as error:
        raise PlanError(f"network: {configuration.name}: {error}") from error


def _fitted(configuration: Configuration, own: NetworkOptions, budget: NetworkBudget) -> Configuration:
    voxels = math.prod(configuration.median_shape) * budget.n_cases
    start = ConfigurationInput(configuration.spacing, configuration.median_shape, voxels, budget.n_outputs)
    fitted = fit(start, budget.settings, budget_scale=budget.scale, network=own)
    return configuration.model_copy(
        update={"patch_size": fitted.patch_size, "batch_size": fitted.batch_size, "topology": fitted.topology}
    )


def _check_reach(configurations: Mapping[str, Configuration], network: NetworkOptions) -> None:
    """Raise ``PlanError`` if configurations or numbers of axes are named that the plan does not have."""
    unknown = [name for name in network.configurations or () if name not in configurations]
    if unknown:
        raise PlanError(
            f"network.configurations: the plan has no {listed(unknown)}, expected some of {list(configurations)}."
        )
    reached = [name for name in configurations if network.configurations is None or name in network.configurations]
    axes = {configurations[name].topology.n_dims for name in reached}
    for key in PER_AXIS:
        n_axes = network.axes_of(key)
        if n_axes is not None and n_axes not in axes:
            raise PlanError(
                f"network.{key}: found {n_axes} axes, but {listed(reached)} {'has' if len(reached) == 1 else 'have'} "
                f"{' or '.join(map(str, sorted(axes)))}. Write one number for all axes, or as many as there are."
            )


def _what_fits(configuration: Configuration, network: NetworkOptions, budget: NetworkBudget) -> str:
    """Return an advice: the patch that fits if a patch was asked for, otherwise channels, otherwise the memory."""
    memory = f"plan for more memory with --gpu-memory-gb {math.ceil(budget.gb(configuration))}"
    if network.patch_size is not None:
        free = _fitted(configuration, network.model_copy(update={"patch_size": None}), budget)
        if not budget.is_exceeded(free):
            return f"network.patch_size={','.join(map(str, free.patch_size))} fits; or {memory}."
    for percent in range(95, 0, -5):
        features = tuple(max(1, width * percent // 100) for width in configuration.topology.features)
        topology = configuration.topology.model_copy(update={"features": features})
        if not budget.is_exceeded(configuration.model_copy(update={"topology": topology})):
            return f"network.features={','.join(map(str, features))} fits; or {memory}."
    return f"Make the patch or the number of features smaller, or {memory}."


def _by(edges: tuple[int, ...] | list[int]) -> str:
    return " x ".join(map(str, edges))
