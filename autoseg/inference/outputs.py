"""Further outputs of a prediction: files beside the label map of a case, made of what an observer saw."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from autoseg.cases.case import CaseRecord
from autoseg.inference.decided import Observer
from autoseg.inference.predictor_group import PredictorGroup


class CaseOutput(Observer, Protocol):
    """Observer of one case that writes files about it."""

    def write(self) -> None:
        """Write the files, each atomically, after the last slab; perhaps while the next case is predicted."""

    def close(self) -> None:
        """Give back what it holds; called last, once, even if the case failed."""


class FurtherOutput(Protocol):
    """A kind of further output, such as probabilities or uncertainty, for every case of a folder."""

    @property
    def name(self) -> str:
        """What is saved, for messages."""

    def is_written(self, stem: Path) -> bool:
        """Whether its files of a case exist; ``stem`` is the path of the label map without its ending."""

    def begin(self, stem: Path, record: CaseRecord, predictor: PredictorGroup) -> CaseOutput:
        """Return the observer of a case, whose files begin with ``stem``."""
