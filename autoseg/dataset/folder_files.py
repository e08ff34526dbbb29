"""Files in a folder of images or labels, by their names alone: every ignored file that looks like data is reported.

The name of a case is the composed form (NFC) of its file name, since the same name can be encoded in two ways: ``ü`` as
one character, or as ``u`` and a combining character, as on macOS. Endings match in upper and lower case.
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.errors import ConfigError, Fault
from autoseg.core.findings import listed
from autoseg.core.location import FOLDER_ENDINGS

VOLUME_ENDINGS = (
    ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".dcm", ".ima", ".mgz", ".mgh", ".mnc", ".img",
    ".img.gz", ".tif", ".tiff", ".czi", ".nd2", ".lif", ".lsm", ".npy", ".npz", ".h5", ".hdf5", ".zarr", ".n5", ".mrc",
)  # fmt: skip
"""Common endings of images, including formats that autoseg cannot read."""
PICTURE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg", ".gif", ".webp")
"""Endings of 2-D images, which may also be screenshots."""
_NUMBERED = re.compile(r".+_[0-9]{3,4}(\.[^.]*[A-Za-z][^.]*){1,2}")
_MINE = re.compile(r"\.([0-9]+\.tmp\.|_)")  # temporary files of autoseg, and the files that macOS adds to every file


@dataclass(frozen=True, slots=True)
class CaseFault(Fault):
    """A fault of some cases of a folder."""

    cases: tuple[str, ...] = ()
    """Names of the cases; names of files if the case cannot be derived from them."""


def normal_name(name: str) -> str:
    """Return a name in composed Unicode form (NFC), in which names are compared and written."""
    return unicodedata.normalize("NFC", name)


def has_ending(name: str, ending: str) -> bool:
    """Whether a file name has an ending, in upper or lower case, and at least one character before it."""
    return len(name) > len(ending) and name.casefold().endswith(ending.casefold())


def stem_of(path: Path, ending: str) -> str:
    """Return the name of a file without ``ending``, in its composed form."""
    return normal_name(path.name[: -len(ending)])


def visible(folder: Path) -> list[Path]:
    """Return the entries of a folder, sorted, without hidden ones (a dot in front)."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if not entry.name.startswith("."))


def files_with(folder: Path, ending: str) -> tuple[dict[str, Path], list[CaseFault]]:
    """Return stem -> file of the files with ``ending``, and the faults: entries that are no files, and equal stems.

    Arrays that are folders (``.zarr``, ``.n5``) count as files.
    """
    files: dict[str, Path] = {}
    faults: list[CaseFault] = []
    for path in visible(folder):
        if not has_ending(path.name, ending):
            continue
        stem = stem_of(path, ending)
        is_array = ending.casefold() in FOLDER_ENDINGS and path.is_dir()
        fault = None if is_array else no_file_fault(path, stem)
        if fault is None and stem in files:
            fault = _twice(files[stem], path, stem)
        if fault is None:
            files[stem] = path
        else:
            faults.append(fault)
    return files, faults


def no_file_fault(path: Path, case: str) -> CaseFault | None:
    """Return the fault of an entry of a folder that is not a file that can be opened; None for a file."""
    if path.is_file():
        return None
    if path.is_symlink():
        found = f"a link to {path.readlink()}, which is not there"
        fix = "Bring back what it points to (is the disk mounted?), or remove the link."
    elif path.is_dir():
        found, fix = "a folder", "Move the file that lies in it up, and remove the folder."
    else:
        found, fix = "something that is no file", "Replace it by the file."
    return CaseFault(str(path), found, "a file", fix, (case,))


def _twice(first: Path, second: Path, stem: str) -> CaseFault:
    found = f"two files of one name, {first.name!a} and {second.name!a}"
    fix = "Rename or remove one: endings count the same in capital letters, as do the two ways to write an accent."
    return CaseFault(str(second.parent), found, "one", fix, (stem,))


