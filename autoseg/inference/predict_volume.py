"""Prediction of a volume of any size to a folder: arrays that are written shard by shard, and go on after a kill."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted
from autoseg.core.json_models import load_model, save_model
from autoseg.core.location import path_of
from autoseg.core.prediction_record import record_prediction
from autoseg.core.progress import Progress, silent
from autoseg.core.resources import GB
from autoseg.dataset.folder_files import refuse_dataset_folder
from autoseg.inference.blockwise import VolumePredictor
from autoseg.inference.folder import ON_CLUSTER, PredictionReport, described, write_model_files
from autoseg.inference.predictor import Predictor
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.saved_instances import FOLDER as INSTANCES
from autoseg.inference.volume_arrays import FOLDERS, Layout, volume_outputs
from autoseg.inference.volume_locations import case_name
from autoseg.inference.volume_memory import MemoryNeed, SliceNeed, fixed_bytes, memory_budget, wide_patch
from autoseg.inference.volume_objects import VolumeObjects
from autoseg.inference.volume_options import ZARR, VolumeOptions
from autoseg.inference.volume_outputs import ShardLayers, VolumeOutput, crop_part
from autoseg.inference.volume_units import Part, Unit, box_of_part, columns, units
from autoseg.io.stored_array import StoredArray
from autoseg.io.write_stored import STORED_ENDINGS, check_stored, write_stored
from autoseg.nn.device import device_name
from autoseg.tasks.task import outputs_of, refuse_regression

log = logging.getLogger(__name__)

SETTINGS_FILE = ".prediction.json"
"""File in the label map's Zarr that tells with what it was begun."""
LOCK_FILE = ".finish.lock"
MOST_GAPS = 1000
"""Boxes of missing data that are listed."""


