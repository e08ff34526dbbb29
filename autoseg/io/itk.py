"""ITK's formats (.nrrd .mha .mhd .gipl), read with SimpleITK, and the geometry that ITK gives to a file.

Damage that ITK 5.4 detects, measured by truncating files and changing single bytes:

* raw NRRD and raw MetaImage: every truncation (no reader can detect a changed byte);
* gzip NRRD: changed bytes and truncation, except inside the checksum. This module checks the end of the stream;
* compressed MetaImage: truncation, but *not* changed bytes, which become noise. See :mod:`autoseg.io.metaimage`;
* GIPL: nothing; missing voxels become noise. This module compares the size of the file with its header.

All of them keep NaN and Inf. A complex MetaImage is stored as vectors of length two and becomes two channels.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array
from autoseg.core.atomic import atomic_path
from autoseg.core.errors import FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.io.file_contents import (
    Shape4,
    StoredHeader,
    StoredImage,
    check_file,
    flat_spacing,
    smallest_unsigned,
    unreadable,
)
from autoseg.io.metaimage import META_ENDINGS, check_meta_data, inflate_meta, read_meta_header
from autoseg.io.simple_itk import simple_itk
from autoseg.io.units import millimetres_per

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813 (the name that its users know)

GIPL_HEADER_BYTES = 256
NRRD_HEADER_LIMIT = 1 << 20
_META_DIRECTIONS = {"TransformMatrix", "Rotation", "Orientation"}


def read_itk(path: Path) -> StoredImage:
    """Read an image (C, z, y, x) in its stored type. Raises ``FileFormatError`` if it is damaged or not supported."""
    reader = open_itk(path)
    shape, geometry = _describe(path, reader)
    if path.suffix.lower() == ".gipl":
        _check_gipl(path, reader)
    array = _read_meta(path, reader) if path.suffix.lower() in META_ENDINGS else _execute(path, reader)
    if path.suffix.lower() == ".nrrd":
        _check_gzip_end(path, array.nbytes)
    return StoredImage(_channels_first(array, reader, shape), geometry)


def read_itk_header(path: Path) -> StoredHeader:
    """Read shape (C, z, y, x) and geometry without the voxels."""
    return StoredHeader(*_describe(path, open_itk(path)), *_size_remarks(path))


def _size_remarks(path: Path) -> tuple[tuple[str, ...], str]:
    """Return remarks on units in the header that ITK ignores, and the reason if the voxel size is unknown (else "")."""
    if path.suffix.lower() in META_ENDINGS:
        header_of_data = read_meta_header(path)
        check_meta_data(header_of_data, 0)
        keys = header_of_data.keys
        units, is_sized = [keys.get("DistanceUnits", "")], not {"ElementSpacing", "ElementSize"}.isdisjoint(keys)
    elif path.suffix.lower() == ".nrrd":
        with path.open("rb") as file:
            header = re.split(r"\r?\n\r?\n", file.read(NRRD_HEADER_LIMIT).decode("latin-1"), maxsplit=1)[0]
        units = re.findall(r'"([^"]*)"', "".join(re.findall(r"(?mi)^(?:space )?units:(.*)$", header)))
        is_sized = re.search(r"(?mi)^(spacings|space directions):(?!.*\bnan\b.*\bnan\b)", header) is not None
    else:
        return (), ""
    others = [unit for unit in dict.fromkeys(units) if millimetres_per(unit) not in (None, 1.0)]
    remarks = tuple(f"the header gives lengths in {unit}; they are read as mm, as in ITK" for unit in others)
    unknown = (
        "no voxel size is stated; 1 x 1 x 1 mm is assumed, as ITK does. Unless voxels are cubes, correct the header"
    )
    return remarks, "" if is_sized else unknown


def write_itk(path: Path, labels: NDArray[np.unsignedinteger], geometry: Geometry) -> None:
    """Write labels (z, y, x) atomically, compressed if the format allows it."""
    array = smallest_unsigned(labels)
    _write(path, simple_itk().GetImageFromArray(array[0] if geometry.ndim == 2 else array), geometry)


def write_itk_values(path: Path, values: Float32Array, geometry: Geometry) -> None:
    """Write numbers (C, z, y, x) float32 as :func:`write_itk` does; several channels as components of a voxel."""
    is_vector = len(values) > 1
    array = np.moveaxis(values, 0, -1) if is_vector else values[0]
    _write(path, simple_itk().GetImageFromArray(array[0] if geometry.ndim == 2 else array, is_vector), geometry)


def _write(path: Path, image: sitk.Image, geometry: Geometry) -> None:
    """Write an image with 2 or 3 axes and the given geometry, atomically."""
    _check_lower_case(path)
    n = image.GetDimension()
    image.SetSpacing([float(edge) for edge in geometry.spacing[::-1][:n]])
    image.SetOrigin([float(value) for value in geometry.origin[:n]])
    image.SetDirection(np.asarray(geometry.direction, dtype=float).reshape(3, 3)[:n, :n].ravel().tolist())
    if path.suffix.lower() == ".mhd":  # its header names a second file, so that both cannot be renamed atomically
        raise unreadable(path, "a label file to write as .mhd", "one file per case", "Write .mha instead.")
    with atomic_path(path) as temporary:
        simple_itk().WriteImage(image, str(temporary), useCompression=path.suffix.lower() != ".gipl")


def open_itk(path: Path) -> sitk.ImageFileReader:
    """Return a reader that has read the header. Raises ``FileFormatError`` with ITK's reason if it cannot."""
    check_file(path)
    _check_lower_case(path)
    reader: sitk.ImageFileReader = simple_itk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _itk_error(path, error) from error
    return reader


