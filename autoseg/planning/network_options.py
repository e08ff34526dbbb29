"""Options of the network that a user may set when a plan is made; what is not set is as the planner decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from autoseg.core.config_levels import Level, Resolved, assignment_level, file_level, flatten, resolve_levels
from autoseg.core.errors import ConfigError
from autoseg.core.plan import Activation, Downsampling, FeatureNormalization

GROUP = "network"
"""Group of these options in files and assignments."""

ELEKTRONN_WORDS = {
    "activation_func": "network.activation",
    "desired_input": "network.patch_size",
    "dropout_rates": "network.dropout",
    "filters": "network.kernels",
    "nof_filters": "network.features",
    "pool": "network.strides",
    "pooling_mode": "network.pooling",
}
"""ELEKTRONN's option -> ours."""


def _listed(value: Any) -> Any:
    """Turn ``"16,32"`` or a single value into a list; anything else stays."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")]
    return [value] if isinstance(value, (int, float)) else value


def _edges(value: Any) -> Any:
    """Turn ``"3,1x3x3"`` or ``[3, [1, 3, 3]]`` into one list of edges per level."""
    levels = _listed(value)
    if not isinstance(levels, (list, tuple)):
        return levels
    return [item.lower().split("x") if isinstance(item, str) else _listed(item) for item in levels]


Numbers = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_listed), Field(min_length=1)]
Rates = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], BeforeValidator(_listed), Field(min_length=1)]
Edges = Annotated[
    tuple[Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=3)], ...],
    BeforeValidator(_edges),
    Field(min_length=1),
]


class NetworkOptions(BaseModel):
    """Options of the network. A list has one entry per level, full resolution first; one entry is for all levels.

    Edges and strides of a level are one number for all axes, or one per axis (``1x3x3``). What is given per axis holds
    for configurations with as many axes; others stay as the planner decides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    activation: Activation = "leaky_relu"
    """leaky_relu, relu, elu, gelu or silu."""
    normalization: FeatureNormalization = "instance"
    """instance, batch, group (at most 8 groups) or none."""
    pooling: Downsampling = "strided"
    """strided (the first convolution of a level) or max."""
    dropout: Rates = (0.0,)
    """Probability, 0 to below 1, that a channel is set to 0 in training."""
    levels: int | None = Field(default=None, ge=1)
    """Resolutions of the network; None: as many as the patch allows, or as a list has entries."""
    features: Numbers | None = None
    """Channels; None: doubled from level to level, from ``first_features`` up to ``max_features``."""
    first_features: int | None = Field(default=None, ge=1)
    """Channels of the full resolution; None: the planner's."""
    max_features: int | None = Field(default=None, ge=1)
    """Largest number of channels; None: the planner's."""
    kernels: Edges | None = None
    """Edges of kernels, odd; None: from the spacing."""
    strides: Edges | None = None
    """Strides between levels, the first 1; a single one is for all levels but the first. None: from the spacing."""
    patch_size: Numbers | None = None
    """Voxels, one number for all axes or one per axis; the nearest multiple of the strides is taken. None: the largest
    that fits the memory."""
    configurations: Annotated[tuple[str, ...], BeforeValidator(_listed)] | None = None
    """Configurations that the options are for; None: all."""

    @model_validator(mode="after")
    def _check(self) -> NetworkOptions:
        faults = list(self._faults())
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        if self.features is not None and (self.first_features, self.max_features) != (None, None):
            yield "features and first_features or max_features are given. Set features, or the others, to none"
        if any(edge % 2 == 0 for level in self.kernels or () for edge in level):
            yield f"kernels are {_written(self.kernels)}, expected odd edges. Write for example 3 or 1x3x3"
        if self.strides is not None and len(self.strides) > 1 and set(self.strides[0]) != {1}:
            yield f"strides are {_written(self.strides)}, expected 1 for the first level. Write for example 1,2,2"
        for name in ("kernels", "strides"):
            if len({len(level) for level in getattr(self, name) or ()} - {1}) > 1:
                yield f"{name} have 2 axes in one level and 3 in another, expected the same number in all"
        if self.patch_size is not None and len(self.patch_size) > 3:
            yield f"patch_size has {len(self.patch_size)} edges, expected 1, 2 or 3"
        lengths = {name: len(value) for name, value in self._per_level().items() if len(value) > 1}
        if self.levels is not None:
            lengths["levels"] = self.levels
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
            yield (
                f"numbers of levels differ ({counts}), expected the same, or a single entry for all levels. Write none "
                "to take back what an earlier plan was made with"
            )

    def _per_level(self) -> dict[str, Sequence[Any]]:
        names = ("dropout", "features", "kernels", "strides")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def n_levels(self) -> int | None:
        """Number of levels that is asked for; None if any is as good."""
        if self.levels is not None:
            return self.levels
        return max((len(value) for value in self._per_level().values() if len(value) > 1), default=None)

    def axes_of(self, name: str) -> int | None:
        """Return the number of axes that ``kernels``, ``strides`` or ``patch_size`` is for; None for any number."""
        value = getattr(self, name)
        if value is None:
            return None
        n_axes = len(value) if name == "patch_size" else max(map(len, value))
        return None if n_axes == 1 else n_axes

    def for_configuration(self, name: str, n_dims: int) -> NetworkOptions:
        """Return what holds for one configuration; the cascade has the network of full resolution."""
        if self.configurations is not None and name.replace("cascade_", "") not in self.configurations:
            return NetworkOptions()
        others = [key for key in PER_AXIS if self.axes_of(key) not in (None, n_dims)]
        return self.model_copy(update={"configurations": None, **dict.fromkeys(others)})


