"""A person's edits of plans.json: they are kept until a new plan is asked for.

The file ``plans_made.json`` beside plans.json holds the plan as it was made. Differences between the two are edits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.core.json_models import save_model
from autoseg.core.plan import Configuration, Plan
from autoseg.planning.keep_statistics import keep_intensities
from autoseg.planning.network_options import NetworkOptions, set_options

log = logging.getLogger(__name__)

RECORD_FILE = "plans_made.json"


class PlanRecord(BaseModel):
    """The plan as it was made, and how it was used."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    """As it was made, before any edit."""
    gpu_memory_gb: float | None = None
    """Memory that it was made for, GB; None is the planner's own."""
    configurations: tuple[str, ...] = ()
    """Configurations that were preprocessed, in the order of the plan."""
    model_plan: Plan | None = None
    """Plan of the model whose networks this one has; None for a plan from the data alone."""
    network: NetworkOptions = NetworkOptions()
    """Options of the network that it was made with."""
    network_origins: dict[str, str] = Field(default_factory=dict)
    """Dotted key of each option that was set -> where: ``--set``, or the path of a file."""

    def with_used(self, names: Iterable[str], plan: Plan) -> PlanRecord:
        """Return the record with further configurations of ``plan`` among those that were preprocessed."""
        used = {*names, *self.configurations}
        return self.model_copy(update={"configurations": tuple(name for name in plan.configurations if name in used)})


