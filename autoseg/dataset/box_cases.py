"""Cases that are parts of volumes: the key ``boxes`` of a dataset.json, and groups of cases that share voxels."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from autoseg.core.boxes import Box
from autoseg.core.errors import FileFormatError
from autoseg.core.findings import Findings, did_you_mean, listed
from autoseg.core.location import is_location, parse_location, split_box
from autoseg.dataset.case_files import TrainingFiles, is_file_name, located
from autoseg.dataset.folder_files import normal_name
from autoseg.dataset.schema import BoxEntry, DatasetFile
from autoseg.dataset.volume_part import VolumePart

KEY = "boxes"


def find_box_cases(
    folder: Path, file: DatasetFile, others: Mapping[str, TrainingFiles], findings: Findings
) -> dict[str, TrainingFiles]:
    """Return the files of the cases of ``boxes``, sorted by name; add a fault to ``findings`` for every faulty one.

    Whether the arrays exist in the files, and hold the box, is only checked when they are read.

    Parameters
    ----------
    folder
        That of the dataset.json.
    others
        Cases with files of their own, whose names are taken.
    """
    cases: dict[str, TrainingFiles] = {}
    for given, entry in file.schema.boxes.items():
        name = normal_name(given)
        if not is_file_name(name):
            findings.fault(
                KEY, found=f"the case name {name!r}", expected="a name that files can have, without a folder or a dot "
                "in front", fix="Rename it: predictions are written under this name.",
            )  # fmt: skip
        elif name in others or name in cases:
            where = "imagesTr or dataset" if name in others else KEY
            fix = "Rename one of them."
            findings.fault(f"{KEY}.{name}", found=f"a name that {where} has, too", expected="one case a name", fix=fix)
        elif (of_case := file.schema.cases.get(given)) is not None and of_case.experts:
            findings.fault(
                f"cases.{name}.experts", found="experts of a part of a volume", expected="one label array",
                fix=f"Fuse them with autoseg_fuse_experts, name the result in {KEY}.{name}.label, and remove the key.",
            )  # fmt: skip
        elif entry is None or _is_incomplete(f"{KEY}.{given}", entry, file, findings):
            continue
        elif (part := _part(folder, f"{KEY}.{name}", entry, findings)) is not None:
            cases[name] = TrainingFiles(part.image_paths, part.label_path, volume=part)
    return dict(sorted(cases.items()))


def _is_incomplete(key: str, entry: BoxEntry, file: DatasetFile, findings: Findings) -> bool:
    """Whether an entry has no image or no label; adds a fault for each that is not there."""
    for name, value in (("image", entry.image), ("label", entry.label)):
        if not value and f"{key}.{name}" not in file.faulty:
            fix = f'Write "{name}": "volume.zarr", or where else its array lies.'
            findings.fault(f"{key}.{name}", found="no such key", expected="the location of an array", fix=fix)
    return not entry.image or not entry.label or f"{key}.box" in file.faulty or f"{key}.valid_mask" in file.faulty


def _part(folder: Path, key: str, entry: BoxEntry, findings: Findings) -> VolumePart | None:
    """Return the part of a volume that an entry names; None after a fault."""
    images = [_found(folder, f"{key}.image", text, findings) for text in entry.image]
    label = _found(folder, f"{key}.label", entry.label, findings)
    mask = None if entry.valid_mask is None else _found(folder, f"{key}.valid_mask", entry.valid_mask, findings)
    box = None
    if entry.box is not None:
        (z0, z1), (y0, y1), (x0, x1) = entry.box
        if not (z0 < z1 and y0 < y1 and x0 < x1):
            findings.fault(
                f"{key}.box", found=f"the box {entry.box} without voxels",
                expected="[[z0, z1], [y0, y1], [x0, x1]], each from the first voxel to one past the last",
                fix="Write the smaller number of each axis first.",
            )  # fmt: skip
            return None
        box = Box((z0, y0, x0), (z1, y1, x1))
    there = [image for image in images if image is not None]
    if len(there) < len(images) or label is None or (entry.valid_mask is not None and mask is None):
        return None
    return VolumePart(tuple(there), box, label, mask)


def _found(folder: Path, key: str, text: str, findings: Findings) -> str | None:
    """Return the absolute location for the text of a dataset.json; None, after a fault, without such file or folder."""
    if "://" in text:
        fix = "Copy the array here, or mount the storage."
        findings.fault(key, found=f"the address {text}", expected="a path on this machine", fix=fix)
        return None
    location = located(folder, text)
    try:
        split_box(location)
    except FileFormatError as error:
        findings.fault(key, found=error.fault.found, expected=error.fault.expected, fix=error.fault.fix)
        return None
    path, _ = parse_location(location)
    if path.exists():
        return location
    near = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    findings.fault(
        key, found=f"no file or folder {path}", expected="the location of an array: volume.zarr, cubes.h5:labels",
        fix=f"Correct the path; it starts at the folder of dataset.json.{did_you_mean(path.name, near)}",
    )  # fmt: skip
    return None


def with_volumes(files: Mapping[str, TrainingFiles]) -> dict[str, TrainingFiles]:
    """Return the files of cases; a case whose image or label is an array of a volume is all of that volume."""

    def of(case: TrainingFiles) -> TrainingFiles:
        paths = (*case.images, *(() if case.label is None else (case.label,)))
        if case.volume is not None or not any(map(is_location, paths)):
            return case
        label = None if case.label is None else str(case.label)
        return replace(case, volume=VolumePart(tuple(map(str, case.images)), label=label))

    return {name: of(case) for name, case in files.items()}


def grouped(
    files: Mapping[str, TrainingFiles], stated: Mapping[str, str | None], findings: Findings
) -> dict[str, str | None]:
    """Return case -> group. Parts of one volume without a stated group get the volume as their group.

    They are alike, so that scores of one part would be too high if another was trained on. If all cases of the data set
    are parts of one volume, each is a group of its own, since there would be no folds otherwise; a warning says so.
    Parts that overlap always share a group, with those of both groups: a voxel that is trained on is no test.

    Parameters
    ----------
    stated
        Case -> group of the dataset.json; None for cases that have none there.
    """
    parts = {name: of_case.volume for name, of_case in files.items() if of_case.volume is not None}
    groups = {name: stated.get(name) for name in files}
    if not parts:
        return groups
    shared = {name for name in parts if _n_parts(parts, parts[name]) > 1}
    names = _short_names({part.images[0] for part in parts.values()})
    is_one = len({part.images for part in parts.values()}) == 1
    if len(parts) == len(files) > 1 and is_one and not any(groups.values()):
        (volume,) = names.values()
        findings.warn(
            KEY, f"all cases are parts of {volume}, so each is a group of its own, and scores say little about other "
            "volumes. Annotate a part of another volume, or write cases.<name>.group",
        )  # fmt: skip
    else:
        groups |= {name: names[parts[name].images[0]] for name in shared if groups[name] is None}
    overlapping = [pair for pair in combinations(sorted(parts), 2) if parts[pair[0]].overlaps(parts[pair[1]])]
    joined = [f"{first} and {second}" for first, second in overlapping if _join(groups, first, second)]
    if joined:
        findings.warn(KEY, f"parts that overlap are kept in one fold: {listed(joined)}")
    return groups


def _short_names(locations: Set[str]) -> dict[str, str]:
    """Return location -> its end: file and array, and as many folders as tell all apart (A/v.zarr, B/v.zarr).

    A shorter name, such as that of the array, is often the same in every volume, which would make them one group.
    """
    split = {location: parse_location(location) for location in locations}
    for n_parts in range(1, max((len(path.parts) for path, _ in split.values()), default=0) + 1):
        names = {
            location: "/".join(path.parts[-n_parts:]) + (f":{array}" if array else "")
            for location, (path, array) in split.items()
        }
        if len(set(names.values())) == len(names):
            return names
    return {location: location for location in locations}


def _n_parts(parts: Mapping[str, VolumePart], part: VolumePart) -> int:
    return sum(other.images == part.images for other in parts.values())


def _join(groups: dict[str, str | None], first: str, second: str) -> bool:
    """Give two overlapping parts, and the cases of their groups, one group; whether they had others."""
    before = groups[first], groups[second]
    if before[0] is not None and before[0] == before[1]:
        return False
    joint = before[0] or before[1] or f"overlap of {first} and {second}"
    members = [name for name, group in groups.items() if group is not None and group in before]
    for name in (*members, first, second):
        groups[name] = joint
    return True
