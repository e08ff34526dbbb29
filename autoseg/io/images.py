"""Read and write images and labels: of files, whose format follows from the ending of the name, and of volumes.

Every path may be a location (docs/volumes.md): an array of a file or folder, or a box of it.

In memory an image is (C, z, y, x); a 2-D image has one slice. Damage and contradictions raise an error, and values
never change silently: truncated streams, failed checksums, labels that are not whole numbers, channels that disagree.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.core.atomic import atomic_path
from autoseg.core.boxes import Box
from autoseg.core.errors import AutosegError
from autoseg.core.geometry import Geometry
from autoseg.core.location import is_location
from autoseg.core.resources import GB, free_memory
from autoseg.io.arrays import open_array
from autoseg.io.file_contents import Shape4, StoredHeader, StoredImage, remarks_on, unreadable
from autoseg.io.file_formats import (
    LOSSY_ENDINGS,
    SUPPORTED_ENDINGS,
    ending_of,
    format_of,
    label_map,
    read_file,
    read_file_header,
)
from autoseg.io.stored_array import StoredArray

__all__ = [
    "LOSSY_ENDINGS",
    "SUPPORTED_ENDINGS",
    "ending_of",
    "ending_of_maps",
    "holds_labels",
    "missing_boxes",
    "read_header",
    "read_image",
    "read_intensities",
    "read_known",
    "read_labels",
    "read_remarks",
    "read_stored",
    "without_ending",
    "write_labels",
    "write_probabilities",
    "write_values",
    "written_ending",
]

_WRITTEN = dict.fromkeys(LOSSY_ENDINGS, ".png") | {".mhd": ".mha"}
_NUMBERS_WRITTEN = dict.fromkeys((".png", ".bmp", *LOSSY_ENDINGS), ".tif") | dict.fromkeys((".mhd", ".gipl"), ".mha")
MAPS_OF_ARRAYS = ".nii.gz"
"""Ending of label maps for arrays of volumes."""


def without_ending(path: Path) -> str:
    """Return the name of a file without its ending, that of the case of a label map; raises as :func:`ending_of`."""
    return path.name.removesuffix(ending_of(path))


def read_image(paths: Sequence[str | Path]) -> tuple[Float32Array, Geometry]:
    """Read the files of one case and stack their channels.

    Parameters
    ----------
    paths
        Files in channel order; each may hold several channels.

    Returns
    -------
    image, geometry
        Image (C, z, y, x) float32, C-contiguous, NaN and Inf as stored, and the geometry of the first file.

    Raises
    ------
    FileFormatError
        If a file is missing, truncated, damaged or not supported, or if shapes or geometries of the files differ.
    """
    stored = _read_stored(paths)
    with np.errstate(over="ignore"):  # values beyond float32 become Inf, which the integrity check reports
        return _stacked(stored, np.dtype(np.float32)), stored[0].geometry


def read_intensities(paths: Sequence[str | Path]) -> tuple[NDArray[Any], Geometry]:
    """Read the files of one case as :func:`read_image` does, but keep integers of at most 16 bits in their type.

    This halves the memory of a CT. The array (C, z, y, x) may be read-only.
    """
    stored = _read_stored(paths)
    shared = np.result_type(*(item.array.dtype for item in stored))
    is_small = shared.kind in "iu" and shared.itemsize <= 2
    with np.errstate(over="ignore"):
        array = _stacked(stored, shared.newbyteorder("=") if is_small else np.dtype(np.float32))
    return array, stored[0].geometry


def read_labels(path: str | Path, *, allow_nan: bool = False) -> tuple[NDArray[np.integer[Any]], Geometry]:
    """Read a label file.

    Parameters
    ----------
    allow_nan
        Whether NaN is allowed; it then becomes ``dataset.file_values.NAN_VALUE``. Otherwise NaN is an error.

    Returns
    -------
    labels, geometry
        Labels (z, y, x) in the smallest integer type that holds all values (unsigned if none is negative).

    Raises
    ------
    FileFormatError
        As ``read_image``. Also if a value is not a whole number, if the format or the compression is lossy, or if
        channels differ. Equal channels (a grey picture saved as colour) count as one. An alpha channel is dropped if it
        follows from the other channels.
    """
    path = Path(path)
    stored = read_stored(path, as_labels=True)
    return label_map(path, stored.array, allow_nan=allow_nan), stored.geometry


def read_header(path: str | Path, *, as_labels: bool = False) -> tuple[Shape4, Geometry]:
    """Read the shape (C, z, y, x) and the geometry of one file, without its voxels."""
    header = _header(Path(path), as_labels=as_labels)
    return header.shape, header.geometry


def read_remarks(path: str | Path, *, as_labels: bool = False) -> tuple[str, ...]:
    """Return remarks on oddities in the header of a readable file; () if there are none.

    Each remark is a clause that does not repeat the file's name. For labels, remarks on the voxel size are left out,
    because the voxel size of the image is used.
    """
    return remarks_on(_header(Path(path), as_labels=as_labels), as_labels=as_labels)


def read_known(path: str | Path, *, as_labels: bool = False) -> BoolArray | None:
    """Return the mask (z, y, x) of the voxels of a file that are there; None if nothing is missing.

    Only tiles of a volume can be missing (docs/volumes.md). Raises as :func:`read_image`.
    """
    if not is_location(path):
        return None
    array = open_array(path, as_labels=as_labels)
    return array.known(Box.whole(array.spatial_shape)) if array.missing() else None


def missing_boxes(path: str | Path, *, as_labels: bool = False) -> tuple[Box, ...]:
    """Return the boxes of missing tiles of a file; () if nothing is missing. Raises as :func:`read_image`."""
    return open_array(path, as_labels=as_labels).missing() if is_location(path) else ()


def written_ending(ending: str, largest: int = 0, *, has_numbers: bool = False) -> str:
    """Return the ending of label maps for images with ``ending``: the same, unless that format cannot hold them.

    Lossy formats get ``.png``, as does ``.bmp`` if the ``largest`` label is above 255. ``.mhd`` (header and data in two
    files) gets ``.mha`` (both in one file). Numbers (``has_numbers``) get ``.tif`` where the format has only integers,
    and ``.mha`` where it has one channel; so do labels above 65535. Formats of volumes (``.zarr``) get ``.nii.gz``.
    """
    if ending.lower() not in SUPPORTED_ENDINGS:
        return MAPS_OF_ARRAYS
    if has_numbers or largest > np.iinfo(np.uint16).max:
        return _NUMBERS_WRITTEN.get(ending.lower(), ending)
    if ending.lower() == ".bmp" and largest > np.iinfo(np.uint8).max:
        return ".png"
    return _WRITTEN.get(ending.lower(), ending)


def ending_of_maps(image: Path, largest: int = 0, *, has_numbers: bool = False) -> str:
    """Return the ending of label maps for an image: ``.nii.gz`` for an array of a volume, else :func:`written_ending`.

    Parameters are those of :func:`written_ending`.
    """
    return MAPS_OF_ARRAYS if is_location(image) else written_ending(ending_of(image), largest, has_numbers=has_numbers)


def holds_labels(path: Path, labels: NDArray[np.integer[Any]]) -> bool:
    """Whether a label file exists, can be read, and holds the values ``labels`` (z, y, x)."""
    try:
        return path.is_file() and np.array_equal(read_labels(path)[0], labels)
    except AutosegError:
        return False


def write_labels(path: str | Path, labels: NDArray[np.unsignedinteger], geometry: Geometry) -> None:
    """Write labels (z, y, x) below 2^32, atomically, with the geometry (and NIfTI header) of their image.

    The format follows from the ending of ``path``. The type is the smallest of uint8, uint16 and uint32. Raises
    ``FileFormatError`` if the format cannot hold them: several slices or values above 65535 in .png, above 255 in .bmp.
    """
    path = Path(path)
    if labels.ndim != 3 or (geometry.ndim == 2 and labels.shape[0] != 1):
        raise ValueError(f"labels of shape {labels.shape}, expected (z, y, x), z = 1 if the geometry is 2-D")
    if labels.dtype.kind not in "ub":
        raise ValueError(f"labels of type {labels.dtype}, expected unsigned integers")
    format_of(path).write(path, labels, geometry)


def write_values(path: str | Path, values: Float32Array, geometry: Geometry) -> None:
    """Write numbers (C, z, y, x) as float32, NaN as it is, atomically, with the geometry (and header) of their image.

    Raises ``ValueError`` if the format, which follows from the ending of ``path``, has only integers.
    """
    path = Path(path)
    if values.ndim != 4 or (geometry.ndim == 2 and values.shape[1] != 1):
        raise ValueError(f"numbers of shape {values.shape}, expected (C, z, y, x), z = 1 if the geometry is 2-D")
    write = format_of(path).write_values
    if write is None:
        raise ValueError(f"{path}: a format without floating-point numbers, expected the ending of written_ending")
    write(path, values.astype(np.float32, copy=False), geometry)


def write_probabilities(path: str | Path, heads: Iterable[NDArray[np.floating]], n_heads: int) -> Path:
    """Write probabilities (H, z, y, x) in file axes as ``<path>.npz``, key ``probabilities``, atomically.

    ``heads`` yields one volume (z, y, x) for each of the ``n_heads`` heads, all of one shape and type, so that only one
    must be in memory. ``path`` has no ending; the path with the ending is returned. The file is compressed at level 1,
    because zlib's default level takes ten times longer than the prediction of a small case.
    Source: nnU-Net ``export_prediction.py`` (name and key).
    """
    target = Path(path).with_name(f"{Path(path).name}.npz")
    with (
        atomic_path(target) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("probabilities.npy", "w", force_zip64=True) as file,
    ):
        for index, values in enumerate(heads):
            volume = np.ascontiguousarray(values)
            if index == 0:
                header = np.lib.format.header_data_from_array_1_0(volume) | {"shape": (n_heads, *volume.shape)}
                np.lib.format.write_array_header_1_0(file, header)
            for plane in volume:
                file.write(plane.data)
    return target


def _read_stored(paths: Sequence[str | Path]) -> list[StoredImage]:
    """Read the files of one case; raise ``FileFormatError`` if their shapes or geometries differ."""
    files = [Path(path) for path in paths]
    if not files:
        raise ValueError("no files given, expected at least one per case")
    stored = [read_stored(path) for path in files]
    for path, other in zip(files[1:], stored[1:], strict=True):
        _check_agreement(files[0], _header_of(stored[0]), path, _header_of(other))
    return stored


def _check_room(path: Path, array: StoredArray) -> None:
    """Raise ``FileFormatError`` if an array does not fit into the memory that is free."""
    free, needed = free_memory(), math.prod(array.shape) * array.dtype.itemsize
    if free is not None and needed > free:
        fix = "Give boxes of the volume as cases (docs/volumes.md), or use a machine with more memory."
        found = f"{array.spatial_shape} voxels (z, y, x), which need {needed / GB:.3g} GB of memory"
        raise unreadable(path, found, f"at most {free / GB:.3g} GB, which are free", fix)


def read_stored(path: Path, *, as_labels: bool = False) -> StoredImage:
    """Read one file or location (C, z, y, x) in its stored type; of labels, indices of a palette and no alpha channel.

    Raises ``FileFormatError`` as :func:`read_image` does; of labels also if the compression may change values, of an
    array also if it is larger than the memory that is free.
    """
    if not is_location(path):
        return read_file(path, as_labels=as_labels)
    array = open_array(path, as_labels=as_labels)
    _check_room(path, array)
    return StoredImage(array.read(Box.whole(array.spatial_shape)), array.geometry)


def _header(path: Path, *, as_labels: bool = False) -> StoredHeader:
    return open_array(path, as_labels=as_labels).header if is_location(path) else read_file_header(path)


def _stacked(stored: Sequence[StoredImage], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the channels of all files as one C-contiguous array (C, z, y, x) of type ``dtype``; float is writable."""
    if len(stored) == 1:
        return np.require(stored[0].array, dtype, ["C", "W"] if dtype.kind == "f" else ["C"])
    image = np.empty((sum(len(item.array) for item in stored), *stored[0].array.shape[1:]), dtype)
    return np.concatenate([item.array for item in stored], out=image, casting="unsafe")


def _header_of(stored: StoredImage) -> StoredHeader:
    c, z, y, x = stored.array.shape
    return StoredHeader((c, z, y, x), stored.geometry)


def _check_agreement(first_path: Path, first: StoredHeader, path: Path, other: StoredHeader) -> None:
    """Raise ``FileFormatError`` if two files of a case differ in shape (z, y, x) or geometry."""
    fix = "All files of a case must lie on one grid: resample them, or correct the wrong header."
    if first.shape[1:] != other.shape[1:]:
        raise unreadable(path, f"shape {other.shape[1:]}", f"{first.shape[1:]} as in {first_path.name}", fix)
    for name in first.geometry.differs_from(other.geometry):
        actual, expected = getattr(other.geometry, name), getattr(first.geometry, name)
        raise unreadable(path, f"{name} {actual}", f"{expected} as in {first_path.name}", fix)