def _check_lower_case(path: Path) -> None:
    if path.suffix in (".MHA", ".MHD", ".GIPL"):  # ITK reads these endings in lower case only
        raise unreadable(path, f"the ending {path.suffix}", f"{path.suffix.lower()}", "Rename the file.")


def itk_geometry(reader: sitk.ImageFileReader) -> Geometry:
    """Return the geometry of an opened file, exactly as ITK gives it to an image; of a 4-D file, of its first 3 axes.

    A negative spacing in the header reverses the direction of that axis, as in ITK.
    """
    file_ndim = reader.GetDimension()
    ndim = min(file_ndim, 3)
    spacing = np.abs(reader.GetSpacing()[:ndim]).tolist()
    direction = np.eye(3)
    direction[:ndim, :ndim] = np.asarray(reader.GetDirection()).reshape(file_ndim, file_ndim)[:ndim, :ndim]
    direction[:, :ndim][:, np.asarray(reader.GetSpacing()[:ndim]) < 0] *= -1.0
    origin = (*reader.GetOrigin()[:ndim], 0.0)[:3]
    edges = flat_spacing(spacing[1], spacing[0]) if ndim == 2 else (spacing[2], spacing[1], spacing[0])
    return Geometry(spacing=edges, origin=origin, direction=tuple(direction.ravel().tolist()), ndim=ndim)


def _describe(path: Path, reader: sitk.ImageFileReader) -> tuple[Shape4, Geometry]:
    """Return shape (C, z, y, x) and geometry. Raise ``FileFormatError`` for axes or values that are not supported."""
    size = reader.GetSize()
    components = reader.GetNumberOfComponents()
    if not 2 <= len(size) <= 4 or (len(size) == 4 and components > 1):
        problem = f"{len(size)} axes and {components} values per voxel"
        raise unreadable(path, problem, "2 or 3 axes, or a 4th axis of channels", "Save one time point per file.")
    if "complex" in simple_itk().GetPixelIDValueAsString(reader.GetPixelID()).lower():
        raise unreadable(path, "complex values", "real values", "Save magnitude (and phase) as real images.")
    edges = reader.GetSpacing()[:3]
    if not all(math.isfinite(edge) and edge for edge in edges):
        raise unreadable(
            path, f"voxel edges {edges}", "finite edges other than 0", "Correct the spacing in the header."
        )
    x, y, z, t = (*size, 1, 1)[:4] if len(size) < 4 else size
    geometry = itk_geometry(reader).model_copy(update={"is_directed": _states_direction(path, reader)})
    return (components * t, z, y, x), geometry


