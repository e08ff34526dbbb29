"""Content of an image file, in the form that the reader of every format returns, and errors about unreadable files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.core.dicom import conversion, dicom_folder
from autoseg.core.errors import Fault, FileFormatError
from autoseg.core.geometry import ASSUMED, FLAT_SPACING, Geometry

Shape4 = tuple[int, int, int, int]
Spacing = tuple[float, float, float]
UNEVEN_EDGES = 50
"""Ratio of the longest to the shortest edge of a voxel above which a wrong unit is suspected."""


class StoredImage(NamedTuple):
    """Voxels and geometry of one file: values in the file's own type, NaN and Inf kept."""

    array: NDArray[Any]
    """(C, z, y, x), any real data type; may be read-only."""
    geometry: Geometry


class StoredHeader(NamedTuple):
    """Shape, geometry and oddities of a file, known from its header alone."""

    shape: Shape4
    """(C, z, y, x)."""
    geometry: Geometry
    remarks: tuple[str, ...] = ()
    """Oddities of a file that can be read all the same. Each is a clause that does not repeat the file's name."""
    unknown_size: str = ""
    """Reason why the voxel size is unknown, and what to do. Empty if it is known, or if the format never states it."""


def remarks_on(header: StoredHeader, *, as_labels: bool = False) -> tuple[str, ...]:
    """Return the remarks on a header, without repetition; for labels without those on the voxel size."""
    if as_labels:
        return header.remarks
    unknown = (header.unknown_size,) if header.unknown_size else ()
    return tuple(dict.fromkeys((*header.remarks, *unknown, *_uneven(header.shape[1:], header.geometry))))


def _uneven(shape: Sequence[int], geometry: Geometry) -> tuple[str, ...]:
    """Return a remark if the voxel edges of a volume differ so much that one is probably in another unit.

    ``shape`` is (z, y, x); axes of one voxel are ignored. 2-D images get no remark.
    """
    edges = [edge for edge, length in zip(geometry.spacing, shape, strict=True) if length > 1]
    if geometry.ndim == 2 or not edges or max(edges) <= UNEVEN_EDGES * min(edges):
        return ()
    z, y, x = geometry.spacing
    return (
        f"voxels are {z:.4g} x {y:.4g} x {x:.4g} mm (z, y, x), edges that differ by a factor of "
        f"{max(edges) / min(edges):.3g}. If one of them is in another unit, correct it",
    )


def unreadable(path: Path, found: str, expected: str, fix: str) -> FileFormatError:
    """Return the error for a file that cannot be read or written: content ``found``, ``expected`` content, remedy."""
    return FileFormatError(Fault(where=str(path), found=found, expected=expected, fix=fix))


def check_file(path: Path) -> int:
    """Return the size of a file in bytes. Raise ``FileFormatError`` if it is missing, a folder or empty."""
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
    """Return the spacing (z, y, x) in mm of a 2-D image: z is 999 times the larger pixel edge.

    Source: nnU-Net's readers.
    """
    return (FLAT_SPACING * max(y, x), y, x)


def assumed_geometry(ndim: int) -> Geometry:
    """Return the geometry of a file that states no voxel size: edges of 1 mm, marked as assumed. ``ndim`` is 2 or 3."""
    spacing = flat_spacing(1.0, 1.0) if ndim == 2 else (1.0, 1.0, 1.0)
    return Geometry(spacing=spacing, ndim=ndim, metadata={"spacing": ASSUMED})


def orientation_remark(orientation: object) -> tuple[str, ...]:
    """Return a remark if the tag Orientation (TIFF, EXIF) asks viewers to turn or mirror the image; otherwise ().

    The array is read as it is stored, without turning.
    """
    if orientation in (1, None, 0):
        return ()
    return (
        f"the file asks viewers to turn or mirror it (orientation {orientation}). It is read as it is stored; its "
        "label file must be stored in the same way",
    )


def without_alpha(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Return the labels (C, z, y, x) without their last channel, which is opacity (alpha).

    Raises ``FileFormatError`` if voxels with equal values in the other channels differ in opacity: opacity then
    carries labels.
    """
    *values, alpha = array
    if alpha.min() != alpha.max():
        keys = np.stack([channel.ravel() for channel in values])
        without = np.unique(keys, axis=1).shape[1]
        if np.unique(np.concatenate([keys, alpha.reshape(1, -1)]), axis=1).shape[1] != without:
            problem = "an alpha channel that differs among voxels of one value"
            fix = "Save class numbers (0, 1, 2 ...) in a grey image, with a separate value for unannotated voxels."
            raise unreadable(path, problem, "one value per voxel", fix)
    return array[:-1]


def smallest_unsigned(labels: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Return labels of any shape as C-contiguous uint8, uint16 or uint32, the smallest that holds the largest value.

    An empty array becomes uint8. Raises ``ValueError`` if a value needs more than 32 bits.
    """
    largest = int(labels.max()) if labels.size else 0
    if largest > np.iinfo(np.uint32).max:
        raise ValueError(f"largest label {largest}, expected at most {np.iinfo(np.uint32).max}")
    return np.ascontiguousarray(labels, dtype=np.min_scalar_type(largest))
