"""Objects of a predicted volume: ``instances/<case>.zarr``, made block by block of the classes and their inside."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted
from autoseg.core.progress import Progress
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.dataset.labels import Labels
from autoseg.inference.block_objects import settings_within
from autoseg.inference.predictor_group import PredictorGroup, separation_of
from autoseg.inference.saved_instances import FOLDER, SavedInstances, has_affinities, parted_by
from autoseg.inference.stitching import RECORD, stitch_objects
from autoseg.io.stored_array import StoredArray
from autoseg.tasks.separation import SeparationSettings

log = logging.getLogger(__name__)

MEMORY_GB = 1.0
"""Memory for a block. It is the same for every process, since the blocks of a run that goes on must be."""


@dataclass(frozen=True, slots=True)
class VolumeObjects:
    """How the objects of a volume are parted and numbered."""

    labels: Labels
    separation: SeparationSettings
    numbers: InstanceNumbers
    dataset_json: Mapping[str, Any]
    """The dataset.json by which the map is evaluated."""
    apart: int | None = None
    """Axis of the slices whose objects are parted each by itself; see :class:`.block_objects.StitchSettings`."""

    @classmethod
    def of(cls, group: PredictorGroup, method: str | None, *, apart: int | None = None) -> VolumeObjects | None:
        """Return the objects of the task instances, or those that ``--instances`` asks for; None without either.

        Raises ``ConfigError`` as :meth:`autoseg.inference.saved_instances.SavedInstances.by`, and for methods that need
        the whole volume: cellpose, and the mutex watershed.
        """
        if method is not None and has_affinities(group):
            group, method = parted_by(group, method), None
        dataset, separation = group.dataset, separation_of(group)
        unsuitable = "cellpose" if method == "cellpose" else "mutex" if separation.method == "mutex" else None
        if unsuitable is not None:
            needed, other = "the whole volume", ""
            if apart is not None:
                needed, other = "whole slices in memory", ", or predict the slices as images"
            raise ConfigError(
                f"--instances: found {unsuitable}, expected watershed: {unsuitable} needs {needed}. Write "
                f"--instances watershed{other}."
            )
        if method is not None:
            saved = SavedInstances.by(method, dataset, separation)
            return cls(dataset.labels, separation, saved.numbers, saved.as_json(".zarr"), apart)
        if dataset.labels.instances is None:
            return None
        as_json = {**dataset.json, "file_ending": ".zarr"}
        return cls(dataset.labels, separation, dataset.labels.instances, as_json, apart)

    def write(self, path: Path, classes: StoredArray, cores: StoredArray, progress: Progress) -> bool:
        """Write ``instances/<case>.zarr`` beside the label map ``path``, and a dataset.json, or go on with it.

        Returns whether the objects are new. Raises ``PlanError`` if a class has more objects than there are numbers.
        """
        settings = settings_within(MEMORY_GB, classes.spatial_shape, self.separation, is_parted=True, apart=self.apart)
        folder = path.parent / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "dataset.json", self.dataset_json)
        is_new = not (folder / path.name / RECORD).is_file()
        done = stitch_objects(
            classes, cores, folder / path.name, self.labels, settings, numbers=self.numbers, case=path.stem,
            progress=progress,
        )  # fmt: skip
        log.info("%s: %s", folder / path.name, counted(sum(done.n_objects.values()), "object"))
        return is_new
