"""Formats of single image files. The format follows from the ending of the file name.

In memory an image is (C, z, y, x); a 2-D image has one slice. Damage and contradictions raise an error, and values
never change silently: truncated streams, failed checksums, labels that are not whole numbers, channels that disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.core.errors import AutosegError
from autoseg.core.geometry import Geometry
from autoseg.dataset.file_values import NAN_VALUE
from autoseg.io.file_contents import StoredHeader, StoredImage, unreadable
from autoseg.io.itk import read_itk, read_itk_header, write_itk, write_itk_values
from autoseg.io.nifti import read_nifti, read_nifti_header, write_nifti, write_nifti_values
from autoseg.io.raster import read_raster, read_raster_header, write_raster
from autoseg.io.tiff import read_tiff, read_tiff_header, read_tiff_labels, write_tiff, write_tiff_values

LOSSY_ENDINGS = (".jpg", ".jpeg")
"""Endings of lossy formats. Images may have them; labels may not, because compression changes their values."""


class FileFormat(NamedTuple):
    """Functions that read and write the files of a format."""

    read: Callable[[Path], StoredImage]
    header: Callable[[Path], StoredHeader]
    write: Callable[[Path, NDArray[np.unsignedinteger], Geometry], None]
    """Arguments: path, labels (z, y, x), geometry."""
    write_values: Callable[[Path, Float32Array, Geometry], None] | None
    """Arguments: path, numbers (C, z, y, x), geometry; None if the format has only integers."""
    read_labels: Callable[[Path], StoredImage] | None = None
    """Reader of label files; None if ``read`` reads them too."""


_NIFTI = FileFormat(read_nifti, read_nifti_header, write_nifti, write_nifti_values)
_ITK = FileFormat(read_itk, read_itk_header, write_itk, write_itk_values)
_RASTER = FileFormat(read_raster, read_raster_header, write_raster, None, partial(read_raster, as_labels=True))
_TIFF = FileFormat(read_tiff, read_tiff_header, write_tiff, write_tiff_values, read_tiff_labels)
FORMATS = {
    ".nii.gz": _NIFTI,
    ".nii": _NIFTI,
    ".nrrd": _ITK,
    ".mha": _ITK,
    ".mhd": _ITK,
    ".gipl": _ITK,
    ".png": _RASTER,
    ".bmp": _RASTER,
    ".jpg": _RASTER,
    ".jpeg": _RASTER,
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
SUPPORTED_ENDINGS = tuple(FORMATS)
"""Endings with the leading dot, in lower case; ``.nii.gz`` before ``.nii``."""


def ending_of(path: str | Path) -> str:
    """Return the whole ending of a file name (``.nii.gz``), in upper or lower case as it is written there.

    Raises ``FileFormatError`` if it is not supported.
    """
    name = Path(path).name
    for ending in SUPPORTED_ENDINGS:
        if name.lower().endswith(ending):
            return name[len(name) - len(ending) :]
    raise unreadable(
        Path(path),
        f"the ending {Path(path).suffix!r}",
        f"one of {', '.join(SUPPORTED_ENDINGS)}",
        "Convert the file, for example to .nii.gz (3-D) or .png (2-D).",
    )


def read_file(path: Path, *, as_labels: bool = False) -> StoredImage:
    """Read one file (C, z, y, x) in its stored type; of labels, indices of a palette and no alpha channel.

    Raises ``FileFormatError`` if it is missing, damaged or not supported; of labels also if the compression may change
    values.
    """
    if as_labels and ending_of(path).lower() in LOSSY_ENDINGS:
        raise unreadable(path, "labels in a lossy format", "labels stored without loss", "Export them as .png.")
    with naming(path):
        file_format = format_of(path)
        return (file_format.read_labels or file_format.read)(path) if as_labels else file_format.read(path)


def read_file_header(path: Path) -> StoredHeader:
    """Return shape, geometry and oddities of one file, without its voxels."""
    with naming(path):
        return format_of(path).header(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn any exception that a library raises for ``path`` into a ``FileFormatError`` that names the file.

    Otherwise one damaged file would end the check of a whole data set.
    """
    try:
        yield
    except (AutosegError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        problem = f"a file that cannot be read ({type(error).__name__}: {reason})"
        fix = "It may be damaged or of a rare variant: export it again, for example as .nii.gz (3-D) or .png (2-D)."
        raise unreadable(path, problem, f"a complete {ending_of(path)} file", fix) from error


def format_of(path: Path) -> FileFormat:
    """Return the format of a file by the ending of its name; raises as :func:`ending_of`."""
    return FORMATS[ending_of(path).lower()]


def label_map(path: Path, array: NDArray[Any], *, allow_nan: bool = False) -> NDArray[np.integer[Any]]:
    """Return the labels (z, y, x), in the smallest integer type, of an array (C, z, y, x) that was read from ``path``.

    Parameters and errors are those of :func:`autoseg.io.images.read_labels`.
    """
    with naming(path):
        return _smallest_integers(path, _single_channel(path, array), allow_nan=allow_nan)


def _single_channel(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Return the first channel (z, y, x) of an array (C, z, y, x). Raise ``FileFormatError`` if channels differ."""
    if any(not np.array_equal(array[0], other, equal_nan=array.dtype.kind == "f") for other in array[1:]):
        raise unreadable(
            path,
            f"{len(array)} channels that differ",
            "one value per voxel",
            "Save class numbers (0, 1, 2 ...) in a grey image, not colours or one channel per class.",
        )
    first: NDArray[Any] = array[0]
    return first


def _smallest_integers(path: Path, array: NDArray[Any], *, allow_nan: bool) -> NDArray[np.integer[Any]]:
    """Return labels (z, y, x) of any real type in the smallest integer type; checks one slice at a time.

    Raises ``FileFormatError`` if a value is not a whole number of at most 32 bits. An empty array becomes uint8.
    """
    if array.dtype.kind == "f":
        if allow_nan and any(np.isnan(plane).any() for plane in array):
            array = np.nan_to_num(array, nan=NAN_VALUE, posinf=np.inf, neginf=-np.inf)
        wrong = [values for plane in array if (values := plane[_is_no_label(plane)]).size]
        if wrong:
            examples = ", ".join(f"{value:g}" for value in np.unique(np.concatenate(wrong))[:5])
            raise unreadable(
                path,
                f"{sum(map(len, wrong))} voxels that are not whole numbers ({examples})",
                "integers",
                _NAN_FIX if np.isnan(np.concatenate(wrong)).any() else _NO_INTEGER_FIX,
            )
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    dtype = np.min_scalar_type(high) if low >= 0 else np.min_scalar_type(min(low, -high - 1))
    return np.ascontiguousarray(array, dtype=dtype)


_NO_INTEGER_FIX = "Export the labels as integers, without interpolation."
_NAN_FIX = (
    'If NaN marks unannotated voxels, write "unlabelled": "nan" in dataset.json. In a mask, replace NaN by 0; in a '
    "prediction, by a class."
)


def _is_no_label(values: NDArray[np.floating[Any]]) -> BoolArray:
    """Return a mask of the shape of ``values``: True for NaN, infinity, fractions, and numbers beyond int32."""
    is_wrong: BoolArray = ~np.isfinite(values) | (values != np.rint(values)) | (np.abs(values) > np.iinfo(np.int32).max)
    return is_wrong
