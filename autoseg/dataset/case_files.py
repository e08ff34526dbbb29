"""Search for the image and label files of cases, in training data and in folders to predict.

Source: nnU-Net v2 ``utilities/utils.py`` and ``documentation/dataset_format.md``: images are ``<case>_<CCCC><ending>``
with a four-digit channel number from 0000, labels ``<case><ending>``; one file may hold several channels. Differs in
that a gap in the channel numbers, a label without image and a name without channel number are faults.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from autoseg.core.dicom import conversion, dicom_folder
from autoseg.core.errors import Fault
from autoseg.core.findings import Findings, listed
from autoseg.core.location import FOLDER_ENDINGS, is_location, path_of
from autoseg.dataset.folder_files import (
    CaseFault,
    files_with,
    folders_with_images,
    has_ending,
    normal_name,
    passed_over,
    stem_of,
    strays,
    visible,
)
from autoseg.dataset.name_faults import number_faults, unpaired_faults
from autoseg.dataset.schema import MASK_FOLDER, DatasetSchema, ListedCase
from autoseg.dataset.volume_part import VolumePart

_log = logging.getLogger(__name__)

NO_EXPERTS: Mapping[str, tuple[tuple[str, Path], ...]] = MappingProxyType({})
_NUMBERED = re.compile(r"(.+)_([0-9]{4})")


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """Image and label files of one training case."""

    images: tuple[Path, ...]
    """Image files in channel order."""
    label: Path | None
    """None if it is to be fused from the masks of experts."""
    experts: tuple[tuple[str, Path], ...] = ()
    """Experts and their masks, sorted by name."""
    volume: VolumePart | None = None
    """The part of a volume that is the case; then ``images`` and ``label`` are its locations."""

    def label_name(self, case: str, ending: str) -> str:
        """Return the name of the label file, in normal form (NFC); that which it would have if there is none."""
        return normal_name(f"{case}{ending}" if self.label is None else self.label.name)


Experts = Mapping[str, tuple[tuple[str, Path], ...]]
"""Case -> experts and their masks, sorted by name."""


def find_experts(folder: Path, schema: DatasetSchema, findings: Findings) -> Experts:
    """Return the masks of the cases that have ``experts``; add a fault to ``findings`` for every missing file.

    ``folder`` is that of the dataset.json.
    """
    cases: dict[str, tuple[tuple[str, Path], ...]] = {}
    for name, entry in schema.cases.items():
        paths = {} if entry is None else {
            expert: resolved_path(folder, text) for expert, text in entry.experts.items() if text is not None
        }  # fmt: skip
        for expert, path in paths.items():
            if not path.is_file():
                found = f"{'a folder' if path.is_dir() else 'no file'} {path}"
                fix = "Correct the path (it starts at the folder of dataset.json), or remove the expert."
                findings.fault(
                    f"cases.{name}.experts.{expert}", found=found, expected="the expert's mask of the case", fix=fix
                )
        if paths:
            cases[normal_name(name)] = tuple(sorted(paths.items()))
    lonely = [case for case, masks in cases.items() if len(masks) == 1]
    if lonely:
        findings.warn("cases", f"one expert only, whose mask is taken as it is, in {listed(lonely)}")
    return cases


def find_image_cases(folder: Path, ending: str, n_channels: int) -> tuple[dict[str, tuple[Path, ...]], list[CaseFault]]:
    """Return the image files of each case in ``folder``, cases sorted by name, and the faults of all other files.

    Files with other endings and hidden files are ignored (``autoseg.dataset.folder_files.strays`` finds those that look
    like images). Every other file is in a case or in a fault. A case may have fewer files than ``n_channels`` if its
    files hold several channels each; that is checked when they are read. A folder without any case is a fault.

    Parameters
    ----------
    folder
        Folder with ``<case>_<CCCC><ending>``.
    ending
        Ending with its dot, as in ``file_ending`` of the dataset.json; upper and lower case are the same.
    n_channels
        Number of declared channels.
    """
    if not folder.is_dir():
        expected = f"a folder with images <case>_0000{ending}"
        found = "a file" if folder.is_file() else "no such folder"
        fix = f"Give the folder that it lies in, {folder.parent}." if folder.is_file() else (
            "Check the path, or create the folder."
        )  # fmt: skip
        return {}, [CaseFault(str(folder), found, expected, fix)]
    files, faults = files_with(folder, ending)
    faults = [replace(fault, cases=tuple(_case_of(stem) for stem in fault.cases)) for fault in faults]
    broken = {case for fault in faults for case in fault.cases}
    numbered: dict[str, dict[int, Path]] = {}
    unnumbered: dict[str, Path] = {}
    for stem, path in files.items():
        match = _NUMBERED.fullmatch(stem)
        if match:
            numbered.setdefault(match[1], {})[int(match[2])] = path
        else:
            unnumbered[stem] = path
    faults += number_faults(folder, unnumbered, ending, n_channels)
    if not numbered and not faults:
        faults.append(_no_files(folder, f"<case>_0000{ending}", "image"))
    one_file_per_channel = any(len(channels) == n_channels for channels in numbered.values())
    cases: dict[str, tuple[Path, ...]] = {}
    for case in sorted(numbered.keys() - broken):
        channels = numbered[case]
        fault = _channel_fault(folder, case, sorted(channels), ending, n_channels, one_file_per_channel)
        if fault is None:
            cases[case] = tuple(channels[number] for number in sorted(channels))
        else:
            faults.append(fault)
    return cases, faults


def find_training_cases(
    folder: Path,
    listed_cases: Mapping[str, ListedCase | None] | None,
    ending: str,
    n_channels: int,
    findings: Findings,
    experts: Experts = NO_EXPERTS,
) -> dict[str, TrainingFiles]:
    """Return the files of every training case, sorted by name; add a fault to ``findings`` for every missing file.

    They come from ``listed_cases``, the list ``dataset`` of the dataset.json; if that is None, from imagesTr and
    labelsTr (``labelsTr_x`` for a ``dataset_x.json`` if that folder exists). A case with ``experts`` needs no label
    file; if there is one it is not read, and a warning says so.
    """
    if listed_cases is not None:
        return _fused(_listed_cases(folder, listed_cases, ending, findings, experts), experts, findings)
    images, faults = find_image_cases(folder / "imagesTr", ending, n_channels)
    if images:
        faults += strays(folder / "imagesTr", ending)
    findings.faults.extend(faults)
    named = (Path(case) for fault in faults for case in fault.cases)
    broken = {stem_of(case, ending) if has_ending(case.name, ending) else case.name for case in named}
    label_folder = folder / label_folder_name(folder, findings.file)
    is_needed = not images or bool(images.keys() - experts.keys())
    if not label_folder.is_dir() and is_needed:
        findings.faults.append(
            Fault(
                str(label_folder), "no such folder", f"label files <case>{ending}", "Create it with one file per case."
            )
        )
        return {}
    for place in (folder / "imagesTr", label_folder):
        for line in passed_over(place, ending) if place.is_dir() else ():
            _log.info("%s", line)
    labels, label_faults = files_with(label_folder, ending) if label_folder.is_dir() else ({}, [])
    findings.faults.extend(label_faults)
    broken |= {case for fault in label_faults for case in fault.cases}
    if images and not labels and not label_faults and is_needed:
        findings.faults.append(_no_files(label_folder, f"<case>{ending}", "label"))
        return {}
    without_label = {case: images[case] for case in sorted(images.keys() - labels.keys() - broken - experts.keys())}
    without_image = {case: labels[case] for case in sorted(labels.keys() - images.keys() - broken)}
    findings.faults.extend(
        unpaired_faults(without_label, without_image, label_folder, ending, taken=labels.keys() - without_image.keys())
    )
    known = images.keys() & (labels.keys() | experts.keys())
    return _fused({case: TrainingFiles(images[case], labels.get(case)) for case in sorted(known)}, experts, findings)


def _fused(files: Mapping[str, TrainingFiles], experts: Experts, findings: Findings) -> dict[str, TrainingFiles]:
    """Return the files of cases, without label where there are experts; warn of label files that are not read."""
    unread = [case for case, of_case in files.items() if case in experts and of_case.label is not None]
    if unread:
        findings.warn("cases", f"the label file is not read, because the case has experts, of {listed(unread)}")
    return {
        case: TrainingFiles(of_case.images, None, experts[case]) if case in experts else of_case
        for case, of_case in files.items()
    }


def find_masks(
    folder: Path, mask_folder_name: str, cases: Mapping[str, TrainingFiles], ending: str, findings: Findings
) -> dict[str, Path]:
    """Return case -> valid mask, named as the label file; add a fault to ``findings`` for every missing mask.

    ``mask_folder_name`` is ``valid_mask_folder`` of the dataset.json.
    """
    mask_folder = resolved_path(folder, mask_folder_name)
    names = Counter(files.label_name(case, ending) for case, files in cases.items())
    expected = f"one mask per case, named as its label file (<case>{ending}), 0 where nothing is annotated"
    label_folders = {files.label.parent for files in cases.values() if files.label is not None}
    if not mask_folder.is_dir() or any(folder.samefile(mask_folder) for folder in label_folders):
        found = f"{mask_folder_name!r}, {'the folder of the label files' if mask_folder.is_dir() else 'no folder'}"
        fix = f"Correct the path (it starts at {folder}), or remove the key."
        findings.fault(MASK_FOLDER, found=found, expected=f"a folder with {expected}", fix=fix)
        return {}
    masks_there = [path for path in visible(mask_folder) if path.is_file() or path.suffix in FOLDER_ENDINGS]
    there = {normal_name(path.name): path for path in masks_there}
    masks = {}
    for case, files in cases.items():
        name = files.label_name(case, ending)
        if name in there and names[name] == 1:
            masks[case] = there[name]
            continue
        found = "no mask" if names[name] == 1 else f"{names[name]} cases whose label files have this name"
        fix = "Add it; where all of the case is annotated, every voxel of the mask is 1."
        findings.faults.append(Fault(f"{mask_folder / name} of case {case!r}", found, expected, fix))
    for name, path in there.items():
        if has_ending(name, ending) and name not in names:
            fix = "Add image and label of the case, correct the name, or remove the mask."
            findings.faults.append(Fault(str(path), "a mask without case", "the name of a label file", fix))
    return masks


def label_folder_name(folder: Path, json_name: str) -> str:
    """Return the folder of the label files that belong to a dataset.json: ``labelsTr``, or its variant.

    A folder may hold several annotations of the same images: ``dataset_scribble.json`` goes with
    ``labelsTr_scribble`` if that exists.
    """
    _, _, variant = Path(json_name).stem.partition("dataset_")
    return f"labelsTr_{variant}" if variant and (folder / f"labelsTr_{variant}").is_dir() else "labelsTr"


def _channel_fault(
    folder: Path, case: str, numbers: list[int], ending: str, n_channels: int, one_file_per_channel: bool
) -> CaseFault | None:
    """Return the fault of the channel numbers of a case, or None."""
    where = f"{folder}: case {case!r}"
    found = f"channel files {listed([f'{number:04d}' for number in numbers], 10)}"
    missing = sorted(set(range(max(numbers))) - set(numbers))
    if missing:
        expected = "channel numbers from 0000 without gaps"
        return CaseFault(
            where, found, expected, f"Add {case}_{missing[0]:04d}{ending}, or number the files from 0000.", (case,)
        )
    if len(numbers) > n_channels:
        expected = f"{n_channels} channels, as in channel_names"
        return CaseFault(where, found, expected, "Declare all channels in channel_names, or remove the files.", (case,))
    if one_file_per_channel and len(numbers) < n_channels:
        expected = f"{n_channels} files, as in channel_names and as other cases have"
        return CaseFault(where, found, expected, f"Add {case}_{len(numbers):04d}{ending}, or remove the case.", (case,))
    return None


def _case_of(stem: str) -> str:
    """Return the case of an image file, given the name of the file without ending."""
    match = _NUMBERED.fullmatch(stem)
    return match[1] if match else stem


def _no_files(folder: Path, pattern: str, kind: str) -> CaseFault:
    slices = dicom_folder(folder)
    if slices is not None:
        ending = _ending(pattern)
        return CaseFault(str(slices), "DICOM files", f"{kind} files {pattern}", conversion(slices, ending) + ".")
    there = Counter(_ending(path.name) for path in visible(folder) if path.is_file())
    found = (
        listed(f"files ending in {ending!r} ({count})" for ending, count in there.most_common()) if there else "nothing"
    )
    fix = f"Put the {kind}s there, or correct file_ending in dataset.json."
    if inner := folders_with_images(folder, pattern.rpartition(">")[2].removeprefix("_0000")):
        places = listed(str(folder / name) for name in inner)
        fix = f"Give one of the folders that hold images, {places}." if inner[1:] else f"The images lie in {places}."
    return CaseFault(str(folder), found, f"at least one case, {kind} files {pattern}", fix)


def _ending(name: str) -> str:
    suffixes = Path(name).suffixes
    return "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def _listed_cases(
    folder: Path, section: Mapping[str, ListedCase | None], ending: str, findings: Findings, experts: Experts
) -> dict[str, TrainingFiles]:
    """Return the files of the cases that ``dataset`` lists; an entry is None after a fault, and is left out."""
    cases: dict[str, TrainingFiles] = {}
    for given, entry in section.items():
        case = normal_name(given)
        if not is_file_name(case):
            findings.fault(
                "dataset", found=f"the case name {case!r}", expected="a name that files can have, without a folder "
                "or a dot in front", fix="Rename it; only the paths of images and labels may hold folders.",
            )  # fmt: skip
            continue
        if entry is None:
            continue
        if entry.label is None and case not in experts:
            fix = f"Add its path, or experts to cases.{case}."
            findings.fault(f"dataset.{case}", found="no label", expected="the path of a label file", fix=fix)
            continue
        texts = entry.images if entry.label is None else (*entry.images, entry.label)
        paths = [resolved_path(folder, text) for text in texts]
        missing = [path for path in paths if not _is_there(path)]
        for path in missing:
            found, expected = f"no file {path}", "an existing file"
            fix = "Correct the path; relative paths start at the folder of dataset.json."
            if dicom_folder(path) is not None:
                found, expected, fix = (
                    f"a folder of DICOM files, {path}",
                    "an image file",
                    conversion(path, ending) + ".",
                )
            findings.fault(f"dataset.{case}", found=found, expected=expected, fix=fix)
        if not missing:
            n_images = len(entry.images)
            cases[case] = TrainingFiles(tuple(paths[:n_images]), None if entry.label is None else paths[n_images])
    return dict(sorted(cases.items()))


def _is_there(path: Path) -> bool:
    """Whether a file, or the file or folder of an array, exists; a folder of DICOM files is no array."""
    if not is_location(path):
        return path.is_file()
    file = path_of(path)
    return file.is_file() or (file.is_dir() and dicom_folder(file) is None)


def is_file_name(name: str) -> bool:
    """Whether a case may have this name: files named after it stay in their folder and are not hidden."""
    return bool(name.strip()) and not name.startswith(".") and not {*"/\\\0"} & {*name}


def located(folder: Path, text: str) -> str:
    """Return a location of a dataset.json as an absolute one; see :func:`resolved_path`."""
    return os.path.normpath(resolved_path(folder, text))


def resolved_path(folder: Path, text: str) -> Path:
    """Return a path with ``$VARIABLE`` and ``~`` expanded; a relative path starts at the folder of the dataset.json."""
    return folder / Path(os.path.expandvars(text)).expanduser()
