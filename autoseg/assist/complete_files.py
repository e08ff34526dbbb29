"""Files of a completed data set: linked images, dense labels, and for each case a record of its sources."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.core.atomic import write_json, write_text
from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.dataset.labels import background_value
from autoseg.dataset.schema import IGNORE, UNLABELLED
from autoseg.evaluation.disagreement import Disagreement
from autoseg.io.images import SUPPORTED_ENDINGS, ending_of, ending_of_maps
from autoseg.io.raw_layout import put_image
from autoseg.preprocessing.freshness import annotation_stamp, file_stamp, short_hash

log = logging.getLogger(__name__)

IMAGES, LABELS, RECORDS, REVIEW = "imagesTr", "labelsTr", "completion", "review"
"""Folders of a completed data set."""
SOURCE = "completed_from.json"
"""File that names the data set that a folder completes, and the values of its label maps."""
SPARSE_KEYS = (
    "label_sets", "label_weights", "unlabelled", "annotation_protocol", "valid_mask_folder", "lazy_semantics",
    "dataset", "boxes", "expert_fusion",
)  # fmt: skip
"""Keys of a dataset.json that do not apply to dense labels, or are written anew."""
SPARSE_CASE_KEYS = ("annotated", "absent", "experts")
"""Keys of a case in dataset.json that do not apply to dense labels."""
_DETACHED_ENDINGS = (".mhd",)
"""Endings of headers that name their voxel file by a relative path, which is wrong from a link in another folder."""


class CaseOrigin(BaseModel):
    """Sources of a completed case, as hashes of names, sizes and times of files, not of their content."""

    model_config = ConfigDict(frozen=True)

    fold: str
    image: str
    annotation: str
    """Hash of label file, valid mask, and the statements of dataset.json on the case and its annotation."""
    model: str
    """Hash of checkpoint and settings of the prediction."""

    def changes(self, other: CaseOrigin) -> tuple[str, ...]:
        """Return the names of the fields that differ: ``fold``, ``image``, ``annotation``, ``model``."""
        mine, theirs = self.model_dump(), other.model_dump()
        return tuple(name for name in mine if mine[name] != theirs[name])


class CaseCompletion(BaseModel):
    """The record of a completed case."""

    model_config = ConfigDict(frozen=True)

    case: str
    origin: CaseOrigin
    seen_in_training: bool = False
    """Whether the model that predicted it was trained on it, here or in a pretraining."""
    disagreements: tuple[Disagreement, ...] | None = None
    """Disagreements of model and annotation; None without a review."""


def case_origin(dataset: Dataset, files: CaseFiles, fold: str, checkpoint: Path, *, mirror: bool) -> CaseOrigin:
    """Return the present sources of a case."""
    labels = dataset.labels
    sets = [[value, sorted(members)] for value, members in sorted(labels.sets_by_value(files.name).items())]
    annotation = [annotation_stamp(path) for path in (files.label, files.valid_mask) if path is not None]
    return CaseOrigin(
        fold=fold,
        image=short_hash([file_stamp(path) for path in files.images]),
        annotation=short_hash([*annotation, sets, labels.n_classes, repr(dataset.protocol)]),
        model=short_hash([file_stamp(checkpoint), mirror]),
    )


def label_path(output: Path, files: CaseFiles, folder: str = LABELS) -> Path:
    """Return the path of a case's label file in a completed data set, in the format of its annotation if writable."""
    ending = ".nii.gz" if files.label is None else ending_of_maps(files.label)
    return output / folder / f"{files.name}{ending}"


def image_links(output: Path, files: CaseFiles) -> list[Path]:
    """Return the paths of the links to the images of a case, in channel order; none to a volume."""
    return (
        []
        if files.volume is not None
        else [
            output / IMAGES / f"{files.name}_{number:04d}{ending_of(image)}"
            for number, image in enumerate(files.images)
        ]
    )


def read_record(output: Path, files: CaseFiles, *, with_review: bool) -> CaseCompletion | None:
    """Return the record of a case if it is complete, ``with_review`` with its review too; otherwise None."""
    try:
        text = (output / RECORDS / f"{files.name}.json").read_text(encoding="utf-8")
        record = CaseCompletion.model_validate_json(text)
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    reviewed = record.disagreements is not None and label_path(output, files, REVIEW).is_file()
    return record if label_path(output, files).is_file() and (reviewed or not with_review) else None


def write_record(output: Path, record: CaseCompletion) -> None:
    """Write the record of a case, atomically."""
    write_text(output / RECORDS / f"{record.case}.json", record.model_dump_json(indent=1) + "\n")


