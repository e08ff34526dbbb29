"""Files of a fold or a model folder: history, settings, environment and commands, scores of the validation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.core.errors import ModelError
from autoseg.evaluation import AnySummary
from autoseg.report.history import HISTORY, EpochRecord, read_history
from autoseg.report.scores import SUMMARY_FILE, read_summary

SETTINGS_FILE, VALIDATION = "training.json", "validation"


class RunEnvironment(BaseModel):
    """Software and hardware, from the step ``iteration`` on."""

    model_config = ConfigDict(frozen=True)

    iteration: int = 0
    versions: dict[str, str] = {}
    git: str | None = None
    device: str = ""
    platform: str = ""


class RunCommand(BaseModel):
    """Command line that ran from the step ``iteration`` on."""

    model_config = ConfigDict(frozen=True)

    iteration: int = 0
    command: str


class RunSettings(BaseModel):
    """What a page shows of training.json; files of earlier versions may lack some of it."""

    model_config = ConfigDict(frozen=True)

    iterations: int | None = None
    """Steps that the run is to have."""
    batch_size: int | None = None
    precision: str | None = None
    loss: str | None = None
    seed: int | None = None
    n_parameters: int | None = None
    train_cases: tuple[str, ...] = ()
    val_cases: tuple[str, ...] = ()
    pretrained: str | None = None
    origins: dict[str, str] = {}
    """Dotted key of a setting -> what set it."""
    environments: tuple[RunEnvironment, ...] = ()
    commands: tuple[RunCommand, ...] = ()
    changed: dict[str, str] = {}
    """Dotted key of each setting in ``origins`` -> its value as text."""


@dataclass(frozen=True, slots=True)
class FoldRun:
    """One fold of a model."""

    name: str
    """``0``, ``all`` ..., as in the name of its folder."""
    folder: Path
    records: tuple[EpochRecord, ...]
    settings: RunSettings
    summary: AnySummary | None
    """Scores of its validation cases; None before they are scored."""

    @property
    def iterations(self) -> int:
        """Steps done."""
        return self.records[-1].iteration if self.records else 0

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done; True if it is not known how many there are to be."""
        return self.settings.iterations is None or self.iterations >= self.settings.iterations


def fold_folders(folder: Path) -> list[Path]:
    """Return the folders of the folds of a run that has a history: ``folder`` itself, or ``fold_<k>`` in it."""
    if (folder / HISTORY).is_file():
        return [folder]
    inside = sorted(folder.glob("fold_*"), key=lambda path: (len(path.name), path.name))
    return [path for path in inside if (path / HISTORY).is_file()]


def read_fold(folder: Path) -> FoldRun:
    """Read the files of a fold.

    Raises ``ModelError`` if history or settings cannot be read, ``EvaluationError`` if the summary cannot.
    """
    summary = folder / VALIDATION / SUMMARY_FILE
    return FoldRun(
        folder.name.removeprefix("fold_"),
        folder,
        read_history(folder / HISTORY),
        _read_settings(folder / SETTINGS_FILE),
        read_summary(summary) if summary.is_file() else None,
    )


def _read_settings(path: Path) -> RunSettings:
    if not path.is_file():
        return RunSettings()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = RunSettings.model_validate(content)
    except (OSError, ValueError) as error:
        reason = f"{error.error_count()} faults" if isinstance(error, ValidationError) else str(error)
        raise ModelError(
            f"{path}: cannot be read ({reason}), expected the settings of a run. Copy the whole folder of the fold."
        ) from error
    values = dict(_leaves(content))
    return settings.model_copy(update={"changed": {key: values[key] for key in settings.origins if key in values}})


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and values as text."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value)