@dataclass(frozen=True, slots=True)
class PlanningOptions:
    """Options of planning that the user gave; None means: as before."""

    planner: str | None = None
    gpu_memory_gb: float | None = None
    replan: bool = False
    """Make a new plan and discard all edits."""
    model_plan: Plan | None = None
    """Plan of a model, whose networks the new plan is to have."""
    settings: Sequence[str] = ()
    """``network.key=value``, as with ``--set``; what is not named is as before."""
    run_file: Path | None = None
    """TOML file whose table ``[network]`` has options of the network."""
    user_file: Path | None = None
    """TOML file with settings of a user; read where there is no plan yet, or a new one is asked for."""

    def followed(self, record: PlanRecord | None) -> Plan | None:
        """Return the plan of the model to follow: that given, otherwise as before; None if a planner is given."""
        if self.model_plan is not None or self.planner is not None or record is None:
            return self.model_plan
        return record.model_plan

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` if a model and something else are to decide about the network."""
        if self.model_plan is not None and (self.planner is not None or self.gpu_memory_gb is not None):
            raise ConfigError("--plan-of: the model decides. Leave out --planner and --gpu-memory-gb.")
        if self.model_plan is not None and self.settings:
            raise ConfigError("--plan-of: the model decides about the network. Leave out --set.")


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """The plan to use."""

    plan: Plan
    made: Plan
    """The plan as it was made; ``plan`` differs from it by the edits."""
    edits: tuple[str, ...] = ()
    """Edits that are kept, one line each."""
    drift: tuple[str, ...] = ()
    """Differences between the plan as made and the plan that would be made now, one line each."""


def choose_configurations(plan: Plan, given: Sequence[str] | None, record: PlanRecord | None) -> tuple[str, ...]:
    """Return the names of the configurations to preprocess.

    Those given, otherwise those that were preprocessed before (``record``), otherwise all but the second stage of a
    cascade, which needs predictions of the first. Raises ``PlanError`` if the plan has none of a given name.
    """
    if given:
        return tuple(plan.configuration(name).name for name in dict.fromkeys(given))
    possible = [name for name, item in plan.configurations.items() if item.previous_stage is None]
    before = [name for name in possible if record is not None and name in record.configurations]
    others = [name for name in possible if name not in before]
    if before and others:
        log.info("configurations as before: %s (others: -c %s)", ", ".join(before), " ".join(others))
    return tuple(before or possible)


def load_record(folder: Path) -> PlanRecord | None:
    """Return the record beside plans.json; None if there is no file that can be read."""
    try:
        return PlanRecord.model_validate_json((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def save_record(record: PlanRecord, folder: Path) -> None:
    """Write the record beside plans.json, in one step: a killed process leaves the old file or the new one."""
    save_model(record, folder / RECORD_FILE)


def choose_plan(
    fresh: Plan,
    present: Plan | None,
    record: PlanRecord | None,
    options: PlanningOptions,
    network: NetworkOptions | None = None,
) -> PlanChoice:
    """Return the plan to use: the present one with its edits, unless there is a reason for a new one.

    Reasons are: there is no plan yet; ``options`` ask for another planner, other memory or a new plan, or ``network``
    for another network; the data have other channels; or the present plan would cut annotation away.

    Parameters
    ----------
    fresh
        The plan that would be made now, with the planner and memory of ``options``, otherwise those used before.
    present
        plans.json; None if there is none.
    record
        Record of ``present``; None if another version wrote it. Then the differences from ``fresh`` count as edits.
    options
        What the user asks for.
    network
        Options of the network of ``fresh``; None: as before.

    Raises
    ------
    ConfigError
        If the plan was edited and a new one is needed, without ``options.replan``; names the edits.
    """
    if present is None:
        return PlanChoice(fresh, fresh)
    fresh = keep_intensities(fresh, present)
    if options.replan:
        return PlanChoice(fresh, fresh)
    reason = _reason_to_replan(fresh, present, record, options) or _other_network(network, record)
    made = record.plan if record is not None else (present if reason else fresh)
    edits = tuple(differences(made, present))
    if reason is not None:
        if edits:
            raise ConfigError(
                f"plans.json: it was edited ({listed(edits)}), and a new plan is needed, because {reason}. "
                "Add --replan to discard the edits."
            )
        return PlanChoice(fresh, fresh)
    return PlanChoice(_follow_spacing(present, made), made, edits, tuple(differences(made, fresh)))


def differences(before: Plan, after: Plan) -> Iterator[str]:
    """Yield ``"key: value -> value"`` for every key that differs between two plans."""
    values_before, values_after = (
        dict(_leaves(before.model_dump(mode="json"))),
        dict(_leaves(after.model_dump(mode="json"))),
    )
    for key in dict.fromkeys((*values_before, *values_after)):
        if values_before.get(key) != values_after.get(key):
            yield f"{key}: {values_before.get(key, 'nothing')} -> {values_after.get(key, 'nothing')}"


def _reason_to_replan(fresh: Plan, present: Plan, record: PlanRecord | None, options: PlanningOptions) -> str | None:
    """Return why the present plan cannot be used; None if it can."""
    if fresh.channel_names != present.channel_names:
        return f"the channels are now {list(fresh.channel_names)}"
    if len(fresh.targets) != len(present.targets):
        return f"there are now {len(fresh.targets)} targets of a regression, not {len(present.targets)}"
    if present.crop and not fresh.crop:
        return "the present plan crops the empty border of images, where foreground is annotated"
    followed, followed_before = options.followed(record), None if record is None else record.model_plan
    if followed != followed_before:
        return "it is to follow another model" if followed is not None else "it followed a model"
    if options.planner is not None and options.planner != present.planner:
        return f"--planner {options.planner} differs from {present.planner}"
    before = None if record is None else record.gpu_memory_gb
    if options.gpu_memory_gb is not None and options.gpu_memory_gb != before:
        return f"--gpu-memory-gb {options.gpu_memory_gb:g} differs from the former value"
    return None


def _other_network(network: NetworkOptions | None, record: PlanRecord | None) -> str | None:
    """Return which options of the network differ from those before; None if none does."""
    before = {} if record is None else set_options(record.network)
    wanted = before if network is None else set_options(network)
    changed = [key for key in dict.fromkeys((*before, *wanted)) if before.get(key) != wanted.get(key)]
    if not changed:
        return None
    return f"{listed(changed)} {'differs' if len(changed) == 1 else 'differ'} from the former value"


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of nested mappings; a list is one value unless it holds mappings."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, item in value.items():
        yield from _leaves(item, f"{key}.{name}" if key else name)


def _follow_spacing(plan: Plan, made: Plan) -> Plan:
    """Return the plan with the median shapes that follow from edited spacings."""
    followed = {
        name: _with_median_shape(item, made.configurations.get(name)) for name, item in plan.configurations.items()
    }
    return plan if followed == plan.configurations else plan.model_copy(update={"configurations": followed})


def _with_median_shape(configuration: Configuration, made: Configuration | None) -> Configuration:
    if made is None or configuration.spacing == made.spacing or len(configuration.spacing) != len(made.spacing):
        return configuration
    exact = np.array(made.median_shape) * np.array(made.spacing) / np.array(configuration.spacing)
    shape = tuple(float(edge) for edge in np.maximum(np.round(exact), 1))
    return configuration.model_copy(update={"median_shape": shape})
