"""Arrays in single files: memory-mapped where the format allows it, otherwise held in memory."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from autoseg.io.file_contents import StoredHeader, check_file, remarks_on, unreadable
from autoseg.io.file_formats import label_map, read_file, read_file_header
from autoseg.io.nifti import GZIP_MARK, nifti_header, scaled
from autoseg.io.stored_array import StoredArray, number_type, plain_header, spatial


def open_npy(path: Path) -> StoredArray:
    """Return the array (y, x), (z, y, x) or (C, z, y, x) of an ``.npy`` file, which is memory-mapped.

    Raises ``FileFormatError`` if the file is damaged, or holds objects instead of numbers.
    """
    check_file(path)
    try:
        mapped = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise unreadable(
            path, f"a file that is no array ({error})", "numbers as numpy.save writes them", "Save it again."
        ) from error
    if not isinstance(mapped, np.ndarray):
        raise unreadable(path, "several arrays in one file", "one array", "Save it with numpy.save.")
    shape = spatial(path, mapped.shape)
    array = mapped.reshape(shape) if mapped.flags.c_contiguous else mapped[(None,) * (4 - mapped.ndim)]
    header = plain_header(shape, mapped.ndim)
    dtype = number_type(path, "", mapped.dtype)
    return StoredArray(str(path), header, dtype, (1, *shape[2:]), lambda box: array[(slice(None), *box.slices)])


def open_image_file(path: Path, *, as_labels: bool = False) -> StoredArray:
    """Return the array of an image file of any format that autoseg reads (``autoseg.io.images``).

    Of uncompressed NIfTI only boxes are read. Every other file is read whole, and held in memory.

    Raises ``FileFormatError`` if the file is damaged, or if labels are not whole numbers.
    """
    of_file = read_file_header(path)
    header = StoredHeader(of_file.shape, of_file.geometry, remarks_on(of_file, as_labels=as_labels))
    mapped = _mapped_nifti(path, header)
    if mapped is not None:
        return mapped
    stored = read_file(path, as_labels=as_labels).array
    values = label_map(path, stored)[None] if as_labels else stored
    dtype = number_type(path, "", values.dtype)
    header = header._replace(shape=spatial(path, values.shape))
    return StoredArray(str(path), header, dtype, of_file.shape[1:], lambda box: values[(slice(None), *box.slices)])


def _mapped_nifti(path: Path, header: StoredHeader) -> StoredArray | None:
    """Return an uncompressed NIfTI file of numbers that is memory-mapped; None for any other file."""
    with path.open("rb") as file:
        is_compressed = file.read(2) == GZIP_MARK
    if not path.name.lower().endswith(".nii") or is_compressed:
        return None
    nifti = nifti_header(path)
    stored, offset = nifti.get_data_dtype(), int(nifti.get_data_offset())
    if stored.names:  # colours
        return None
    try:
        array = np.memmap(path, stored, "r", offset, header.shape)
    except ValueError as error:
        needed = offset + math.prod(header.shape) * stored.itemsize
        found, expected = f"{path.stat().st_size} bytes", f"{needed} bytes as its header says"
        raise unreadable(path, found, expected, "It is truncated: copy it again.") from error
    dtype = scaled(array[:, :1, :1, :1], nifti).dtype
    return StoredArray(
        location=str(path),
        header=header,
        dtype=number_type(path, "", dtype),
        chunk=(1, *header.shape[2:]),
        load=lambda box: scaled(array[(slice(None), *box.slices)], nifti),
    )