class Settings(BaseModel):
    """What the content of an array depends on. A prediction that was begun otherwise is not continued."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    volume: tuple[str, ...]
    """Names of its locations, without their folders."""
    shape: tuple[int, ...]
    intensities: tuple[tuple[float, float, float], ...]
    """Smallest, largest, and standard deviation of each channel, by which another volume of the same name is told
    apart, or the same one with tiles that have arrived meanwhile. To 5 digits, so that machines agree."""
    weights: tuple[str, ...]
    """Digest of the weights of each model."""
    mirrored: tuple[bool, ...]
    step: tuple[float, ...]
    leaves_out_windows: tuple[bool, ...] = ()
    """Of models of 2-D images, whether each leaves out windows without foreground; others never do."""


def predict_volume(
    group: PredictorGroup,
    locations: Sequence[str],
    output: Path,
    options: VolumeOptions,
    *,
    save_probabilities: bool = False,
    save_uncertainty: bool = False,
    instances: str | None = None,
    overwrite: bool = False,
    workers: int = 1,
    elsewhere: Callable[[int, Progress], None] | None = None,
    progress: Progress = silent,
) -> PredictionReport:
    """Predict a volume, or a part of it, and write ``<case>.zarr`` to the folder ``output``.

    What is done shard by shard is skipped: a killed prediction goes on. When no part is left to do, the coarser levels
    are made, and then the file of ``options.write_as``. The folder also gets dataset.json, plans.json and
    prediction.json.

    Parameters
    ----------
    group
        The models.
    locations
        The volume, or its channels in order; see :func:`autoseg.io.arrays.open_volume`.
    output
        Made if it does not exist.
    options
        Memory, part and format.
    save_probabilities, save_uncertainty
        Further arrays; see :func:`autoseg.inference.volume_arrays.volume_outputs`.
    instances
        Method by which objects are parted into ``instances/<case>.zarr`` at the end; of the task instances they always
        are.
    overwrite
        Remove what was predicted earlier. Not for a part, since others may be at work.
    workers
        With 0, slabs are decided and written by the thread that computes, otherwise meanwhile.
    elsewhere
        Lets others predict all that is left of so many voxels; this process only begins and concludes. See
        :mod:`autoseg.inference.volume_workers`.
    progress
        Called with (layers done, layers in all, "layers"), or of slices.

    Raises
    ------
    ConfigError
        If the memory does not suffice for one column of shards, or the output was begun with other settings.
    DatasetError, FileFormatError
        As :meth:`autoseg.inference.blockwise.VolumePredictor.open`.
    """
    refuse_dataset_folder(output)
    name = case_name(locations[0])
    path = output / f"{name}{ZARR}"
    _check_output(path, locations)
    outputs_of_classes = (
        (save_probabilities, "probabilities"), (save_uncertainty, "uncertainty"), (instances is not None, "instances"),
    )  # fmt: skip
    for wanted, what in outputs_of_classes:
        if wanted:
            refuse_regression(group.dataset.labels, f"saving {what}")
    opened = VolumePredictor.open(group, locations, name)
    along = opened.record.transpose[0]
    objects = VolumeObjects.of(group, instances, apart=None if opened.slices is None else along)
    if objects is not None:
        objects.check(opened, None if overwrite else path)
    if options.write_as != ZARR:
        check_stored(output / f"{name}{options.write_as}", opened.target)
    if overwrite:
        _remove(path, options.part)
    target, is_begun = opened.target, path.exists()
    layout = Layout.of(target.spatial_shape, along, is_sliced=opened.slices is not None)
    outputs = volume_outputs(
        group, target, path, layout, save_probabilities=save_probabilities, save_uncertainty=save_uncertainty,
        evidence=None if objects is None else objects.evidence,
    )  # fmt: skip
    _check_settings(path, _settings(opened, locations))
    box = box_of_part(target.spatial_shape, _least(opened, layout), _window(opened), options.part)
    with _removing_if_refused(path, is_new=not is_begun and options.part.count == 1):
        todo = _units(opened, outputs, layout, box, options) if elsewhere is None else []
    gaps = [str(gap) for gap in opened.volume.missing(box.shifted(opened.box.start))] if box.n_voxels else []
    _report_gaps(opened.volume, gaps)
    if options.is_helping:
        _predict_units(opened, outputs, todo, workers=workers, progress=progress)
        return PredictionReport(done=(name,))
    write_model_files(group, output, options.write_as, of_classes=True)
    device = device_name(group.device) if elsewhere is None else ON_CLUSTER
    record_prediction(
        output, described(group), device, {name: [Path(item) for item in locations]} if todo or elsewhere else {},
        part="" if options.part.count == 1 else f"{options.part.index}/{options.part.count}",
        missing={name: gaps[:MOST_GAPS]} if gaps else None,
    )  # fmt: skip
    if elsewhere is None:
        _predict_units(opened, outputs, todo, workers=workers, progress=progress)
    is_shared = elsewhere is not None and _n_left(outputs) > 0
    if elsewhere is not None and is_shared:
        elsewhere(math.prod(target.spatial_shape), progress)
    left = _n_left(outputs)
    if left:
        log.info("%s: part %d of %d is done, %s of other parts left", path, options.part.index, options.part.count,
                 counted(left, "shard"))  # fmt: skip
        return PredictionReport(done=(name,))
    is_new = _conclude(opened, outputs, options.write_as, objects, progress)
    return PredictionReport(done=(name,)) if todo or is_shared or is_new else PredictionReport(skipped=(name,))


@contextmanager
def _removing_if_refused(path: Path, *, is_new: bool) -> Iterator[None]:
    """Remove arrays that are new, and that no other process writes, if what is done here raises ``ConfigError``.

    Other programs would take them for a prediction of background alone.
    """
    try:
        yield
    except ConfigError:
        if is_new:
            _remove_arrays(path)
        raise


def _n_left(outputs: Sequence[VolumeOutput]) -> int:
    """Return the number of shards of the whole volume that are not written."""
    return sum(len(item.writer.pending()) for item in outputs)


def _check_output(path: Path, locations: Sequence[str]) -> None:
    """Refuse to write where the volume lies."""
    for location in locations:
        if path_of(location).resolve().parent == path.parent.resolve():
            raise ConfigError(f"output folder {path.parent}: found the volume in it, expected another. Change -o.")


def _remove(path: Path, part: Part) -> None:
    """Remove what was predicted earlier; raise ``ConfigError`` if only a part is to be predicted."""
    if part.count > 1:
        raise ConfigError(
            f"--overwrite: found --part {part.index}/{part.count}, but other parts may be at work. "
            f"Remove {path} yourself, then start the parts without --overwrite."
        )
    _remove_arrays(path)
    for ending in STORED_ENDINGS:
        path.with_name(path.name.removesuffix(ZARR) + ending).unlink(missing_ok=True)


def _remove_arrays(path: Path) -> None:
    """Remove the label map ``path`` and all further arrays of its volume."""
    folders = (path.parent, *(path.parent / folder for folder in (*FOLDERS, INSTANCES)))
    for folder in folders:
        if (folder / path.name).is_dir():
            shutil.rmtree(folder / path.name)


def _settings(opened: VolumePredictor, locations: Sequence[str]) -> Settings:
    predictors = [item for item in opened.group.predictors if isinstance(item, Predictor)]
    return Settings(
        volume=tuple(Path(location).name for location in locations),
        shape=opened.volume.shape,
        intensities=tuple((item.low, item.high, float(f"{item.everywhere.std:.5g}")) for item in opened.statistics),
        weights=tuple(_digest(item) for item in predictors),
        mirrored=tuple(item.is_mirrored for item in predictors),
        step=tuple(item.step for item in predictors),
        leaves_out_windows=tuple(item.leaves_out_windows for item in predictors) if opened.slices is not None else (),
    )


def _digest(predictor: Predictor) -> str:
    digest = hashlib.sha256()
    for network in predictor.model.networks:
        for key, values in network.state_dict().items():
            digest.update(key.encode())
            digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_settings(path: Path, settings: Settings) -> None:
    """Keep the settings of a prediction that begins; raise ``ConfigError`` if one was begun with others."""
    file = path / SETTINGS_FILE
    if not file.is_file():
        save_model(settings, file)
        return
    begun = load_model(Settings, file, "Predict with --overwrite.", "Predict with --overwrite.")
    other = [key for key in Settings.model_fields if getattr(begun, key) != getattr(settings, key)]
    if other:
        raise ConfigError(
            f"{path}: found a prediction that was begun with other {', '.join(other)}, expected the same. Choose "
            "another -o, or start anew with --overwrite."
        )


def _units(
    opened: VolumePredictor, outputs: Sequence[VolumeOutput], layout: Layout, box: Box, options: VolumeOptions
) -> list[Unit]:
    """Return what is left to do of a part of the volume, in columns as wide as the memory allows."""
    if not box.n_voxels:
        return []
    record, along, shard = opened.record, opened.record.transpose[0], _least(opened, layout)
    budget = memory_budget(options.memory_gb)

    def need(column: Box) -> int:
        inside = crop_part(column.shifted(opened.box.start), record)
        return sum(item.bytes_of(inside) for item in _needs(opened, outputs, shard[along])) if inside.n_voxels else 0

    def fits(size: tuple[int, int, int]) -> bool:
        z, y, x = (start + edge for start, edge in zip(box.start, size, strict=True))
        return need(Box(box.start, (z, y, x))) <= budget

    found = columns(box, shard, along, _window(opened), fits)
    most = max(map(need, found))
    if most > budget:
        what, least = "a column of the volume", "one shard and the windows around it"
        if opened.slices is not None:
            what, least = (
                "a slice of the volume",
                f"one slice of {opened.slices.slice_shape} voxels, which is normalised as a whole",
            )
        raise ConfigError(
            f"memory: found {max(budget, 0) / GB:.2f} GB for {what}, expected {(most - budget) / GB:.2g} GB more, for "
            f"{least}. Give --memory-gb {(options.memory_gb or 0) + (most - budget) / GB + 0.05:.1f} or more."
        )
    what = "column" if opened.slices is None else "slice"
    n_columns = len(found) if opened.slices is None else box.shape[along]
    log.info("%s: %s of up to %.2f GB", opened.name, counted(n_columns, what), most / GB)

    def is_done(one: Box) -> bool:
        return all(output.writer.is_done(one) for output in outputs)

    return units(found, layout.shard, along, is_reversed=record.flipped[0], is_done=is_done)


def _least(opened: VolumePredictor, layout: Layout) -> Shape3:
    """Return the least voxels (z, y, x) that are predicted at once: a shard, or a whole slice."""
    if opened.slices is None:
        return layout.shard
    along, edges = opened.record.transpose[0], opened.target.spatial_shape
    z, y, x = (1 if axis == along else edge for axis, edge in enumerate(edges))
    return (z, y, x)


def _window(opened: VolumePredictor) -> Shape3:
    """Return the shape of a window in voxels of the volume; of a stack, of a slice."""
    return wide_patch(opened.prepared[0]) if opened.slices is None else opened.slices.slice_shape


def _needs(opened: VolumePredictor, outputs: Sequence[VolumeOutput], shard_depth: int) -> list[MemoryNeed | SliceNeed]:
    """Return what each model needs; the arrays that are written count once."""
    group = opened.group
    has_members = any(output.needs_members for output in outputs)
    written = sum(len(output.fill) * output.writer.dtype.itemsize for output in outputs)
    needs: list[MemoryNeed | SliceNeed] = []
    for index, predictor in enumerate(group.predictors):
        model, n_networks = predictor.model, len(predictor.model.networks)
        batch_size = predictor.batch_size if isinstance(predictor, Predictor) else None
        n_stacked = 1 + n_networks if has_members and n_networks > 1 else 1
        fixed = fixed_bytes(model, batch_size, predictor.device)
        n_outputs = len(outputs_of(model.dataset.labels))
        own = 0 if needs else written
        if opened.slices is None:
            needs.append(MemoryNeed(opened.prepared[index], n_outputs, n_stacked, own, shard_depth, fixed))
        else:
            needs.append(SliceNeed(opened.slices, model.configuration, n_outputs, n_stacked, own, fixed))
    return needs


def _report_gaps(volume: StoredArray, gaps: Sequence[str]) -> None:
    if gaps:
        shown = ", ".join(gaps[:5]) + (" and so on" if len(gaps) > 5 else "")
        log.warning("%s: %s without data, predicted as background: %s", volume.location,
                    f"{len(gaps)} boxes" if len(gaps) > 1 else "1 box", shown)  # fmt: skip


def _predict_units(
    opened: VolumePredictor,
    outputs: Sequence[VolumeOutput],
    todo: Sequence[Unit],
    *,
    workers: int,
    progress: Progress,
) -> None:
    """Predict units one after the other, and write their shards."""
    total, done, what = sum(len(unit.layers) for unit in todo), 0, "layers" if opened.slices is None else "slices"
    with ThreadPoolExecutor(1) as decider:
        pool = decider if workers > 0 else None
        for unit in todo:
            layers = ShardLayers(outputs, unit, opened.record, opened.volume, opened.box.start)
            inside = crop_part(unit.box.shifted(opened.box.start), opened.record)
            if inside.n_voxels and opened.group.dataset.labels.targets:
                for _, numbers in opened.number_slabs(inside, pool):
                    layers.put([numbers])
                    progress(done + layers.n_written, total, what)
            elif inside.n_voxels:
                for _ in opened.decided_slabs(inside, (layers,), pool):
                    progress(done + layers.n_written, total, what)
            layers.finish()
            done += len(unit.layers)
            progress(done, total, what)


def _conclude(
    opened: VolumePredictor,
    outputs: Sequence[VolumeOutput],
    write_as: str,
    objects: VolumeObjects | None,
    progress: Progress,
) -> bool:
    """Make the coarser levels, the objects, and the file of the label map if another format is wanted.

    Returns whether objects or that file are new. Of processes that end at the same time, one does so while the others
    wait.
    """
    labels = outputs[0].writer
    target = labels.path.with_name(labels.path.name.removesuffix(ZARR) + write_as)
    with FileLock(labels.path / LOCK_FILE):
        for output in outputs:
            output.writer.finish()
        has_new_objects = objects is not None and objects.write(
            labels.path, labels.open(), outputs[1].writer.open(), opened.record.voxel_order, progress
        )
        if write_as == ZARR or target.is_file():
            return has_new_objects
        write_stored(target, labels.open(), opened.target.geometry)
    return True
