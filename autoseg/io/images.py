"""Read and write images and labels of every supported format. The format follows from the ending of the file name.

In memory an image is (C, z, y, x); a 2-D image has one slice. Damage and contradictions raise an error, and values
never change silently: truncated streams, failed checksums, labels that are not whole numbers, channels that disagree.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.core.atomic import atomic_path
from autoseg.core.errors import AutosegError
from autoseg.core.geometry import Geometry
from autoseg.dataset.file_values import NAN_VALUE
from autoseg.io.file_contents import Shape4, StoredHeader, StoredImage, unreadable
from autoseg.io.itk import read_itk, read_itk_header, write_itk, write_itk_values
from autoseg.io.nifti import read_nifti, read_nifti_header, write_nifti, write_nifti_values
from autoseg.io.raster import read_raster, read_raster_header, write_raster
from autoseg.io.tiff import read_tiff, read_tiff_header, read_tiff_labels, write_tiff, write_tiff_values

LOSSY_ENDINGS = (".jpg", ".jpeg")
"""Endings of lossy formats. Images may have them; labels may not, because compression changes their values."""
_WRITTEN = dict.fromkeys(LOSSY_ENDINGS, ".png") | {".mhd": ".mha"}
_NUMBERS_WRITTEN = dict.fromkeys((".png", ".bmp", *LOSSY_ENDINGS), ".tif") | dict.fromkeys((".mhd", ".gipl"), ".mha")
UNEVEN_EDGES = 50
"""Ratio of the longest to the shortest edge of a voxel above which a wrong unit is suspected."""


class _Format(NamedTuple):
    read: Callable[[Path], StoredImage]
    header: Callable[[Path], StoredHeader]
    write: Callable[[Path, NDArray[np.unsignedinteger], Geometry], None]
    """Arguments: path, labels (z, y, x), geometry."""
    write_values: Callable[[Path, Float32Array, Geometry], None] | None
    """Arguments: path, numbers (C, z, y, x), geometry; None if the format has only integers."""
    read_labels: Callable[[Path], StoredImage] | None = None
    """Reader of label files; None if ``read`` reads them too."""


_NIFTI = _Format(read_nifti, read_nifti_header, write_nifti, write_nifti_values)
_ITK = _Format(read_itk, read_itk_header, write_itk, write_itk_values)
_RASTER = _Format(read_raster, read_raster_header, write_raster, None, partial(read_raster, as_labels=True))
_TIFF = _Format(read_tiff, read_tiff_header, write_tiff, write_tiff_values, read_tiff_labels)
_FORMATS = {
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
SUPPORTED_ENDINGS = tuple(_FORMATS)
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
    with _naming(path):
        return _smallest_integers(path, _single_channel(path, stored.array), allow_nan=allow_nan), stored.geometry


def read_header(path: str | Path) -> tuple[Shape4, Geometry]:
    """Read the shape (C, z, y, x) and the geometry of one file, without its voxels."""
    header = _read_header(Path(path))
    return header.shape, header.geometry


def read_remarks(path: str | Path, *, as_labels: bool = False) -> tuple[str, ...]:
    """Return remarks on oddities in the header of a readable file; () if there are none.

    Each remark is a clause that does not repeat the file's name. For labels, remarks on the voxel size are left out,
    because the voxel size of the image is used.
    """
    header = _read_header(Path(path))
    if as_labels:
        return header.remarks
    unknown = (header.unknown_size,) if header.unknown_size else ()
    return (*header.remarks, *unknown, *_uneven(header.shape[1:], header.geometry))


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


def written_ending(ending: str, largest: int = 0, *, has_numbers: bool = False) -> str:
    """Return the ending of label maps for images with ``ending``: the same, unless that format cannot hold them.

    Lossy formats get ``.png``, as does ``.bmp`` if the ``largest`` label is above 255. ``.mhd`` (header and data in two
    files) gets ``.mha`` (both in one file). Numbers (``has_numbers``) get ``.tif`` where the format has only integers,
    and ``.mha`` where it has one channel; so do labels above 65535.
    """
    if has_numbers or largest > np.iinfo(np.uint16).max:
        return _NUMBERS_WRITTEN.get(ending.lower(), ending)
    if ending.lower() == ".bmp" and largest > np.iinfo(np.uint8).max:
        return ".png"
    return _WRITTEN.get(ending.lower(), ending)


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
    _format(path).write(path, labels, geometry)


def write_values(path: str | Path, values: Float32Array, geometry: Geometry) -> None:
    """Write numbers (C, z, y, x) as float32, NaN as it is, atomically, with the geometry (and header) of their image.

    Raises ``ValueError`` if the format, which follows from the ending of ``path``, has only integers.
    """
    path = Path(path)
    if values.ndim != 4 or (geometry.ndim == 2 and values.shape[1] != 1):
        raise ValueError(f"numbers of shape {values.shape}, expected (C, z, y, x), z = 1 if the geometry is 2-D")
    write = _format(path).write_values
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


def read_stored(path: Path, *, as_labels: bool = False) -> StoredImage:
    """Read one file (C, z, y, x) in its stored type; of labels, indices of a palette and no alpha channel.

    Raises ``FileFormatError`` as :func:`read_image` does; of labels also if the compression may change values.
    """
    if as_labels and ending_of(path).lower() in LOSSY_ENDINGS:
        raise unreadable(path, "labels in a lossy format", "labels stored without loss", "Export them as .png.")
    with _naming(path):
        file_format = _format(path)
        return (file_format.read_labels or file_format.read)(path) if as_labels else file_format.read(path)


def _read_header(path: Path) -> StoredHeader:
    with _naming(path):
        return _format(path).header(path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
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


def _stacked(stored: Sequence[StoredImage], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the channels of all files as one C-contiguous array (C, z, y, x) of type ``dtype``; float is writable."""
    if len(stored) == 1:
        return np.require(stored[0].array, dtype, ["C", "W"] if dtype.kind == "f" else ["C"])
    image = np.empty((sum(len(item.array) for item in stored), *stored[0].array.shape[1:]), dtype)
    return np.concatenate([item.array for item in stored], out=image, casting="unsafe")


def _format(path: Path) -> _Format:
    return _FORMATS[ending_of(path).lower()]


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
