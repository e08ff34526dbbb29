"""From folders of masks to a folder of fused labels, or to a whole data set where there are images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from autoseg.annotation.fusion import FusionMethod
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError, DatasetError, Fault
from autoseg.core.findings import did_you_mean, listed
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.pairing import pair_by_name
from autoseg.interop.expert_masks import MaskSet, find_mask_sets, read_classes
from autoseg.interop.expert_tables import Agreement
from autoseg.interop.fuse_experts import FusedFiles, FusionSettings, file_values, fuse_masks
from autoseg.interop.image_folder import LABELS, ImageFolder, check_new, dataset_json, find_images, image_folder
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

    sets: tuple[MaskSet, ...]
    settings: FusionSettings
    images: ImageFolder | None
    case_of: Mapping[str, str]
    """Name of a mask -> name of its case, which is that of the image."""
    remarks: tuple[str, ...]
    """What a user should know, although the result is right."""


def prepare(request: FusionRequest, progress: Progress = silent) -> PreparedFusion:
    """Find and check masks and images.

    Raises
    ------
    ConfigError
        If the output folder is not empty, or an option does not fit.
    DatasetError
        If masks or images are missing, cannot be read, or do not fit each other.
    """
    if request.method not in get_args(FusionMethod):
        hint = did_you_mean(request.method, get_args(FusionMethod))
        raise ConfigError(f"--method {request.method}: expected one of {', '.join(get_args(FusionMethod))}.{hint}")
    check_new(request.output)
    sets = find_mask_sets(request.masks)
    case_of = {masks.name: masks.name for masks in sets}
    remarks: tuple[str, ...] = ()
    images = None
    if request.images is not None:
        images, case_of, remarks = _with_images(sets, request.images, request.mask_suffix)
        sets = tuple(masks for masks in sets if masks.name in case_of)
    classes = read_classes(
        sets, names=request.names, unlabelled=request.unlabelled, are_instances=request.instances,
        workers=request.workers, progress=progress,
    )  # fmt: skip
    settings = FusionSettings(classes, cast(FusionMethod, request.method), request.undecided)
    return PreparedFusion(sets, settings, images, case_of, (*remarks, *_lonely(sets)))


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
        return ("there is one expert only: his masks are taken as they are, and say nothing about agreement",)
    lonely = [masks.name for masks in sets if len(masks.files) == 1]
    return (f"the mask of one expert only, which is taken as it is: {listed(lonely)}",) if lonely else ()


def write(request: FusionRequest, prepared: PreparedFusion, progress: Progress = silent) -> tuple[Agreement, ...]:
    """Write label maps and pictures, with images the data set; dataset.json last. Return the agreement of experts."""
    values = file_values(prepared.sets, prepared.settings, workers=request.workers)
    images = prepared.images
    if images is not None:
        images.put(request.output, copy=request.copy)
    files = {masks.name: _files(masks, request, prepared) for masks in prepared.sets}
    agreements = fuse_masks(prepared.sets, prepared.settings, values, files, workers=request.workers, progress=progress)
    if images is not None:
        content = dataset_json(
            images, prepared.settings.classes, has_unknown=any(item.unknown for item in agreements),
            label_sets=values.sets, channel_names=request.channel_names,
        )  # fmt: skip
        write_json(request.output / DATASET_JSON, content)
        Dataset.load(request.output)
    return agreements


def _files(masks: MaskSet, request: FusionRequest, prepared: PreparedFusion) -> FusedFiles:
    case = prepared.case_of[masks.name]
    picture = request.output / PICTURES / f"{case}.png" if request.pictures else None
    if prepared.images is None:
        mask = next(iter(masks.files.values()))
        return FusedFiles(case, mask, request.output / "labels" / f"{case}{written_ending(ending_of(mask))}", picture)
    image = prepared.images.images[case]
    label = request.output / LABELS / f"{case}{prepared.images.label_ending}"
    return FusedFiles(case, image, label, picture, image)
