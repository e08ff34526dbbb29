"""Files of ``--save-uncertainty``: three maps and their means per case, and a table of the means of all cases."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.cases.case import CaseRecord
from autoseg.core.atomic import atomic_path
from autoseg.core.errors import ConfigError
from autoseg.core.json_models import save_model
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.map_buffer import MapBuffer
from autoseg.inference.members import MemberKind
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.prepared import PreparedCase
from autoseg.inference.temperature import calibrated
from autoseg.inference.uncertainty_maps import MAPS, MeanUncertainty, UncertaintySums, uncertainty_maps
from autoseg.io.images import ending_of, without_ending, write_values, written_ending
from autoseg.tasks.task import task_of

log = logging.getLogger(__name__)

FOLDER, MEANS, TABLE = "uncertainty", "means", "uncertainty.json"
"""Folder beside the label maps; in it, the folder of the means of each case, and the table made of them."""
ALONE = (
    "one network cannot disagree with itself: its mutual information is 0, and entropy and expected entropy are the "
    "same. Predict with several folds or seeds."
)


class Members(BaseModel):
    """The networks whose probabilities the maps follow from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: MemberKind
    """How they differ."""
    number: int
    mirrored: bool
    """Whether each is the mean over mirrored copies of the image."""
    temperatures: tuple[dict[str, float], ...]
    """Temperature of each head, one table for each model folder."""
    remark: str | None = None
    """What the maps cannot show; None if there is nothing to say."""


class CaseUncertainty(BaseModel):
    """Means of the maps over the voxels of one case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: Members
    image: MeanUncertainty
    """Over the whole image."""
    foreground: MeanUncertainty
    """Over the voxels predicted as any class but background."""
    classes: dict[str, MeanUncertainty]
    """Over the voxels predicted as each foreground class or region."""


@dataclass(frozen=True, slots=True)
class SavedUncertainty:
    """The output ``uncertainty/`` beside the label maps; see :mod:`autoseg.inference.outputs`.

    Its files lie in folders of their own, so that none can be taken for a prediction, or have the name of another case.
    Meanwhile the uncompressed maps of up to two cases are needed on the disk of the output folder.
    """

    name: ClassVar[str] = "uncertainty"

    @classmethod
    def beside(cls, output_folder: Path, predictor: PredictorGroup) -> SavedUncertainty:
        """Return the output for label maps in a folder; a single network is warned of.

        Raises ``ConfigError`` if there is a file in the place of the folder.
        """
        folder = output_folder / FOLDER
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: found a file, expected a folder for maps, or nothing. Move it, or change -o.")
        remark = _members(predictor).remark
        if remark is not None:
            log.warning("uncertainty: %s", remark)
        return cls()

    def is_written(self, output: Path) -> bool:
        """Whether the maps of a case exist, and its means, which can be read."""
        return all(path.is_file() for path in _paths(output)) and _read_means(_means_path(output)) is not None

    @staticmethod
    def remove(output: Path) -> None:
        """Remove the maps of a case and its means, if they exist; :func:`conclude_uncertainty` changes the table."""
        for path in (_means_path(output), *_paths(output)):
            path.unlink(missing_ok=True)

    def begin(self, output: Path, prepared: PreparedCase, predictor: PredictorGroup) -> CaseMaps:
        """Return the observer of a case."""
        return CaseMaps(output, prepared.record, predictor)


class CaseMaps:
    """Observer that makes the maps and means of one case. Memory holds one map at most."""

    needs_members: ClassVar[bool] = True

    def __init__(self, output: Path, record: CaseRecord, predictor: PredictorGroup) -> None:
        """Open the temporary file for the maps of the case with the label map ``output``."""
        self._output, self._record = output, record
        self._labels = predictor.dataset.labels
        self._members = _members(predictor)
        self._temperatures = member_temperatures(predictor)
        self._is_exclusive = task_of(self._labels).is_exclusive
        self._sums = UncertaintySums(self._labels)
        self._buffer = MapBuffer(output.parent / FOLDER, record)

    def __call__(self, slab: DecidedSlab) -> None:
        """Compute the maps of a slab."""
        members = [
            calibrated(member, temperatures, is_exclusive=self._is_exclusive)
            for member, temperatures in zip(slab.members, self._temperatures, strict=True)
        ]
        maps = uncertainty_maps(members, is_exclusive=self._is_exclusive)
        self._buffer.keep(slab.first, maps)
        self._sums.add(slab.values, maps)

    def write(self) -> None:
        """Write the maps, 0 outside the crop, and then the means."""
        for path, values in zip(_paths(self._output), self._buffer.maps([0.0] * len(MAPS)), strict=True):
            write_values(path, values[None], self._record.geometry)
        labels, sums = self._labels, self._sums
        means = CaseUncertainty(
            members=self._members,
            image=sums.of_image(int(np.prod(self._record.shape_before_crop))),
            foreground=sums.of_foreground(),
            classes={labels.heads[head].name: sums.of_head(labels.heads[head]) for head in labels.foreground_heads},
        )
        save_model(means, _means_path(self._output))

    def close(self) -> None:
        """Give the temporary file back."""
        self._buffer.close()


def conclude_uncertainty(output_folder: Path) -> None:
    """Write ``uncertainty.json``, ``{"cases": {case: means}}``, from the means of all cases, sorted by name.

    Without any there is no table: one that exists is removed. The means of one case are in memory at a time. Those that
    cannot be read are left out: their case is predicted again when uncertainty is saved the next time.
    """
    folder = output_folder / FOLDER
    each = ((path.stem, _read_means(path)) for path in sorted((folder / MEANS).glob("*.json")))
    entries = (f"{json.dumps(case)}: {means.model_dump_json()}" for case, means in each if means is not None)
    first = next(entries, None)
    if first is None:
        (folder / TABLE).unlink(missing_ok=True)
        return
    with atomic_path(folder / TABLE) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"cases": {{\n{first}')
        file.writelines(f",\n{entry}" for entry in entries)
        file.write("\n}}\n")


def has_means(output_folder: Path) -> bool:
    """Whether a folder of predictions has means of the uncertainty."""
    return (output_folder / FOLDER / MEANS).is_dir()


def _read_means(path: Path) -> CaseUncertainty | None:
    """Return the means of a case; None if there are none that can be read."""
    try:
        return CaseUncertainty.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _members(predictor: PredictorGroup) -> Members:
    """Return what the table says about the networks of a prediction."""
    heads = [head.name for head in predictor.dataset.labels.heads]
    each = [model.calibration.temperatures(heads) for model in predictor.models]
    number = sum(len(model.networks) for model in predictor.models)
    return Members(
        kind=predictor.member_kind,
        number=number,
        mirrored=predictor.is_mirrored,
        temperatures=tuple(dict(zip(heads, values, strict=True)) for values in each),
        remark=ALONE if number == 1 else None,
    )


def member_temperatures(predictor: PredictorGroup) -> tuple[tuple[float, ...], ...]:
    """Return the temperatures of each member, in the order of the members of a slab."""
    heads = [head.name for head in predictor.dataset.labels.heads]
    return tuple(model.calibration.temperatures(heads) for model in predictor.models for _ in model.networks)


def _means_path(output: Path) -> Path:
    """Return the path of the means of a label map."""
    return output.parent / FOLDER / MEANS / f"{without_ending(output)}.json"


def _paths(output: Path) -> tuple[Path, ...]:
    """Return the paths of the maps of a label map, in the order of ``MAPS``."""
    name = f"{without_ending(output)}{written_ending(ending_of(output), has_numbers=True)}"
    return tuple(output.parent / FOLDER / kind / name for kind in MAPS)
