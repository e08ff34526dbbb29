"""Errors that autoseg raises. Their classes distinguish a user's mistake from a failure of autoseg.

AutosegError
├── UserError            the input is wrong: message without traceback, exit code 2
│   ├── DatasetError     dataset.json or the files that it describes
│   ├── FileFormatError  one file cannot be read, or not faithfully
│   ├── PlanError        a plan that cannot be made or does not fit the data
│   ├── CacheError       the preprocessed cache is missing or stale
│   ├── ModelError       a model folder or checkpoint that cannot be used
│   ├── ConfigError      a setting, flag or component name
│   └── EvaluationError  references and predictions that cannot be compared
├── WorkerError          a worker process died; names the case that it held
├── LostRankError        another process of a training has ended
├── StorageError         a file could not be written: the disk is full, or a quota
└── TrainingError        a training cannot go on: its loss is no longer a number
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in the user's input, with everything that is needed to correct it."""

    where: str
    """File, then key or case: ``dataset.json: labels.ignore``."""
    found: str
    """The wrong content, with its value."""
    expected: str
    """The correct content."""
    fix: str
    """Instruction: what to write or do. Sentences."""

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}, expected {self.expected}. {self.fix}"


class AutosegError(Exception):
    """Base of all errors that autoseg raises on purpose."""


class UserError(AutosegError):
    """The user's input is wrong. The message states where, what is wrong, what was expected and what to do."""


class DatasetError(UserError):
    """dataset.json, or the files that it describes, are wrong. Holds all faults, not only the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in faults))

    def __reduce__(self) -> tuple[type[DatasetError], tuple[tuple[Fault, ...]]]:
        return (type(self), (self.faults,))


class FileFormatError(UserError):
    """One file cannot be read without error: it is truncated, damaged, or of a variant that is not supported."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault)


class PlanError(UserError):
    """A plan cannot be made, or does not fit the data."""


class CacheError(UserError):
    """The preprocessed cache is missing or stale."""


class ModelError(UserError):
    """A model folder or checkpoint cannot be used."""


class ConfigError(UserError):
    """A setting, a flag or a component name is wrong."""


class EvaluationError(UserError):
    """References and predictions cannot be compared."""


class WorkerError(AutosegError):
    """A worker process died or failed. The message names the item that it was working on."""

    def __init__(self, reason: Fault | str) -> None:
        self.fault = reason if isinstance(reason, Fault) else None
        super().__init__(reason)


class LostRankError(AutosegError):
    """Another process of a training on several devices has ended, so that this one cannot continue."""


class StorageError(AutosegError, OSError):
    """A file could not be written because there is no room for it. An existing file is unchanged."""


class TrainingError(AutosegError):
    """A training cannot continue: its loss or weights are no longer finite. The latest checkpoint is still finite."""
