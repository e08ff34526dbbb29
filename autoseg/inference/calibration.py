"""File ``calibration.json`` of a model folder: what its folds' validation tells about the folds' probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoseg.core.json_models import load_model, save_model
from autoseg.evaluation.quality import Quality

CALIBRATION_FILE = "calibration.json"

Basis = Literal["dense", "annotated voxels"]
"""Voxels that calibration refers to: all voxels of densely labelled cases, or those that the annotation decides."""


class HeadTemperature(BaseModel):
    """Temperature of one head: a class, or a region."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    temperature: float = 1.0
    """Above 1, probabilities become less certain; below 1, more certain; at 1 they stay as they are."""
    reason: str | None = None
    """Why the temperature is 1 although nothing was fitted; None if it was fitted."""
    n_voxels: int = 0
    """Number of sampled voxels that certainly belong to the head."""
    n_cases: int = 0
    """Number of cases in which these lie."""
    ece_before: float | None = None
    """Expected calibration error of the head's probability, 0 to 1, as predicted; None without a decided voxel."""
    ece_after: float | None = None
    """The same with the temperatures of all heads."""


class Temperature(BaseModel):
    """Temperatures fitted on voxels of cases that the predicting fold did not train on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: tuple[HeadTemperature, ...]
    """In the order of the heads of the data set."""
    basis: Basis
    folds: tuple[str, ...]
    """Folds whose validation was used."""
    n_cases: int
    n_voxels: int
    """Number of sampled voxels of which the annotation says something."""
    log_loss_before: float | None = None
    """Mean negative log-likelihood of the label sets; None without a voxel."""
    log_loss_after: float | None = None
    ece_before: float | None = None
    """Mean of the heads' expected calibration errors; None without one."""
    ece_after: float | None = None
    confidence_ece_before: float | None = None
    """Expected calibration error of the largest probability of each voxel; None for regions."""
    confidence_ece_after: float | None = None


class Calibration(BaseModel):
    """Content of ``calibration.json``; a section is None as long as no fold's validation has written its records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Temperature | None = None
    quality: Quality | None = None

    def temperatures(self, heads: Sequence[str]) -> tuple[float, ...]:
        """Return the temperature of each of ``heads``, by name; 1 for heads that are not known."""
        known = {} if self.temperature is None else {item.name: item.temperature for item in self.temperature.heads}
        return tuple(known.get(name, 1.0) for name in heads)

    def write(self, model_folder: Path) -> None:
        """Write the file into a model folder, atomically."""
        save_model(self, model_folder / CALIBRATION_FILE)


def read_calibration(model_folder: Path) -> Calibration:
    """Return the calibration of a model folder; without a file, one whose sections are None.

    Raises ``PlanError`` if the file is damaged.
    """
    path = model_folder / CALIBRATION_FILE
    if not path.is_file():
        return Calibration()
    again = "Copy it again, or remove it: the next validation of a fold writes it anew."
    return load_model(Calibration, path, again, again)
