"""Go on with a run: its settings come from its checkpoint, and the few that may change are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoseg.core.errors import AutosegError, ConfigError, ModelError, StorageError, TrainingError, WorkerError
from autoseg.core.findings import listed
from autoseg.core.plan import Plan
from autoseg.core.workspace import fold_folder
from autoseg.nn.checkpoint import Checkpoint
from autoseg.nn.losses.registry import LOSSES
from autoseg.planning.plan_edits import differences
from autoseg.training.config import TrainingConfig
from autoseg.training.monitoring import MonitoringConfig
from autoseg.training.optim import optimizer_settings
from autoseg.training.run_checkpoints import BEST, FINAL, LATEST, has_checkpoint, iteration_of, load_latest

SETTINGS = "training.json"
"""File with the settings of a run."""
STEERABLE = (
    "max_runtime",
    *(f"optimizer.{name}" for name in ("learning_rate", "momentum", "weight_decay", "gradient_clip")),
    *(f"monitoring.{name}" for name in MonitoringConfig.model_fields),
)
"""Settings that may change while a run trains."""
CHANGEABLE = ("precision", *STEERABLE)
"""Settings that may be others when a run goes on."""


def settings_of(folder: Path) -> dict[str, Any]:
    """Return dotted key -> value of the settings that the latest checkpoint of a run was trained with.

    Raises ``ModelError`` if it cannot be used.
    """
    try:
        return TrainingConfig.model_validate(dict(load_latest(folder).training)).flat()
    except ValidationError as error:
        raise ModelError(
            f"{folder / LATEST}: it has settings that this version does not know ({error.error_count()}). Go on with "
            "the version that began the run, or start anew with --overwrite."
        ) from error


def threads_of(folder: Path) -> int | None:
    """Return the number of threads that a run last computed with; None where there is no run, or it did not say."""
    try:
        environments = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["environments"]
        return int(environments[-1]["threads"])
    except (OSError, ValueError, LookupError):
        return None


def is_finished(folder: Path, config: TrainingConfig) -> bool:
    """Whether a fold is trained as far as ``config`` says, and scored, so that nothing is left to do.

    A folder with weights alone, as it was copied to be used, is finished, too.
    """
    if not (folder / FINAL).is_file() or not (folder / "validation" / "summary.json").is_file():
        return False
    if not has_checkpoint(folder):
        return True
    progress = load_latest(folder).state["progress"]
    is_late = config.max_runtime is not None and progress["seconds"] >= config.max_runtime
    return bool(is_late or progress["iteration"] >= config.iterations)


def may_change_text() -> str:
    """Name the settings of :data:`CHANGEABLE`, groups as a whole."""
    names = [key for key in CHANGEABLE if not key.startswith("monitoring.")]
    return f"{', '.join(names)} and what monitoring holds"


def forbidden_changes(latest: Checkpoint, config: TrainingConfig, plan: Plan, configuration: str) -> list[str]:
    """Return what differs from the run that a checkpoint belongs to though it may not, one line each."""
    settings, before = config.flat(), TrainingConfig.model_validate(dict(latest.training)).flat()
    changed = [
        f"{key} is {settings[key]!r}, was {before[key]!r}"
        for key in settings
        if settings[key] != before[key] and key not in CHANGEABLE
    ]
    if latest.plan != plan:
        changed.append(f"the plan is another one ({listed(differences(latest.plan, plan))})")
    if latest.configuration != configuration:
        changed.append(f"configuration is {configuration!r}, was {latest.configuration!r}")
    return changed


def changes_so_far(latest: Checkpoint | None, config: TrainingConfig) -> list[dict[str, Any]]:
    """Return how settings changed whenever the run went on: its iteration then, and key -> [before, after]."""
    if latest is None:
        return []
    now, before = config.flat(), TrainingConfig.model_validate(dict(latest.training)).flat()
    changed = {key: [before[key], now[key]] for key in CHANGEABLE if before[key] != now[key]}
    earlier = list(latest.state.get("changes", []))
    return [*earlier, {"iteration": latest.state["progress"]["iteration"], **changed}] if changed else earlier


def find_run(results: Path, fold: str, name: str | None, configuration: str | None) -> tuple[str, str] | None:
    """Return name and configuration of the run of ``fold`` below ``results`` that can go on; None if there is none.

    Runs that are not finished go first. Raises ``ConfigError`` naming them if there are several.
    """
    runs = []
    for folder in sorted(fold_folder(model, fold) for model in results.glob("*__*")):
        of_name, _, of_configuration = folder.parent.name.rpartition("__")
        is_meant = name in (None, of_name) and configuration in (None, of_configuration)
        if is_meant and has_checkpoint(folder):
            runs.append((of_name, of_configuration, (folder / FINAL).exists()))
    unfinished = [run for run in runs if not run[2]] or runs
    if len(unfinished) > 1:
        flags = listed((f"--name {run[0]} -c {run[1]}" for run in unfinished), len(unfinished))
        raise ConfigError(
            f"--resume: found several runs of fold {fold} that can go on in {results}, expected one. Choose: {flags}"
        )
    return unfinished[0][:2] if unfinished else None


def way_on(
    error: AutosegError, folder: Path, config: TrainingConfig, command: Callable[[Sequence[str]], str], anew: str
) -> str:
    """Return what was saved of a run that ended with ``error``, and the command that goes on.

    Parameters
    ----------
    error
        What ended it.
    folder
        Of the fold.
    config
        Settings that it ran with.
    command
        Options -> command line that trains this fold.
    anew
        Command line that was given, for a run of which nothing was saved.
    """
    is_diverged = isinstance(error, TrainingError)
    settings = _milder(config) if is_diverged else []
    if is_diverged and config.loss not in LOSSES:
        return f"Check your loss {config.loss!r} first. {_way_on(error, folder, settings, command, anew)}"
    return _way_on(error, folder, settings, command, anew)


def _way_on(
    error: AutosegError, folder: Path, settings: Sequence[str], command: Callable[[Sequence[str]], str], anew: str
) -> str:
    if not has_checkpoint(folder):
        is_in_the_way = any((folder / name).exists() for name in (BEST, FINAL)) and " --resume" not in anew
        flags = [*(["--overwrite"] if is_in_the_way else []), *(["--set", *settings] if settings else [])]
        again = " ".join([anew, *flags])
        return f"Nothing was saved before. Start again: {again}"
    iteration = iteration_of(load_latest(folder))
    first = "Once there is room, go" if isinstance(error, StorageError) else "Go"
    fewer = ["-j", "1"] if isinstance(error, WorkerError) else []
    options = ["--resume", *fewer, *(["--set", *settings] if settings else [])]
    return f"Saved: {folder / LATEST}, iteration {iteration}. {first} on from there: {command(options)}"


def _milder(config: TrainingConfig) -> list[str]:
    """Return settings with which the loss rather stays finite: full precision and a lower learning rate."""
    unset = config.optimizer.model_copy(update={"learning_rate": None})
    own = optimizer_settings(unset, config.iterations).learning_rate
    given = config.optimizer.learning_rate or own
    rate = own if given > own else given / 4
    return [f"learning_rate={rate:.3g}", *(["precision=float32"] if config.precision != "float32" else [])]
