"""Conversion of a stored array to an image file plane by plane, whatever its size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autoseg.core.boxes import Box
from autoseg.core.geometry import Geometry
from autoseg.io.file_contents import unreadable
from autoseg.io.images import ending_of
from autoseg.io.nifti import write_nifti_parts
from autoseg.io.stored_array import StoredArray
from autoseg.io.tiff import write_tiff_planes

STORED_ENDINGS = (".tif", ".tiff", ".nii.gz", ".nii")
"""Formats that an array can be written to plane by plane."""
LONGEST_NIFTI = 32767
"""Longest axis of NIfTI-1 in voxels."""
_READ_BYTES = 1 << 27
"""Bytes that are read at once, at least one plane."""


def write_stored(path: Path, array: StoredArray, geometry: Geometry) -> None:
    """Write an array (C, z, y, x) atomically, with the geometry (and NIfTI header) of an image; as BigTIFF or NIfTI.

    Memory holds 128 MiB, or one plane of all channels if that is more.

    Raises
    ------
    FileFormatError
        If the ending is not one of ``STORED_ENDINGS``, or an axis is too long for NIfTI.
    """
    check_stored(path, array)
    if ending_of(path) in (".tif", ".tiff"):
        write_tiff_planes(path, _planes(array), array.shape, array.dtype, geometry)
        return
    write_nifti_parts(path, _planes(array), array.shape, array.dtype, geometry)


def check_stored(path: Path, array: StoredArray) -> None:
    """Raise ``FileFormatError`` if :func:`write_stored` cannot write an array of its shape to a file of its ending."""
    ending = ending_of(path)
    if ending not in STORED_ENDINGS:
        raise unreadable(path, f"the ending {ending}", f"one of {', '.join(STORED_ENDINGS)}", "Choose one.")
    if ending not in (".tif", ".tiff") and max(array.shape) > LONGEST_NIFTI:
        found, expected = f"{array.spatial_shape} voxels (z, y, x)", f"at most {LONGEST_NIFTI} along an axis"
        raise unreadable(path, found, f"{expected}, as NIfTI can hold", "Write .tif, or use the Zarr.")


def _planes(array: StoredArray) -> Iterator[NDArray[Any]]:
    """Yield the planes (y, x) of an array, channel by channel."""
    n_channels, n_planes, y, x = array.shape
    plane_bytes = math.prod((n_channels, y, x)) * array.dtype.itemsize
    step = max(1, min(array.chunk[0], _READ_BYTES // plane_bytes))
    for channel in range(n_channels):
        for first in range(0, n_planes, step):
            yield from array.read(Box((first, 0, 0), (min(first + step, n_planes), y, x)))[channel]
