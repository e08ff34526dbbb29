"""Locations of arrays as text: a path, the name of an array in the file or folder, and a box of its voxels."""

from __future__ import annotations

import re
from pathlib import Path

from autoseg.core.boxes import Box
from autoseg.core.errors import Fault, FileFormatError

HDF5_ENDINGS = (".h5", ".hdf5", ".hdf")
FOLDER_ENDINGS = (".zarr", ".n5")
ARRAY_ENDINGS = (*HDF5_ENDINGS, ".npy", *FOLDER_ENDINGS)
"""Endings of arrays that are no image files: of files, and of folders, which may also have no ending."""
_LIKE_BOX = re.compile(r".+\[[-\d\s:,]*:[-\d\s:,]*\]")
"""What was meant as a box: numbers and at least one colon in brackets at the end."""
_BOX = re.compile(r"(.+)\[\s*(\d+):(\d+)\s*,\s*(\d+):(\d+)\s*,\s*(\d+):(\d+)\s*\]")


def parse_location(location: str | Path) -> tuple[Path, str]:
    """Split ``PATH:NAME`` into the path and the name of an array in it; the name is "" if there is none.

    A path that exists is never split, nor a drive letter of Windows from its path.
    """
    text = str(location)
    if "://" in text:
        fix = "Copy the array here, or mount the storage."
        raise FileFormatError(Fault(text, "an address", "a path on this machine", fix))
    path, colon, name = text.rpartition(":")
    is_drive = len(path) == 1 and name[:1] in ("/", "\\")
    return (Path(text), "") if not colon or is_drive or Path(text).exists() else (Path(path), name)


def split_box(location: str | Path) -> tuple[str, Box | None]:
    """Split ``volume.zarr:raw[0:30, 64:128, 0:64]`` into the location and the box (z, y, x); None without a box.

    A path that exists is never split. Raises ``FileFormatError`` if the box ends before it starts, or has not two
    numbers of at least 0 for each of three axes.
    """
    text = str(location)
    match = _BOX.fullmatch(text)
    if Path(text).exists():
        return text, None
    if match is None:
        if _LIKE_BOX.fullmatch(text):
            expected = "[z0:z1, y0:y1, x0:x1] in voxels from 0, one past the last"
            raise FileFormatError(Fault(text, f"the box {text[text.rindex('[') :]}", expected, "Correct the box."))
        return text, None
    z0, z1, y0, y1, x0, x1 = map(int, match.groups()[1:])
    try:
        return match[1], Box((z0, y0, x0), (z1, y1, x1))
    except ValueError as error:
        fix = "Write the smaller number of each axis first."
        raise FileFormatError(Fault(text, str(error), "[z0:z1, y0:y1, x0:x1]", fix)) from error


def path_of(location: str | Path) -> Path:
    """Return the file or folder of a location, without the name of an array in it and without box, or box of a box."""
    whole, box = split_box(location)
    return parse_location(whole)[0] if box is None else path_of(whole)


def is_location(path: str | Path) -> bool:
    """Whether a path names an array, or a box of one, rather than an ordinary image file."""
    text = str(path)
    return (
        text.lower().endswith((*ARRAY_ENDINGS, ".json"))
        or split_box(text)[1] is not None
        or bool(parse_location(text)[1])
        or Path(text).is_dir()
    )
