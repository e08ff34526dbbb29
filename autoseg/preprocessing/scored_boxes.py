"""Boxes of cases that are too large for memory, which are predicted and scored in their place after training.

A box is chosen once, from what the first configuration that needs it was preprocessed to, and kept in a file of the
data set. So all configurations, folds, ranks and resumed runs score the same voxels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.cases.store import CaseStore
from autoseg.core.boxes import Box, Spans, box_of
from autoseg.core.errors import ConfigError
from autoseg.core.json_models import save_model
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.volume_part import VolumePart
from autoseg.io.arrays import open_array, open_volume
from autoseg.preprocessing import volume_size
from autoseg.preprocessing.annotated_box import annotated_box
from autoseg.preprocessing.freshness import annotation_stamp, short_hash
from autoseg.preprocessing.volume_size import is_large

log = logging.getLogger(__name__)

SCORED_VOXELS = 1 << 22
"""Voxels of the largest box that is chosen. Some 90 windows of 128 x 128 x 128 voxels reach it, which without a GPU
take minutes; a user may name a box of up to ``IN_MEMORY_VOXELS``."""
SCORED_BOXES_FILE = "scored_boxes.json"
"""File in the folder of the preprocessed data set."""
_LOCK = ".scored_boxes.lock"


class ScoredBox(BaseModel):
    """Box of a case that is scored in its place."""

    model_config = ConfigDict(frozen=True)

    box: Spans
    """In voxels of the volume."""
    annotation: str
    """Hash of label file and mask as they were when it was chosen; with others a box is chosen anew."""


class ScoredBoxes(BaseModel):
    """Content of ``SCORED_BOXES_FILE``."""

    model_config = ConfigDict(frozen=True)

    cases: dict[str, ScoredBox] = {}


def choose_scored_boxes(
    dataset: Dataset, names: Iterable[str], folder: Path, open_case: Callable[[str], CaseStore]
) -> Dataset:
    """Return the data set with a box in the place of each large case among ``names``; other cases stay as they are.

    Boxes that are not known yet are chosen by :func:`autoseg.preprocessing.annotated_box.annotated_box` and written to
    ``SCORED_BOXES_FILE``. Processes that do so at the same time wait for each other.

    Parameters
    ----------
    folder
        Of the preprocessed data set.
    open_case
        Function that opens a preprocessed case, of any configuration.

    Raises
    ------
    FileFormatError, CacheError, ConfigError
        If a volume, a preprocessed case or ``SCORED_BOXES_FILE`` cannot be read; if a box there is none of the volume.
    """
    large = [files for files in map(dataset.case, names) if is_large(files)]
    boxes = _known_boxes(large, _read(folder), folder) if large else {}
    if len(boxes) == len(large):
        return _with_boxes(dataset, boxes)
    with FileLock(folder / _LOCK):
        known = _read(folder)
        boxes = _known_boxes(large, known, folder)
        chosen = {files.name: _choose(files, open_case(files.name)) for files in large if files.name not in boxes}
        for name in known.cases.keys() & chosen.keys():
            log.warning(
                "%s: the box of case %s was chosen for other labels, or is no part of the case. Another is chosen: %s. "
                "Earlier scores are of the earlier box.",
                folder / SCORED_BOXES_FILE, name, chosen[name],
            )  # fmt: skip
        if chosen:
            cases = {**known.cases, **{name: _described(dataset.case(name), box) for name, box in chosen.items()}}
            save_model(ScoredBoxes(cases=dict(sorted(cases.items()))), folder / SCORED_BOXES_FILE)
    return _with_boxes(dataset, boxes | chosen)


def with_scored_boxes(dataset: Dataset, folder: Path) -> Dataset:
    """Return the data set with a box in the place of each large case of which a box was chosen before.

    ``folder`` is that of the preprocessed data set. Raises ``FileFormatError`` if a volume cannot be opened, and
    ``ConfigError`` if ``SCORED_BOXES_FILE`` cannot be read, or a box there is none of the volume.
    """
    known = _read(folder)
    large = [files for files in dataset.cases if files.name in known.cases and is_large(files)]
    return _with_boxes(dataset, _known_boxes(large, known, folder))


def scored_spans(dataset: Dataset, scored: Dataset, names: Iterable[str]) -> dict[str, Spans]:
    """Return case -> box in its volume, for those of ``names`` of which ``scored`` has a box in the place of all."""
    parts = {name: scored.case(name).volume for name in names if scored.case(name) != dataset.case(name)}
    return {name: part.box.spans for name, part in parts.items() if part is not None and part.box is not None}


def _choose(files: CaseFiles, store: CaseStore) -> Box:
    """Return the box, in voxels of the volume, that is scored in the place of a large case."""
    own = open_volume(files.images)
    box = annotated_box(store, own.spatial_shape, own.geometry.spacing, SCORED_VOXELS)
    return box.shifted(_own_box(files).start)


def _known_boxes(large: Sequence[CaseFiles], known: ScoredBoxes, folder: Path) -> dict[str, Box]:
    return {files.name: box for files in large if (box := _known_box(files, known, folder)) is not None}


def _known_box(files: CaseFiles, known: ScoredBoxes, folder: Path) -> Box | None:
    """Return the box of a case; None if there is none for its present annotation, within its present voxels.

    Raises ``ConfigError`` if the volume has no such box: somebody wrote it, and is told, instead of having another one
    predicted.
    """
    found = known.cases.get(files.name)
    if found is None or found.annotation != _annotation(files):
        return None
    shape = open_array(files.volume.images[0] if files.volume is not None else files.images[0]).spatial_shape
    box = box_of(found.box) if all(start < stop for start, stop in found.box) else None
    if box is None or box.n_voxels > volume_size.IN_MEMORY_VOXELS or not box.is_within(shape):
        raise ConfigError(
            f"{folder / SCORED_BOXES_FILE}: case {files.name}: found the box {[list(span) for span in found.box]}, "
            f"expected [[z0, z1], [y0, y1], [x0, x1]], 1 to {volume_size.IN_MEMORY_VOXELS:,} voxels of a volume of "
            f"{shape} (z, y, x). Correct it, or remove the case from the file: a box is then chosen."
        )
    return box if box.intersection(_own_box(files)) == box else None


def _described(files: CaseFiles, box: Box) -> ScoredBox:
    return ScoredBox(box=box.spans, annotation=_annotation(files))


def _annotation(files: CaseFiles) -> str:
    return short_hash([annotation_stamp(path) for path in (files.label, files.valid_mask) if path is not None])


def _own_box(files: CaseFiles) -> Box:
    """Return the voxels of the volume that are a case."""
    if files.volume is not None and files.volume.box is not None:
        return files.volume.box
    return Box.whole(open_array(files.images[0]).spatial_shape)


def _with_boxes(dataset: Dataset, boxes: dict[str, Box]) -> Dataset:
    """Return the data set with boxes, in voxels of their volumes, in the place of some cases."""
    if not boxes:
        return dataset
    cases = (_boxed(files, boxes[files.name]) if files.name in boxes else files for files in dataset.cases)
    return replace(dataset, cases=tuple(cases))


def _boxed(files: CaseFiles, box: Box) -> CaseFiles:
    """Return the case that is a box, in voxels of the volume, of a large case."""
    part = files.volume
    if part is None:
        raise ValueError(f"case {files.name}: its files are no part of a volume")
    label, mask = (_annotation_of(location, part, box) for location in (part.label, part.valid_mask))
    inner = VolumePart(part.images, box, label, mask)
    return replace(files, images=inner.image_paths, label=inner.label_path, valid_mask=inner.mask_path, volume=inner)


def _annotation_of(location: str | None, part: VolumePart, box: Box) -> str | None:
    """Return the location of labels, or a mask, of the volume or of ``box`` alone, from that of a case."""
    if location is None or part.box is None or open_array(location, as_labels=True).spatial_shape != part.box.shape:
        return location
    return f"{location}{box.relative_to(part.box)}"


def _read(folder: Path) -> ScoredBoxes:
    path = folder / SCORED_BOXES_FILE
    if not path.is_file():
        return ScoredBoxes()
    try:
        return ScoredBoxes.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        wrong = error.errors()[:5] if isinstance(error, ValidationError) else []
        problem = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in wrong)
        raise ConfigError(
            f"{path}: found a file that cannot be read ({problem or error}), expected the boxes that are scored of "
            "cases too large for memory. Correct it, or remove it: the boxes are then chosen anew."
        ) from error
