"""Freshness of a cached case: whether it is what its sources and settings would give now, and why not."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoseg.annotation.reach import resolve_reach
from autoseg.cases.case import CaseRecord
from autoseg.cases.entry import VolumeArrays
from autoseg.core.location import parse_location, path_of, split_box
from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels, undrawn_set
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.io.companions import companions, content_files
from autoseg.preprocessing.context import TRAINED_CONTEXT

PREPROCESSING_VERSION = 4
"""Number to be raised when the same input gives another cache."""
RULES = 2
"""Number to be raised when the same promises leave other classes."""
NO_PROMISE = AnnotationProtocol()

REASONS = {
    "version": "written by another version of autoseg",
    "plan": "plan changed",
    "labels": "dataset.json changed what the labels mean",
    "image": "image file changed",
    "label": "label file changed",
    "mask": "valid mask changed",
    "previous": "prediction of the previous stage changed",
    "protocol": "annotation_protocol, or what is estimated for it, changed",
}
"""Part of a fingerprint -> why a case is stale if that part differs. A part that a case does not need is left out."""


def case_fingerprint(
    files: CaseFiles,
    labels: Labels,
    plan: Plan,
    configuration: Configuration,
    *,
    protocol: AnnotationProtocol = NO_PROMISE,
    previous: Path | None = None,
) -> str:
    """Return the fingerprint of a case: ``part:hash`` for each part of ``REASONS``, joined by ``;``.

    A file counts with its name, size and time of modification, not with its content, because reading a data set only to
    see that nothing changed would take minutes. So a file that is rewritten with the same content is preprocessed
    again, and a change within the same size and time stamp is not noticed. Of dataset.json and of the plan, only what
    affects the cache counts. A missing file has a fingerprint, too, and raises nothing.

    Parameters
    ----------
    protocol
        Promises that narrow the annotation; if there are none, this part is left out.
    previous
        Label map that the previous stage of a cascade predicted of the case; None leaves this part out.
    """
    has_context = files.volume is not None and files.volume.box is not None
    decided = _plan_part(plan, configuration)
    parts: dict[str, Any] = {
        "version": PREPROCESSING_VERSION,
        "plan": [decided, TRAINED_CONTEXT, configuration.patch_size] if has_context else decided,
        "labels": _labels_part(labels, files.name),
        "image": [file_stamp(path) for path in files.images],
        "label": None if files.label is None else annotation_stamp(files.label),
    }
    if files.valid_mask is not None:
        parts["mask"] = annotation_stamp(files.valid_mask)
    if previous is not None:
        parts["previous"] = file_stamp(previous)
    promises = protocol_part(protocol, labels.n_classes)
    if promises is not None:
        parts["protocol"] = promises
    return ";".join(f"{part}:{short_hash(parts[part])}" for part in REASONS if part in parts)


def protocol_part(protocol: AnnotationProtocol, n_classes: int) -> list[Any] | None:
    """Return everything of a protocol that a cached case depends on, JSON values; None if it promises nothing there.

    A further promise is listed here, so that cases that were cached without it are made again.
    """
    reach = resolve_reach(protocol, n_classes)
    if not (protocol.depends_on_slices or protocol.classes_complete_in or reach):
        return None
    axis = protocol.slice_axis if protocol.depends_on_slices else None
    encloses = protocol.gap_mm if protocol.background_encloses else None
    return [RULES, protocol.classes_complete_in, encloses, axis, sorted(reach.items())]


def staleness(present: str, expected: str) -> str | None:
    """Return why a case whose fingerprint is ``present`` is stale if ``expected`` is needed; None if it is fresh."""
    if present == expected:
        return None
    before, after = _split(present), _split(expected)
    reasons = [reason for part, reason in REASONS.items() if before.get(part) != after.get(part)]
    return ", ".join(reasons) or REASONS["version"]


def other_order(record: CaseRecord, plan: Plan) -> str | None:
    """Return why a cached case is stale because its voxel order would now be changed differently; None if it is fresh.

    The record of the case decides, not a hash. So a case that needs no change stays fresh, whatever order the other
    cases are brought to.
    """
    return None if record.voxel_order == plan.voxel_order(record.geometry) else REASONS["plan"]


def moved_image(volume: VolumeArrays | None, files: CaseFiles) -> str | None:
    """Return why a cached case is stale because the volume that its image is read from lies elsewhere; None if not.

    Other caches hold all of their voxels, and their data sets can be moved. Codes that are there are not made again.
    """
    if volume is None or volume.image is None or files.volume is None:
        return None
    there = {path_of(location) for location in files.volume.images}
    return None if {path_of(location) for location in volume.image.locations} == there else REASONS["image"]


def _plan_part(plan: Plan, configuration: Configuration) -> Any:
    intensities = [
        list(plan.intensities[index].model_dump().values()) if scheme == "ct" else None
        for index, scheme in enumerate(configuration.normalization)
    ]
    decided: list[Any] = [
        plan.transpose_forward,
        configuration.spacing,
        configuration.normalization,
        configuration.use_mask_for_norm,
        intensities,
    ]
    if plan.targets:
        decided.append([[target.mean, target.scale] for target in plan.targets])
    return decided if plan.crop else [*decided, "not cropped"]


def _labels_part(labels: Labels, case: str) -> Any:
    sets = [[value, sorted(members)] for value, members in sorted(labels.sets_by_value(case).items())]
    # is_dense: what is said of one case makes padding unknown in all; the last: what a mask leaves open
    part: list[Any] = [labels.n_classes, sets, labels.is_dense, sorted(undrawn_set(labels, case))]
    if labels.value_weights:
        part.append(sorted(labels.value_weights.items()))
    if labels.instances is not None:
        part.append(["instances", labels.instances.per_class, labels.class_values, labels.unlabelled])
    return [*part, labels.targets, labels.no_number] if labels.targets else part


def file_stamp(path: Path) -> Sequence[Any]:
    """Return name, size and time of modification of a file without reading it; only its name if it does not exist.

    The name is that of the file and of its folder, so that a data set can be moved. A sidecar, and the data file of a
    header, count, too. Of a location, the name of the array and the box also count; of a folder, its time of
    modification and its files: the pictures of sections, the metadata of Zarr, N5 and Precomputed. Of tiles the JSON
    file and the folders of tiles count. So a voxel that is changed in a chunk or in a tile is not noticed, see
    :func:`annotation_stamp`.
    """
    location, box = split_box(path)
    file, name = parse_location(location)
    inside = [[name, str(box)]] if name or box is not None else []
    return [*(_stamp(part) for part in (file, *companions(file))), *inside]


def case_stamps(files: CaseFiles) -> list[Sequence[Any]]:
    """Return the stamps of all files of a case."""
    annotation = [path for path in (files.label, files.valid_mask) if path is not None]
    return [*map(file_stamp, files.images), *map(annotation_stamp, annotation)]


def annotation_stamp(path: Path) -> Sequence[Any]:
    """Return the stamp of a label file or mask: that of :func:`file_stamp` and, of a volume, of every chunk or tile.

    Annotators correct a volume in place, which changes no metadata. An image may have millions of chunks, but is
    rarely changed in place. A stamp that took long is used again for ten times as long, since the boxes of a volume
    often have one array of labels.
    """
    whole, _ = split_box(path)
    file, name = parse_location(whole)
    inner = file / name.strip("/") if file.is_dir() else file
    return [*file_stamp(path), *_contents(inner if inner.exists() else file)]


_known: dict[Path, tuple[float, Sequence[Any]]] = {}
"""Folder or tile JSON -> until when (monotonic, s) the stamp of its content is used, and that stamp."""


def _contents(path: Path) -> Sequence[Any]:
    """Return number and hash of names, sizes and times of modification of the files that hold voxels; [] if none."""
    start = time.monotonic()
    until, stamp = _known.get(path, (0.0, []))
    if start < until:
        return stamp
    lines = []
    for file in content_files(path):
        with suppress(OSError):  # removed meanwhile
            status = file.stat()
            name = os.path.relpath(file.path if isinstance(file, os.DirEntry) else file, path)
            lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    stamp = [len(lines), short_hash(sorted(lines))] if lines else []
    end = time.monotonic()
    _known[path] = (end + 10 * (end - start), stamp)
    return stamp


def _stamp(path: Path) -> Sequence[Any]:
    name = "/".join(path.parts[-2:])
    try:
        status = path.stat()
    except OSError:
        return [name]
    return [name, 0 if stat.S_ISDIR(status.st_mode) else status.st_size, status.st_mtime_ns]


def short_hash(value: Any) -> str:
    """Return a hash of a value that JSON can hold, as 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _split(fingerprint: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in fingerprint.split(";") if ":" in part)
