"""What every file format hands over: the stored values, and how a file that cannot be read is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.core.dicom import conversion, dicom_folder
from autoseg.core.errors import Fault, FileFormatError
from autoseg.core.geometry import ASSUMED, FLAT_SPACING, Geometry

Shape4 = tuple[int, int, int, int]
Spacing = tuple[float, float, float]


class StoredImage(NamedTuple):
    """One file as it is stored: values in the file's own type, NaN and Inf kept."""

    array: NDArray[Any]
    """(C, z, y, x), any real type; may be read-only."""
    geometry: Geometry


class StoredHeader(NamedTuple):
    """What a file says about itself before its voxels are read."""

    shape: Shape4
    """(C, z, y, x)."""
    geometry: Geometry
    remarks: tuple[str, ...] = ()
    """What is strange about the file though it can be read, each a clause without its name."""
    unknown_size: str = ""
    """Why the size of its voxels is not known, and what to do; empty if it is known, or is never in such a file."""


def unreadable(path: Path, found: str, expected: str, fix: str) -> FileFormatError:
    """Return the error that says what is wrong with one file."""
    return FileFormatError(Fault(where=str(path), found=found, expected=expected, fix=fix))


def check_file(path: Path) -> int:
    """Return the size of a file in bytes; raise ``FileFormatError`` if it is missing, a folder or empty."""
    if path.is_dir() and dicom_folder(path) is not None:
        raise unreadable(path, "a folder of DICOM files", "an image file", conversion(path, "") + ".")
    if path.is_dir():
        raise unreadable(path, "a folder", "a file", "Give the path of the image file itself.")
    if not path.is_file():
        raise unreadable(path, "no such file", "an image file", "Check the path and the spelling of the name.")
    size = path.stat().st_size
    if size == 0:
        raise unreadable(path, "an empty file (0 bytes)", "image data", "Copy or export the file again.")
    return size


def flat_spacing(y: float, x: float) -> Spacing:
    """Return the spacing (z, y, x) of a 2-D image: z is 999 times the larger pixel edge. Source: nnU-Net's readers."""
    return (FLAT_SPACING * max(y, x), y, x)


def assumed_geometry(ndim: int) -> Geometry:
    """Return the geometry of a file that does not say how large its voxels are: 1 mm, marked as assumed."""
    spacing = flat_spacing(1.0, 1.0) if ndim == 2 else (1.0, 1.0, 1.0)
    return Geometry(spacing=spacing, ndim=ndim, metadata={"spacing": ASSUMED})


def orientation_remark(orientation: object) -> tuple[str, ...]:
    """Say that a picture is to be shown turned or mirrored (tag Orientation of TIFF and EXIF), which no array is."""
    if orientation in (1, None, 0):
        return ()
    return (
        f"the file asks viewers to turn or mirror it (orientation {orientation}); it is taken as stored, and its label "
        "file must be stored alike",
    )


def without_alpha(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Return a label file (C, z, y, x) without its last channel, opacity.

    Raises ``FileFormatError`` if opacity tells voxels apart that are alike in the other channels.
    """
    *values, alpha = array
    if alpha.min() != alpha.max():
        keys = np.stack([channel.ravel() for channel in values])
        without = np.unique(keys, axis=1).shape[1]
        if np.unique(np.concatenate([keys, alpha.reshape(1, -1)]), axis=1).shape[1] != without:
            found = "an alpha channel that differs among voxels of one value"
            fix = "Save class numbers (0, 1, 2 ...) in a grey image; mark what is not annotated by a value of its own."
            raise unreadable(path, found, "one value per voxel", fix)
    return array[:-1]


def smallest_unsigned(labels: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Return labels as contiguous uint8 if the largest value is below 256, else uint16; ``ValueError`` above 65535."""
    largest = int(labels.max()) if labels.size else 0
    if largest > np.iinfo(np.uint16).max:
        raise ValueError(f"largest label {largest}, expected at most 65535")
    return np.ascontiguousarray(labels, dtype=np.uint8 if largest < 256 else np.uint16)
