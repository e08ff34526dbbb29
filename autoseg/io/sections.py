"""Folders of section images: one picture a section, in the natural order of their names (2 before 10)."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.dicom import conversion, dicom_folder
from autoseg.core.findings import listed
from autoseg.io.file_contents import StoredHeader, assumed_geometry, unreadable
from autoseg.io.file_formats import read_file
from autoseg.io.stored_array import StoredArray
from autoseg.io.tiled_planes import TileCache, TiledPlanes

SECTION_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")


def section_files(folder: Path) -> list[Path]:
    """Return the pictures of a folder, in natural order; hidden files and other formats are passed over."""
    pictures = (path for path in folder.iterdir() if path.suffix.lower() in SECTION_ENDINGS)
    return sorted((path for path in pictures if not path.name.startswith(".") and path.is_file()), key=natural_order)


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return a sorting key by which numbers in names count as numbers: ``s2.png`` before ``s10.png``."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)], path.name


def open_sections(folder: Path, *, as_labels: bool = False) -> StoredArray:
    """Return the volume whose sections are the pictures of a folder. Only the first is read at once.

    Raises
    ------
    FileFormatError
        If there are no pictures, or pictures of several formats. Reading a box raises it for a section that is damaged,
        or differs from the first in size, channels or type.
    """
    files = section_files(folder)
    if not files and dicom_folder(folder) is not None:
        raise unreadable(folder, "a folder of DICOM files", "one picture a section", f"{conversion(folder, '')}.")
    endings = sorted({path.suffix.lower() for path in files})
    if len(endings) != 1:
        found = f"pictures of several formats ({', '.join(endings)})" if files else "a folder without pictures"
        fix = "Keep only the sections of one volume in the folder."
        raise unreadable(folder, found, f"one picture a section ({', '.join(SECTION_ENDINGS)})", fix)
    first = _section(files[0], as_labels=as_labels)
    (n_channels, height, width), dtype = first.shape, first.dtype
    cache = TileCache()

    def made(path: Path) -> NDArray[Any]:
        section = _section(path, as_labels=as_labels)
        if section.shape != first.shape or section.dtype != dtype:
            found, expected = f"{section.shape} of {section.dtype}", f"{first.shape} of {dtype} as in {files[0].name}"
            fix = "All sections (channels, height, width) must agree: convert it."
            raise unreadable(path, found, expected, fix)
        return section

    def decode(z: int, row: int, column: int) -> NDArray[Any]:
        return cache.get(z, lambda: made(files[z]))

    shape = (n_channels, len(files), height, width)
    header = StoredHeader(shape, assumed_geometry(2 if len(files) == 1 else 3), _gaps(files))
    load = TiledPlanes(shape, (height, width), dtype, decode).read
    return StoredArray(str(folder), header, dtype, (1, height, width), load)


def _section(path: Path, *, as_labels: bool) -> NDArray[Any]:
    """Return one section (C, y, x)."""
    array = read_file(path, as_labels=as_labels).array
    if array.shape[1] != 1:
        raise unreadable(path, f"{array.shape[1]} slices", "one section", "Give this file itself as the volume.")
    if as_labels and len(array) > 1:
        fix = "Save class numbers (0, 1, 2 ...) in a grey image."
        if any(not np.array_equal(array[0], other) for other in array[1:]):
            raise unreadable(path, f"{len(array)} channels that differ", "one value per voxel", fix)
        array = array[:1]
    return array[:, 0]


def _gaps(files: list[Path]) -> tuple[str, ...]:
    """Return a remark if names that differ in one number leave out numbers between the first and the last."""
    numbers = [[int(number) for number in re.findall(r"\d+", path.stem)] for path in files]
    stems = {re.sub(r"\d+", "#", path.stem) for path in files}
    if len(stems) != 1 or not numbers[0]:
        return ()
    varying = [values for values in zip(*numbers, strict=True) if len(set(values)) > 1]
    if len(varying) != 1:
        return ()
    (values,) = varying
    steps = {after - before for before, after in pairwise(values)}
    step = min(steps)
    if len(steps) == 1 or step < 1:
        return ()
    lacking = sorted(set(range(values[0], values[-1], step)) - set(values))
    return (f"no section has the number {listed(lacking)}; the sections around it are read as neighbours",)
