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
from autoseg.core.orientation import VoxelOrder
from autoseg.core.progress import Progress
from autoseg.dataset.instance_numbers import InstanceNumbers, Offset
from autoseg.dataset.labels import Labels
from autoseg.inference.block_objects import settings_within
from autoseg.inference.blockwise import VolumePredictor
from autoseg.inference.parting import Pairs, Parting
from autoseg.inference.predictor_group import PredictorGroup, separation_of
from autoseg.inference.saved_instances import FOLDER, SavedInstances, has_affinities, parted_by
from autoseg.inference.stitching import RECORD, stitch_objects
from autoseg.inference.volume_arrays import AFFINITIES, CORES
from autoseg.io.stored_array import StoredArray
from autoseg.preprocessing.pipeline import target_spacing
from autoseg.preprocessing.volume_grid import is_close
from autoseg.tasks.mutex import check_offsets
from autoseg.tasks.separation import SeparationSettings

log = logging.getLogger(__name__)

MEMORY_GB, MUTEX_MEMORY_GB = 1.0, 3.2
"""Memory for a block of objects that are parted by cores, and by affinities, which take more for each voxel. It is the
same for every process, since the blocks of a run that goes on must be."""


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

    @property
    def evidence(self) -> str:
        """Array of the prediction by which they are parted: ``CORES`` or ``AFFINITIES``."""
        return AFFINITIES if self.separation.method == "mutex" else CORES

    @property
    def offsets(self) -> tuple[Offset, ...]:
        """(A,) offsets of the affinities by which they are parted; () if they are parted by cores."""
        return self.numbers.offsets if self.evidence == AFFINITIES else ()

    @classmethod
    def of(cls, group: PredictorGroup, method: str | None, *, apart: int | None = None) -> VolumeObjects | None:
        """Return the objects of the task instances, or those that ``--instances`` asks for; None without either.

        Raises ``ConfigError`` as :meth:`autoseg.inference.saved_instances.SavedInstances.by`, and for cellpose, which
        needs the whole volume.
        """
        if method is not None and has_affinities(group):
            group, method = parted_by(group, method), None
        if method == "cellpose":
            needed, other = "the whole volume", ""
            if apart is not None:
                needed, other = "whole slices in memory", ", or predict the slices as images"
            raise ConfigError(
                f"--instances: found cellpose, expected watershed: cellpose needs {needed}. Write --instances "
                f"watershed{other}."
            )
        dataset, separation = group.dataset, separation_of(group)
        if method is not None:
            saved = SavedInstances.by(method, dataset, separation)
            plain = separation.model_copy(update={"method": method})
            return cls(dataset.labels, plain, saved.numbers, saved.as_json(".zarr"), apart)
        if dataset.labels.instances is None:
            return None
        as_json = {**dataset.json, "file_ending": ".zarr"}
        return cls(dataset.labels, separation, dataset.labels.instances, as_json, apart)

    def check(self, opened: VolumePredictor, path: Path | None) -> None:
        """Raise ``ConfigError`` if the objects of a volume cannot be made, before it is predicted.

        They cannot by affinities if the voxels have not the size of the plan's, which offsets count, or offsets are
        missing. ``path`` is the label map; objects of it that were parted by another array are not replaced. None: they
        are removed.
        """
        if path is not None:
            self._check_earlier(path)
        if not self.offsets:
            return
        record, where, order = opened.record, opened.volume.location, opened.record.voxel_order
        wanted = target_spacing(record.spacing_before, opened.group.models[0].configuration)
        if not is_close(record.spacing_before, wanted):
            found, expected = (
                " x ".join(f"{step:g}" for step in order.inverse.permuted(spacing))
                for spacing in (record.spacing_before, wanted)
            )
            read = [item.source.array for item in opened.prepared[:1]]
            close = [array.location for array in read if is_close(order.permuted(array.geometry.spacing), wanted)]
            other = close[0] if close else "an array with voxels of that size"
            raise ConfigError(
                f"{where}: found voxels of {found} mm, expected {expected} mm, those of the plan, since offsets of "
                f"affinities count such voxels, and resampled affinities part no objects. Predict {other}, or write "
                "--instances watershed."
            )
        check_offsets(where, self.offsets, record.shape if opened.slices is None else (1, *record.shape[1:]))

    def _check_earlier(self, path: Path) -> None:
        earlier = path.parent / FOLDER / path.name
        if earlier.is_dir() and not (path.parent / self.evidence / path.name).is_dir():
            raise ConfigError(
                f"{earlier}: found objects that were not parted by {self.evidence}/{path.name}, expected none of "
                "another method. Delete that folder, or choose another -o."
            )

    def write(
        self, path: Path, classes: StoredArray, evidence: StoredArray, order: VoxelOrder, progress: Progress
    ) -> bool:
        """Write ``instances/<case>.zarr`` beside the label map ``path``, and a dataset.json, or go on with it.

        ``evidence`` is the array of that name, and ``order`` brings the axes of the file to those of the plan. Returns
        whether the objects are new. Raises ``PlanError`` if a class has more objects than there are numbers.
        """
        memory_gb = MUTEX_MEMORY_GB if self.offsets else MEMORY_GB
        settings = settings_within(
            memory_gb, classes.spatial_shape, self.separation, is_parted=True, apart=self.apart,
            n_offsets=len(self.offsets),
        )  # fmt: skip
        parting = Parting(evidence, Pairs(offsets=self.offsets, order=order) if self.offsets else None)
        folder = path.parent / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "dataset.json", self.dataset_json)
        is_new = not (folder / path.name / RECORD).is_file()
        done = stitch_objects(
            classes, parting, folder / path.name, self.labels, settings, numbers=self.numbers, case=path.stem,
            progress=progress,
        )  # fmt: skip
        log.info("%s: %s", folder / path.name, counted(sum(done.n_objects.values()), "object"))
        return is_new
