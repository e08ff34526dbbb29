"""Keep a plan, and what a person changed in it, until told otherwise.

Beside plans.json lies ``plans_made.json``: the plan as it was made. What differs between the two was edited.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.core.atomic import write_text
from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.core.plan import Configuration, Plan
from autoseg.planning.keep_statistics import keep_intensities

log = logging.getLogger(__name__)

RECORD_FILE = "plans_made.json"


class PlanRecord(BaseModel):
    """How a plan was made, and what it was used for."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    """As it was made, before any edit."""
    gpu_memory_gb: float | None = None
    """Memory that it was made for; None is the planner's own."""
    configurations: tuple[str, ...] = ()
    """What was preprocessed, in the order of the plan."""

    def with_used(self, names: Iterable[str], plan: Plan) -> PlanRecord:
        """Return the record with further configurations of ``plan`` among those that were preprocessed."""
        used = {*names, *self.configurations}
        return self.model_copy(update={"configurations": tuple(name for name in plan.configurations if name in used)})


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person says about planning again; None: as before."""

    planner: str | None = None
    gpu_memory_gb: float | None = None
    replan: bool = False
    """Plan anew, whatever was edited."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Which plan it will be."""

    plan: Plan
    made: Plan
    """The plan as made, of which ``plan`` may be an edit."""
    edits: tuple[str, ...] = ()
    """What was edited and is kept, one line each."""
    drift: tuple[str, ...] = ()
    """What would now be planned otherwise, one line each."""


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
    """Return the record beside plans.json; None if there is none that can be read."""
    try:
        return PlanRecord.model_validate_json((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def save_record(record: PlanRecord, folder: Path) -> None:
    """Write the record beside plans.json, atomically."""
    write_text(folder / RECORD_FILE, record.model_dump_json(indent=2) + "\n")


def decide_plan(fresh: Plan, present: Plan | None, record: PlanRecord | None, wishes: Wishes) -> Decision:
    """Return the plan to use: the present one with its edits, unless something speaks for the fresh one.

    That is: there is none yet; ``wishes`` ask for another planner, other memory or a new plan; the channels of the data
    are others; or cropping would now cut annotation away.

    Parameters
    ----------
    fresh
        What would be planned now, with the planner and memory of ``wishes``, else those of before.
    present
        plans.json.
    record
        Of ``present``; None where another version wrote it. Then what differs from ``fresh`` counts as edited.

    Raises
    ------
    ConfigError
        If the plan was edited and would have to be made anew, without ``wishes.replan``; names the edits.
    """
    if present is None:
        return Decision(fresh, fresh)
    fresh = keep_intensities(fresh, present)
    if wishes.replan:
        return Decision(fresh, fresh)
    reason = _reason_to_replan(fresh, present, record, wishes)
    made = record.plan if record is not None else (present if reason else fresh)
    edits = tuple(differences(made, present))
    if reason is not None:
        if edits:
            raise ConfigError(
                f"plans.json: found edits ({listed(edits)}), which would be lost, since {reason}; expected a plan as "
                "it was made. Add --replan to give the edits up."
            )
        return Decision(fresh, fresh)
    return Decision(_follow_spacing(present, made), made, edits, tuple(differences(made, fresh)))


def differences(before: Plan, after: Plan) -> Iterator[str]:
    """Yield ``"key: value -> value"`` for every key that differs between two plans."""
    one, other = dict(_leaves(before.model_dump(mode="json"))), dict(_leaves(after.model_dump(mode="json")))
    for key in dict.fromkeys((*one, *other)):
        if one.get(key) != other.get(key):
            yield f"{key}: {one.get(key, 'nothing')} -> {other.get(key, 'nothing')}"


def _reason_to_replan(fresh: Plan, present: Plan, record: PlanRecord | None, wishes: Wishes) -> str | None:
    if fresh.channel_names != present.channel_names:
        return f"the channels are {list(fresh.channel_names)} now"
    if present.crop and not fresh.crop:
        return "the plan would cut annotated foreground away with what is 0 around it"
    if wishes.planner is not None and wishes.planner != present.planner:
        return f"--planner {wishes.planner} is another than {present.planner}"
    before = None if record is None else record.gpu_memory_gb
    if wishes.gpu_memory_gb is not None and wishes.gpu_memory_gb != before:
        return f"--gpu-memory-gb {wishes.gpu_memory_gb:g} is another than before"
    return None


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of nested mappings, lists whole unless they hold mappings."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, item in value.items():
        yield from _leaves(item, f"{key}.{name}" if key else name)


def _follow_spacing(plan: Plan, made: Plan) -> Plan:
    """Return the plan with the median shape at an edited spacing, which follows from it."""
    followed = {name: _followed(item, made.configurations.get(name)) for name, item in plan.configurations.items()}
    return plan if followed == plan.configurations else plan.model_copy(update={"configurations": followed})


def _followed(configuration: Configuration, made: Configuration | None) -> Configuration:
    if made is None or configuration.spacing == made.spacing or len(configuration.spacing) != len(made.spacing):
        return configuration
    exact = np.array(made.median_shape) * np.array(made.spacing) / np.array(configuration.spacing)
    shape = tuple(float(edge) for edge in np.maximum(np.round(exact), 1))
    return configuration.model_copy(update={"median_shape": shape})