def strays(folder: Path, ending: str) -> list[CaseFault]:
    """Return a fault for every image of another format in a folder of images with ``ending``: it would not be read.

    Not reported are sidecar files, copies of an image that also exists with ``ending``, and pictures without channel
    number in a folder of volumes.
    """
    entries = visible(folder)
    there = {stem_of(path, ending).casefold() for path in entries if has_ending(path.name, ending)}
    faults = []
    for path in entries:
        other = None if has_ending(path.name, ending) else image_ending(path.name, ending)
        if other is None or path.name[: -len(other)].casefold() in there:
            continue
        case = re.sub(r"_[0-9]{4}$", "", normal_name(path.name[: -len(other)]))
        fault = no_file_fault(path, case) if path.is_symlink() else None
        fix = f"Convert it to {ending}, or put the images that end in {other} into a folder of their own."
        expected = f"images that end in {ending}, as the others"
        faults.append(fault or CaseFault(str(path), f"an image that ends in {other}", expected, fix, (case,)))
    return faults


def image_ending(name: str, ending: str) -> str | None:
    """Return the ending of a file name that looks like an image, in a folder of images with ``ending``; else None."""
    pictures = PICTURE_ENDINGS if ending.casefold() in PICTURE_ENDINGS else ()
    for known in (*VOLUME_ENDINGS, *pictures):
        if has_ending(name, known):
            return name[-len(known) :]
    if _NUMBERED.fullmatch(name) and not name.casefold().endswith((".json", ".txt", ".csv", ".xml", ".raw", ".zraw")):
        return "".join(Path(re.sub(r".*_[0-9]{3,4}\.", "x.", name)).suffixes)
    return None


def hidden_images(folder: Path, ending: str) -> list[str]:
    """Return the names of hidden files that look like images, without a visible file of the same name; sorted."""
    names = sorted(path.name for path in folder.iterdir())
    hidden = [name for name in names if name.startswith(".") and not _MINE.match(name) and name[1:] not in names]
    return [name for name in hidden if has_ending(name, ending) or image_ending(name[1:], ending) is not None]


def folders_with_images(folder: Path, ending: str) -> list[str]:
    """Return the names of the folders in ``folder`` that contain images."""
    inner = [path for path in visible(folder) if path.is_dir()]
    return [path.name for path in inner if any(image_ending(item.name, ending) for item in visible(path))]


def passed_over(folder: Path, ending: str) -> list[str]:
    """Return lines that name the ignored images of a folder: one for hidden images, one for those in inner folders."""
    lines = []
    if hidden := hidden_images(folder, ending):
        lines.append(f"{folder}: hidden files are ignored: {listed(hidden)}. Remove the dot in front to use them")
    if inner := folders_with_images(folder, ending):
        lines.append(f"{folder}: images in inner folders are ignored: {listed(inner)}. Move them up to use them")
    return lines


def renaming(folder: Path, pairs: Iterable[tuple[str, str]], loop: str) -> str:
    """Return the shell command that renames files (old name, new name) in a folder.

    ``loop`` is a shell loop that does the same for more than two files; if it is empty, every file is named.
    """
    moves = [f"mv -n {shlex.quote(old)} {shlex.quote(new)}" for old, new in pairs]
    return f"cd {shlex.quote(str(folder))} && {loop if loop and len(moves) > 2 else ' && '.join(moves)}"


def refuse_dataset_folder(folder: Path) -> None:
    """Raise ``ConfigError`` if an output folder is a file, a data set, or its folder of images or labels."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output folder {folder}: found a file, expected a folder. Change -o.")
    target = folder.resolve()
    if (target.parent / "dataset.json").is_file() and re.match(r"(labels|images)Tr(_|$)", target.name):
        raise ConfigError(
            f"output folder {folder}: found a folder of the data set in {target.parent}, expected a folder for "
            "predictions. Change -o."
        )
    if (folder / "imagesTr").is_dir():
        raise ConfigError(
            f"output folder {folder}: found a data set in it, expected a folder for predictions. Change -o."
        )