def _states_direction(path: Path, reader: sitk.ImageFileReader) -> bool:
    """Whether the header states the direction of the axes. If it does not, ITK takes the identity."""
    ending = path.suffix.lower()
    if ending == ".nrrd":
        return bool(reader.HasMetaDataKey("NRRD_space"))
    return ending in META_ENDINGS and bool(_META_DIRECTIONS & read_meta_header(path).keys.keys())


def _channels_first(array: NDArray[Any], reader: sitk.ImageFileReader, shape: Shape4) -> NDArray[Any]:
    """Return ITK's array (*S) or (*S, components) as (C, z, y, x) of ``shape``."""
    if reader.GetNumberOfComponents() > 1:
        array = np.moveaxis(array, -1, 0)
    return array.reshape(shape)


def _read_meta(path: Path, reader: sitk.ImageFileReader) -> NDArray[Any]:
    """Return the voxels of a MetaImage, (*S) or (*S, components), in the stored type."""
    header = read_meta_header(path)
    dtype = _stored_dtype(reader)
    components = reader.GetNumberOfComponents()
    axes = (*reader.GetSize()[::-1], *([components] if components > 1 else []))
    check_meta_data(header, math.prod(axes) * dtype.itemsize)
    return inflate_meta(header, axes, dtype) if header.is_compressed else _execute(path, reader)


def _execute(path: Path, reader: sitk.ImageFileReader) -> NDArray[Any]:
    """Return the voxels that ITK reads, (*S) or (*S, components), in the stored type."""
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _itk_error(path, error) from error
    array: NDArray[Any] = simple_itk().GetArrayFromImage(image)
    return array


def _itk_error(path: Path, error: RuntimeError) -> FileFormatError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1].split("ERROR: ")[-1] if lines else "no reason given"
    return unreadable(
        path,
        f"a file that cannot be read ({reason})",
        "a complete file of the format that its ending names",
        "It may be truncated, damaged or of a variant that ITK does not read: copy or export it again.",
    )


def _check_gipl(path: Path, reader: sitk.ImageFileReader) -> None:
    """Raise ``FileFormatError`` if the file is shorter than its header requires."""
    dtype = _stored_dtype(reader)
    expected = GIPL_HEADER_BYTES + math.prod(reader.GetSize()) * dtype.itemsize
    if path.stat().st_size < expected:
        raise unreadable(
            path, f"{path.stat().st_size} bytes", f"{expected} bytes", "It is truncated: copy or export it again."
        )


def _check_gzip_end(path: Path, n_bytes: int) -> None:
    """Raise ``FileFormatError`` if the gzip stream of a single-file NRRD is truncated.

    A complete stream ends with the number of bytes that it inflates to. Only if that number is not ``n_bytes`` is the
    stream inflated to check its end.
    """
    with path.open("rb") as file:
        content = file.read(NRRD_HEADER_LIMIT)
        start = content.find(b"\n\n") + 2
        header = content[:start].lower()
        if (
            start < 2
            or not re.search(rb"\nencoding: *gz", header)
            or re.search(rb"\n(data ?file|(byte|line) ?skip):", header)
        ):
            return
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(4), "little") == n_bytes % 2**32:
            return
        file.seek(start)
        stream = zlib.decompressobj(wbits=31)
        stream.decompress(file.read())
    if not stream.eof:
        raise unreadable(
            path, "a gzip stream without its checksum", "a complete stream", "It is truncated: copy or export it again."
        )


def _stored_dtype(reader: sitk.ImageFileReader) -> np.dtype[Any]:
    pixel = simple_itk().Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
    dtype: np.dtype[Any] = simple_itk().GetArrayViewFromImage(pixel).dtype
    return dtype
