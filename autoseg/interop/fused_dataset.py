"""From folders of masks to a folder of fused labels, or to a whole data set where there are images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from autoseg.annotation.fusion import FusionMethod
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError, DatasetError, Fault
from autoseg.core.findings import did_you_mean, listed
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.pairing import pair_by_name
from autoseg.interop.expert_masks import MaskSet, classes_of, find_mask_sets
from autoseg.interop.expert_tables import Agreement
from autoseg.interop.fuse_experts import IGNORE, FusedFiles, FusionSettings, found_meanings, fuse_masks
from autoseg.interop.fused_values import FileValues, further_values
from autoseg.interop.image_folder import (
    LABELS,
    ImageFolder,
    check_channel_names,
    check_new,
    dataset_json,
    find_images,
    image_folder,
)
from autoseg.interop.mask_votes import MaskReading, MaskVotes, missing_values, read_votes, values_of
from autoseg.io.images import ending_of, written_ending

PICTURES = "pictures"


@dataclass(frozen=True, slots=True)
class FusionRequest:
    """What to fuse, and how."""

    masks: Path
    """Folder that holds a folder of masks for each expert."""
    output: Path
    """New folder."""
    images: Path | None
    """Folder of the images; None writes label maps without a data set."""
    method: str
    """``staple``, ``majority`` or ``sets``."""
    undecided: str
    """``ignore`` or the name of a class."""
    soft: bool
    """Whether a voxel counts in training as much as its class is probable."""
    instances: bool
    """Whether values above 0 are numbers of instances."""
    unlabelled: int | None
    """Value of voxels that an expert left unlabelled."""
    names: tuple[str, ...] | None
    """Of the classes; None makes them from the values."""
    channel_names: tuple[str, ...] | None
    """Of the images; None makes them from their number."""
    mask_suffix: str | None
    """What names of masks have behind those of images; None finds it."""
    copy: bool
    """Whether images are copied instead of linked."""
    pictures: bool
    """Whether a picture is drawn for each image."""
    workers: int


@dataclass(frozen=True, slots=True)
class PreparedFusion:
    """Masks that can be fused, found and checked; nothing is written yet."""

    votes: tuple[MaskVotes, ...]
    """Masks of each image."""
    settings: FusionSettings
    images: ImageFolder | None
    case_of: Mapping[str, str]
    """Name of a mask -> name of its case, which is that of the image."""
    remarks: tuple[str, ...]
    """What a user should know, although the result is right."""


@dataclass(frozen=True, slots=True)
class FusedFolder:
    """What was written."""

    agreements: tuple[Agreement, ...]
    """Of the experts of each image, sorted by name."""
    values: Mapping[str, Any]
    """Meaning of the values of the label maps: the keys ``labels``, ``label_sets`` and ``label_weights``."""


def prepare(request: FusionRequest, scratch: Path, progress: Progress = silent) -> PreparedFusion:
    """Find, read and check masks and images.

    Parameters
    ----------
    request
        What to do.
    scratch
        Folder for temporary files, which :func:`write` needs.
    progress
        Called for each image.

    Raises
    ------
    ConfigError
        If the output folder is not empty, or options do not fit.
    DatasetError
        If masks or images are missing, cannot be read, or do not fit each other.
    """
    _check_options(request)
    check_new(request.output)
    sets = find_mask_sets(request.masks)
    case_of = {masks.name: masks.name for masks in sets}
    remarks: tuple[str, ...] = ()
    images = None
    if request.images is not None:
        images, case_of, remarks = _with_images(sets, request.images, request.mask_suffix)
        check_channel_names(images, request.channel_names)
        sets = tuple(
            replace(masks, image=images.images[case_of[masks.name]]) for masks in sets if masks.name in case_of
        )
    reading = MaskReading(are_instances=request.instances, unlabelled=request.unlabelled)
    votes = read_votes(sets, scratch, reading, workers=request.workers, progress=progress)
    values = values_of(votes)
    classes = classes_of(
        values, names=request.names, unlabelled=request.unlabelled, are_instances=request.instances
    )  # fmt: skip
    if request.undecided not in (IGNORE, *classes.names):
        expected = ", ".join([IGNORE, *classes.names])
        hint = did_you_mean(request.undecided, [IGNORE, *classes.names])
        found = f"found no class of this name, expected one of {expected}"
        raise ConfigError(f"--undecided {request.undecided}: {found}.{hint}")
    settings = FusionSettings(
        classes.names, classes.class_of, cast(FusionMethod, request.method), request.undecided, request.soft,
        request.instances,
    )  # fmt: skip
    remarks = (
        *remarks, *_lonely(sets), *missing_values(values, request.unlabelled, are_instances=request.instances)
    )  # fmt: skip
    return PreparedFusion(votes, settings, images, case_of, remarks)


def _check_options(request: FusionRequest) -> None:
    """Raise ``ConfigError`` for an unknown method, and for options that contradict others."""
    of_images = (
        ("--channel-names", request.channel_names is not None),
        ("--mask-suffix", request.mask_suffix is not None),
        ("--copy", request.copy),
    )
    for option, is_given in of_images:
        if is_given and request.images is None:
            raise ConfigError(f"{option}: found without --images, of which it speaks. Give both, or leave it out.")
    if request.method not in get_args(FusionMethod):
        hint = did_you_mean(request.method, get_args(FusionMethod))
        raise ConfigError(f"--method {request.method}: expected one of {', '.join(get_args(FusionMethod))}.{hint}")
    for option, is_given in (("--soft", request.soft), ("--undecided", request.undecided != IGNORE)):
        if request.method == "sets" and is_given:
            raise ConfigError(
                f"{option}: found with --method sets, which decides nothing, expected without it. Leave it out, or "
                "take --method staple or majority."
            )


def _with_images(
    sets: Sequence[MaskSet], folder: Path, suffix: str | None
) -> tuple[ImageFolder, dict[str, str], tuple[str, ...]]:
    """Return the images of masks, name of a mask -> case, and remarks on what is left out."""
    masks = {next(iter(item.files.values())): item.name for item in sets}
    pairing = pair_by_name(find_images(folder), list(masks), suffix=suffix)
    if not pairing.pairs:
        found = f"no image whose name is in that of a mask, such as {sets[0].name!r}"
        fix = "Name masks after their images (0001.png and 0001_mask.png), or give --mask-suffix."
        raise DatasetError([Fault(str(folder), found, "images of the masks", fix)])
    alone = {"images without masks": pairing.images_alone, "masks without an image": pairing.masks_alone}
    remarks = [f"{what} are left out: {listed(path.name for path in paths)}" for what, paths in alone.items() if paths]
    images = image_folder({case: image for case, (image, _) in pairing.pairs.items()})
    return images, {masks[mask]: case for case, (_, mask) in pairing.pairs.items()}, tuple(remarks)


def _lonely(sets: Sequence[MaskSet]) -> tuple[str, ...]:
    """Return a remark if images have the mask of one expert only."""
    if len({expert for masks in sets for expert in masks.files}) == 1:
        return ("there is one expert only, whose masks are taken as they are: nothing is known of agreement",)
    lonely = [masks.name for masks in sets if len(masks.files) == 1]
    return (f"the mask of one expert only, which is taken as it is: {listed(lonely)}",) if lonely else ()


def write(request: FusionRequest, prepared: PreparedFusion, progress: Progress = silent) -> FusedFolder:
    """Write label maps and pictures, with images the data set; dataset.json last. Return the agreement of experts."""
    settings, images, workers = prepared.settings, prepared.images, request.workers
    n_classes = len(settings.names)
    further = further_values(found_meanings(prepared.votes, settings, workers=workers), n_classes, n_classes)
    values = FileValues(tuple(range(n_classes)), n_classes + len(further), further)
    if images is not None:
        images.put(request.output, copy=request.copy)
    files = {item.masks.name: _files(item.masks, request, prepared) for item in prepared.votes}
    agreements = fuse_masks(prepared.votes, settings, values, files, workers=workers, progress=progress)
    unknown = values.unknown if any(item.unknown for item in agreements) else None
    keys = values.as_json(settings.names)
    if images is not None:
        content = dataset_json(
            images, settings.names, unknown=unknown, further=keys, channel_names=request.channel_names
        )  # fmt: skip
        write_json(request.output / DATASET_JSON, content)
        Dataset.load(request.output)
    labels = dict(zip(settings.names, values.classes, strict=True)) | ({} if unknown is None else {IGNORE: unknown})
    return FusedFolder(agreements, {"labels": labels, **keys})


def _files(masks: MaskSet, request: FusionRequest, prepared: PreparedFusion) -> FusedFiles:
    case = prepared.case_of[masks.name]
    picture = request.output / PICTURES / f"{case}.png" if request.pictures else None
    if prepared.images is None:
        mask = next(iter(masks.files.values()))
        return FusedFiles(case, mask, request.output / "labels" / f"{case}{written_ending(ending_of(mask))}", picture)
    image = prepared.images.images[case]
    label = request.output / LABELS / f"{case}{prepared.images.label_ending}"
    return FusedFiles(case, image, label, picture, image)