def check_output(dataset: Dataset, output: Path) -> None:
    """Raise ``ConfigError`` if ``output`` holds files that are not those of an earlier completion of ``dataset``."""
    present = [name for name in (IMAGES, LABELS, DATASET_JSON) if (output / name).exists()]
    if output.resolve() == dataset.folder.resolve() or (present and not (output / RECORDS).is_dir()):
        raise ConfigError(
            f"output folder {output}: found a data set in it, expected a new folder, or one that an earlier run of "
            "this command began. Choose another -o."
        )
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output folder {output}: found a file, expected a folder. Choose another -o.")
    known = _source(output)
    if known is not None and known != source_of(dataset):
        what = "other labels" if known.get("name") == dataset.name else f"the completion of {known.get('name')!r}"
        raise ConfigError(
            f"output folder {output}: found {what}, expected the completion of {dataset.name!r} with its present "
            "labels. Choose another -o, or delete the folder."
        )


def source_of(dataset: Dataset) -> dict[str, Any]:
    """Return name, labels and regions of a data set as JSON, to recognise the folder that completes it."""
    labels = {name: value for name, value in dataset.json["labels"].items() if name != IGNORE}
    return {"name": dataset.name, "labels": labels, "regions_class_order": dataset.json.get("regions_class_order")}


def write_source(dataset: Dataset, output: Path) -> None:
    """Write :func:`source_of` the data set that a folder completes, atomically."""
    write_json(output / SOURCE, source_of(dataset))


def _source(output: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((output / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def remove_case(output: Path, files: CaseFiles) -> None:
    """Remove all files of a case, so that the data set does not contain it."""
    labels = (label_path(output, files), label_path(output, files, REVIEW))
    for path in (*labels, output / RECORDS / f"{files.name}.json", *image_links(output, files)):
        path.unlink(missing_ok=True)


def link_images(output: Path, files: CaseFiles) -> None:
    """Link the images of a case into a completed data set as ``<case>_<CCCC><ending>``, replacing existing files.

    If links cannot be made, the files are copied. The JSON file with the spacing of a TIFF stack is linked too. Volumes
    are read where they lie.
    """
    if files.volume is not None:
        return
    for image, target in zip(files.images, image_links(output, files), strict=True):
        if ending_of(image).lower() in _DETACHED_ENDINGS:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            put_image(image, target)
        except OSError:  # the file system has no links, or Windows does not permit them
            put_image(image, target, copy=True)


def write_disagreements(path: Path, groups: Sequence[Disagreement]) -> None:
    """Write disagreements as CSV, one row each, in the given order, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(Disagreement.model_fields)
    writer.writerow(["rank", *names])
    for rank, group in enumerate(groups, 1):
        values = [getattr(group, name) for name in names]
        writer.writerow([rank, *(f"{item:.4f}" if isinstance(item, float) else item for item in values)])
    write_text(path, text.getvalue())


def write_dataset_json(dataset: Dataset, output: Path, names: Sequence[str]) -> None:
    """Write the dataset.json of the completed cases ``names``: that of ``dataset`` without the keys of sparse labels.

    Files are listed one by one if they have several formats or cannot be linked, if the folder holds label files of
    other cases, or if some cases are parts of volumes.
    """
    every = [dataset.case(name) for name in names]
    cases = [files for files in every if files.volume is None]
    boxes = {
        files.name: files.volume.as_json(label_path(output, files).relative_to(output).as_posix())
        for files in every
        if files.volume is not None
    }
    content = {key: value for key, value in dataset.json.items() if key not in SPARSE_KEYS}
    content["labels"] = {name: value for name, value in dataset.json["labels"].items() if name != IGNORE}
    if background_value(dataset.labels) != 0:
        content[UNLABELLED] = None
    content["numTraining"] = len(names)
    statements = _remaining_statements(dataset.json.get("cases", {}), names)
    content.pop("cases", None)
    if statements:
        content["cases"] = statements
    endings = {ending_of(path) for files in cases for path in (*files.images, label_path(output, files))}
    known = {label_path(output, files).name for files in every}
    strays = {path.name for path in (output / LABELS).iterdir()} - known
    strays = {name for name in strays if name.endswith(SUPPORTED_ENDINGS) and not name.startswith(".")}
    if strays:
        log.warning(
            "%s: %d label files belong to no completed case and are left out of dataset.json: %s. Delete those that "
            "you do not need.", output / LABELS, len(strays), listed(sorted(strays)),
        )  # fmt: skip
    if len(endings) == 1 and not endings & set(_DETACHED_ENDINGS) and not strays and not boxes:
        content["file_ending"] = endings.pop()
    elif cases:
        content["dataset"] = {files.name: _listed_files(output, files) for files in cases}
    if boxes:
        content["boxes"] = boxes
    write_json(output / DATASET_JSON, content)


def _remaining_statements(section: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the statements on ``names`` in the section ``cases`` that do not concern annotation: group, priority."""
    entries = {
        name: {key: value for key, value in section[name].items() if key not in SPARSE_CASE_KEYS}
        for name in names
        if name in section
    }
    return {name: entry for name, entry in entries.items() if entry}


def _listed_files(output: Path, files: CaseFiles) -> dict[str, Any]:
    images = [
        str(image.resolve()) if ending_of(image).lower() in _DETACHED_ENDINGS else link.relative_to(output).as_posix()
        for image, link in zip(files.images, image_links(output, files), strict=True)
    ]
    return {"images": images, "label": label_path(output, files).relative_to(output).as_posix()}