PER_AXIS = ("kernels", "strides", "patch_size")
"""Options that may be given per axis."""


class PlanSettings(BaseModel):
    """Settings of ``autoseg_plan_and_preprocess --set``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkOptions = NetworkOptions()


def resolve_network(
    files: Sequence[Path], assignments: Sequence[str], before: Level, user: Path | None = None
) -> Resolved[PlanSettings]:
    """Return the options of the network; a later level wins: ``user`` file, ``before``, ``files``, ``assignments``.

    Of the files only the table ``[network]`` is read; the rest is for training. Raises ``ConfigError`` that names
    every fault.

    Parameters
    ----------
    before
        What the present plan was made with.
    """
    levels = [] if user is None else [network_level(user)]
    levels += [before, *map(network_level, files), assignment_level(assignments, PlanSettings)]
    return resolve_levels(PlanSettings, levels, ELEKTRONN_WORDS)


def network_level(path: Path) -> Level:
    """Return the table ``[network]`` of a TOML file as a level; empty if there is none."""
    level = file_level(path)
    return Level(level.name, {key: value for key, value in level.values.items() if is_network_key(key)})


def is_network_key(key: str) -> bool:
    """Whether a dotted key is an option of the network."""
    return key == GROUP or key.startswith(f"{GROUP}.")


def set_options(network: NetworkOptions) -> dict[str, Any]:
    """Return dotted key -> value, as JSON, of every option that differs from its default."""
    values, defaults = network.model_dump(mode="json"), NetworkOptions().model_dump(mode="json")
    return flatten({GROUP: {name: value for name, value in values.items() if value != defaults[name]}})


def refuse_network_settings(assignments: Sequence[str], planning: str) -> None:
    """Raise ``ConfigError`` if settings of a run name an option of the network; ``planning`` plans the data set."""
    options = [text for text in assignments if is_network_key(text.partition("=")[0])]
    if options:
        raise ConfigError(
            f"--set {options[0]}: the network is decided when the plan is made, because memory and patch follow from "
            f"it. Plan anew, then train: {planning} --set {' '.join(options)}"
        )


def unplanned_options(path: Path, planned: NetworkOptions) -> list[str]:
    """Return ``key=value`` of each option of the network in a TOML file that a plan was not made with."""
    level = network_level(path)
    wanted = resolve_levels(PlanSettings, [level]).config.network
    differing = [
        key for key in level.values if getattr(wanted, key.partition(".")[2]) != getattr(planned, key.partition(".")[2])
    ]
    return [f"{key}={level.values[key]}" for key in differing]


def _written(edges: Sequence[Sequence[int]] | None) -> str:
    """Return edges as a user writes them."""
    return ",".join("x".join(map(str, level)) for level in edges or ())
