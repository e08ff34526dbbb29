"""The record of a run beside its settings: the origin of each setting, and software and hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from autoseg.core.environment import Environment, command_line
from autoseg.nn.checkpoint import Checkpoint
from autoseg.nn.device import device_name
from autoseg.training.request import FoldRequest
from autoseg.training.resuming import changes_so_far
from autoseg.training.run_config import CHECKPOINT_LEVEL


@dataclass(frozen=True, slots=True)
class RunRecord:
    """JSON values that training.json and every checkpoint of a run hold."""

    origins: Mapping[str, str]
    """Dotted key of a setting -> level that set it when the run was begun, or when it was last changed."""
    environments: tuple[Mapping[str, Any], ...]
    """Software and hardware of the run: an entry for its start, and for each time that it went on elsewhere or with
    other versions. ``iteration`` is the number of steps that were done then, ``threads`` the number that compute, the
    rest an ``Environment``."""
    changes: tuple[Mapping[str, Any], ...]
    """Changes of settings when the run went on; see ``changes_so_far``."""
    commands: tuple[Mapping[str, Any], ...]
    """Command lines of the run: ``iteration``, the number of steps that were done then, and ``command``; one for its
    start, and one for each time that it went on with another."""
    data_hash: str
    """Hash of the source files and dataset.json."""
    pretrained_report: Mapping[str, Any] | None
    """See ``pretrained.Loaded.report``; None for a run from fresh weights."""

    @classmethod
    def of(
        cls, request: FoldRequest, device: torch.device, latest: Checkpoint | None, report: Mapping[str, Any] | None
    ) -> RunRecord:
        """Return the record of a run that starts, or goes on from ``latest``, on ``device`` now.

        ``report`` is what became of pretrained weights; a run that goes on keeps that of its start.
        """
        state = {} if latest is None else latest.state
        set_now = {key: level for key, level in request.origins.items() if level != CHECKPOINT_LEVEL}
        environment = Environment.of(device_name(device))
        values = {**environment.model_dump(), "threads": torch.get_num_threads()}
        return cls(
            origins={**state.get("origins", {}), **set_now},
            environments=_with(tuple(state.get("environments", ())), values, _iteration(latest)),
            commands=_with(tuple(state.get("commands", ())), {"command": command_line()}, _iteration(latest)),
            changes=tuple(changes_so_far(latest, request.config)),
            data_hash=request.data_hash,
            pretrained_report=state.get("pretrained_report") if latest is not None else report,
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain values; changes and the report of pretrained weights only if there are any."""
        return (
            {
                "origins": dict(self.origins),
                "environments": [dict(item) for item in self.environments],
                "commands": [dict(item) for item in self.commands],
                "data_hash": self.data_hash,
            }
            | ({"changes": [dict(item) for item in self.changes]} if self.changes else {})
            | ({} if self.pretrained_report is None else {"pretrained_report": dict(self.pretrained_report)})
        )


def _iteration(latest: Checkpoint | None) -> int:
    return 0 if latest is None else int(latest.state["progress"]["iteration"])


def _with(
    earlier: tuple[Mapping[str, Any], ...], values: Mapping[str, Any], iteration: int
) -> tuple[Mapping[str, Any], ...]:
    """Return the entries so far, and one with ``values`` if these differ from the last."""
    if earlier and {key: value for key, value in earlier[-1].items() if key != "iteration"} == values:
        return earlier
    return (*earlier, {"iteration": iteration, **values})
