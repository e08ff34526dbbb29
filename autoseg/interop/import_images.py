"""A data set from a folder of images and a folder of masks, paired by their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.annotation.votes import NO_VOTE
from autoseg.core.arrays import LabelMap
from autoseg.core.atomic import write_json
from autoseg.core.errors import AutosegError, DatasetError, Fault
from autoseg.core.findings import listed
from autoseg.core.parallel import map_unordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.pairing import Affixes, pair_by_name
from autoseg.dataset.schema import INSTANCES, UNLABELLED
from autoseg.interop.expert_masks import MaskClasses, MaskSet, classes_of
from autoseg.interop.image_folder import LABELS, ImageFolder, check_new, dataset_json, find_images, image_folder
from autoseg.interop.mask_votes import MaskReading, MaskVotes, missing_values, read_votes, values_of
from autoseg.io.images import ending_of, read_header, read_labels, write_labels, written_ending
from autoseg.io.raw_layout import put_file

UNLABELLED_OBJECTS = 65535
"""Value of unlabelled voxels in rewritten files with numbers of objects, where it was negative."""


@dataclass(frozen=True, slots=True)
class Import:
    """Images with their masks, found and checked; nothing is written yet."""

    images: ImageFolder
    masks: Mapping[str, MaskVotes]
    """Case -> mask, read."""
    classes: MaskClasses
    mask_names: Affixes
    """What names of masks have around those of images."""
    remarks: tuple[str, ...]
    """What is left out."""


def prepare_import(
    images: Path,
    masks: Path,
    scratch: Path,
    *,
    names: tuple[str, ...] | None = None,
    unlabelled: int | None = None,
    are_instances: bool = False,
    mask_suffix: str | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Import:
    """Find images and masks, pair them by name, and read what the masks hold.

    Parameters
    ----------
    images, masks
        Folders.
    scratch
        Folder for temporary files, which :func:`write_import` needs.
    names
        Of the classes, background first; None makes them from the values.
    unlabelled
        Value of masks where nothing is labelled.
    are_instances
        Whether values above 0 are numbers of objects: then the task of the data set is instances.
    mask_suffix
        What names of masks have behind those of images; None finds it.

    Raises
    ------
    DatasetError
        If there are no pairs, or files cannot be read or do not fit each other.
    """
    if are_instances and unlabelled == 0:
        fix = "Write a dataset.json in which background has the value with which it is drawn; see docs/instances.md."
        raise DatasetError([Fault("--unlabelled 0 with --instances", "no value for background", "one", fix)])
    pairing = pair_by_name(find_images(images), find_images(masks), suffix=mask_suffix)
    if not pairing.pairs:
        found = f"no name that fits the images in {images.name}"
        fix = "Name masks after their images (0001.png and 0001_mask.png), or give --mask-suffix."
        raise DatasetError([Fault(str(masks), found, "a mask for each image", fix)])
    folder = image_folder({case: image for case, (image, _) in pairing.pairs.items()})
    sets = [MaskSet(case, {"": mask}, folder.images[case]) for case, (_, mask) in pairing.pairs.items()]
    reading = MaskReading(are_instances=are_instances, unlabelled=unlabelled)
    votes = read_votes(sets, scratch, reading, workers=workers, progress=progress)
    for item in votes:
        _check_format(item, folder)
    values = values_of(votes)
    classes = classes_of(values, names=names, unlabelled=unlabelled, are_instances=are_instances)
    alone = {"images without mask": pairing.images_alone, "masks without image": pairing.masks_alone}
    remarks = [f"{what} are left out: {listed(path.name for path in paths)}" for what, paths in alone.items() if paths]
    remarks += missing_values(values, unlabelled, are_instances=are_instances)
    return Import(folder, {item.masks.name: item for item in votes}, classes, pairing.mask, tuple(remarks))


def write_import(
    prepared: Import,
    output: Path,
    *,
    channel_names: tuple[str, ...] | None = None,
    copy: bool = False,
    workers: int = 1,
    progress: Progress = silent,
) -> Dataset:
    """Write the data set into a new folder, dataset.json last; return it, loaded from there.

    Images are linked, and so are masks whose values and format are those of label files; other masks are rewritten.
    Numbers of objects stay as they are; in rewritten files a negative value of unlabelled voxels becomes 65535.

    Raises
    ------
    ConfigError
        If ``output`` is not empty, or the number of ``channel_names`` is not that of the channels.
    """
    check_new(output)
    classes = prepared.classes
    names, unlabelled = classes.names, classes.unlabelled
    unknown = None if unlabelled is None or classes.are_instances else len(names)
    further: dict[str, Any] = {}
    if classes.are_instances:
        further = {"task": INSTANCES} | ({} if unlabelled is None else {UNLABELLED: _written_unlabelled(unlabelled)})
    content = dataset_json(prepared.images, names, unknown=unknown, further=further, channel_names=channel_names)
    prepared.images.put(output, copy=copy)
    cases = list(prepared.masks)
    (output / LABELS).mkdir(parents=True, exist_ok=True)
    put = partial(_put_mask, prepared=prepared, folder=output / LABELS, copy=copy)
    for done, (index, result) in enumerate(map_unordered(put, cases, workers=workers), 1):
        if isinstance(result, AutosegError):
            raise result
        progress(done, len(cases), cases[index])
    write_json(output / DATASET_JSON, content)
    return Dataset.load(output)


def _check_format(votes: MaskVotes, folder: ImageFolder) -> None:
    """Raise ``DatasetError`` if label files beside the images cannot hold the numbers of objects of a mask."""
    if written_ending(folder.ending, votes.highest) != folder.label_ending:
        mask, found = votes.masks.files[""], f"the number {votes.highest} of an object"
        fix = "Convert the images to .tif, whose label files hold larger numbers, or renumber the objects from 1."
        raise DatasetError([Fault(str(mask), found, f"a number that {folder.label_ending} files hold", fix)])


def _written_unlabelled(value: int) -> int:
    """Return the value that unlabelled voxels of objects have in the data set."""
    return UNLABELLED_OBJECTS if value < 0 else value


def _put_mask(case: str, *, prepared: Import, folder: Path, copy: bool) -> None:
    votes, classes = prepared.masks[case], prepared.classes
    mask = votes.masks.files[""]
    n_classes = len(classes.names)
    target = folder / f"{case}{prepared.images.label_ending}"
    is_label_file = classes.values == tuple(range(n_classes)) and classes.unlabelled in (None, n_classes)
    if classes.are_instances:
        is_label_file = classes.unlabelled is None or classes.unlabelled >= 0
    if is_label_file and ending_of(mask).lower() == target.name[len(case) :]:
        put_file(mask, target, copy=copy)
        return
    labels: LabelMap
    if classes.are_instances:
        drawn, _ = read_labels(mask)
        labels = np.where(drawn < 0, UNLABELLED_OBJECTS, drawn).astype(np.uint32)
    else:
        patterns = votes.patterns(classes.class_of, n_classes)
        values = np.where(patterns.votes[:, 0] == NO_VOTE, n_classes, patterns.votes[:, 0]).astype(np.uint16)
        labels = values[patterns.pattern_of]
    write_labels(target, labels, read_header(prepared.images.images[case])[1])
