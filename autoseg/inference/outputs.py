"""Further outputs of a prediction: files beside the label map of a case, made of what an observer saw.

They describe that label map, or are not there: before another one replaces it, those of every kind are removed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from autoseg.inference.decided import Observer
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.prepared import PreparedCase

Removal = Callable[[Path], None]
"""Removes what a kind of further output wrote about the label map at a path; does nothing if that is nothing."""


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

    def is_written(self, output: Path) -> bool:
        """Whether its files of a case exist; ``output`` is the path of the label map."""

    def begin(self, output: Path, prepared: PreparedCase, predictor: PredictorGroup) -> CaseOutput:
        """Return the observer of a case, whose label map will be ``output``."""
