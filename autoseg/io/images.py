"""Read and write images and labels of every supported format; the format follows from the ending.

In memory an image is (C, z, y, x); a 2-D image has one slice. What a file cannot say faithfully is an error here,
never a silent change: truncated streams, failed checksums, labels that are not whole numbers, channels that disagree.
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
from autoseg.io.itk import read_itk, read_itk_header, write_itk
from autoseg.io.nifti import read_nifti, read_nifti_header, write_nifti
from autoseg.io.raster import read_natural, read_natural_header, write_natural
from autoseg.io.tiff import read_tiff, read_tiff_header, read_tiff_labels, write_tiff

LOSSY_ENDINGS = (".jpg", ".jpeg")
"""Read as images; never for labels, whose values they change."""
_WRITTEN = dict.fromkeys(LOSSY_ENDINGS, ".png") | {".mhd": ".mha"}
UNEVEN_EDGES = 50
"""How many times longer than another an edge of a voxel may be before a mistaken unit is suspected."""


class _Format(NamedTuple):
    read: Callable[[Path], StoredImage]
    header: Callable[[Path], StoredHeader]
    write: Callable[[Path, NDArray[np.unsignedinteger], Geometry], None]
    read_labels: Callable[[Path], StoredImage] | None = None
    """Where labels are read otherwise than images."""


_NIFTI = _Format(read_nifti, read_nifti_header, write_nifti)
_ITK = _Format(read_itk, read_itk_header, write_itk)
_NATURAL = _Format(read_natural, read_natural_header, write_natural, partial(read_natural, as_labels=True))
_TIFF = _Format(read_tiff, read_tiff_header, write_tiff, read_tiff_labels)
_FORMATS = {
    ".nii.gz": _NIFTI,
    ".nii": _NIFTI,
    ".nrrd": _ITK,
    ".mha": _ITK,
    ".mhd": _ITK,
    ".gipl": _ITK,
    ".png": _NATURAL,
    ".bmp": _NATURAL,
    ".jpg": _NATURAL,
    ".jpeg": _NATURAL,
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
SUPPORTED_ENDINGS = tuple(_FORMATS)
"""With the leading dot, lower case; ``.nii.gz`` before ``.nii``."""


def ending_of(path: str | Path) -> str:
    """Return the ending of a file name as it must be cut off (``.nii.gz``), in the case of the name.

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


def read_image(paths: Sequence[str | Path]) -> tuple[Float32Array, Geometry]:
    """Read the files of one case and stack their channels.

    Parameters
    ----------
    paths
        In channel order; each may hold several channels.

    Returns
    -------
    image, geometry
        (C, z, y, x) float32, C-contiguous, NaN and Inf as stored; the geometry of the first file.

    Raises
    ------
    FileFormatError
        If a file is missing, truncated, damaged or not supported, or if the files disagree.
    """
    stored = _read_stored(paths)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes Inf, which the integrity check reports
        return _stacked(stored, np.dtype(np.float32)), stored[0].geometry


def read_intensities(paths: Sequence[str | Path]) -> tuple[NDArray[Any], Geometry]:
    """Read the files of one case as :func:`read_image` does, but keep integers of at most 16 bits as they are.

    A CT takes half the memory then. The array (C, z, y, x) may be read-only.
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
        Whether NaN is a value that a data set may declare: it becomes ``core.file_values.NAN_VALUE``. Else an error.

    Returns
    -------
    labels, geometry
        (z, y, x) in the smallest integer type that holds all values (unsigned if none is negative).

    Raises
    ------
    FileFormatError
        As ``read_image``; also if a value is not a whole number, if the format or the compression is lossy, or if there
        are several channels that differ (equal ones, a grey picture saved as colour, count once; alpha does not count
        where it says nothing).
    """
    path = Path(path)
    if ending_of(path).lower() in LOSSY_ENDINGS:
        raise unreadable(path, "labels in a lossy format", "labels stored without loss", "Export them as .png.")
    with _naming(path):
        file_format = _format(path)
        stored = (file_format.read_labels or file_format.read)(path)
        return _smallest_integers(path, _single_channel(path, stored.array), allow_nan=allow_nan), stored.geometry


def read_header(path: str | Path) -> tuple[Shape4, Geometry]:
    """Read the shape (C, z, y, x) and the geometry of one file, without its voxels."""
    header = _read_header(Path(path))
    return header.shape, header.geometry


def read_remarks(path: str | Path, *, as_labels: bool = False) -> tuple[str, ...]:
    """Return what is strange about a file by its header, though it can be read; each a clause without its name.

    Of labels the size of voxels does not matter: that of their image is taken.
    """
    header = _read_header(Path(path))
    if as_labels:
        return header.remarks
    unknown = (header.unknown_size,) if header.unknown_size else ()
    return (*header.remarks, *unknown, *_uneven(header.shape[1:], header.geometry))


def _uneven(shape: Sequence[int], geometry: Geometry) -> tuple[str, ...]:
    """Say that a volume (z, y, x) has edges so different that one is probably in another unit."""
    edges = [edge for edge, length in zip(geometry.spacing, shape, strict=True) if length > 1]
    if geometry.ndim == 2 or not edges or max(edges) <= UNEVEN_EDGES * min(edges):
        return ()
    z, y, x = geometry.spacing
    return (
        f"voxels are {z:.4g} x {y:.4g} x {x:.4g} mm (z, y, x), edges that differ by a factor of "
        f"{max(edges) / min(edges):.3g}. If one of them is in another unit, correct it",
    )


def written_ending(ending: str, largest: int = 0) -> str:
    """Return the ending with which label maps of images with ``ending`` are written: another where it cannot hold them.

    Lossy pictures get ``.png``, as does ``.bmp`` where the ``largest`` label is above 255; ``.mhd``, a header beside
    its data, gets ``.mha``, the same in one file.
    """
    if ending.lower() == ".bmp" and largest > np.iinfo(np.uint8).max:
        return ".png"
    return _WRITTEN.get(ending.lower(), ending)


def write_labels(path: str | Path, labels: NDArray[np.unsignedinteger], geometry: Geometry) -> None:
    """Write labels (z, y, x), at most 65535, atomically, with the geometry (and NIfTI header) of their image.

    The format follows from the ending of ``path``; the type is uint8 if every value is below 256, else uint16.
    Raises ``FileFormatError`` if the format cannot hold them: several slices in .png, values above 255 in .bmp.
    """
    path = Path(path)
    if labels.ndim != 3 or (geometry.ndim == 2 and labels.shape[0] != 1):
        raise ValueError(f"labels of shape {labels.shape}, expected (z, y, x), z = 1 if the geometry is 2-D")
    if labels.dtype.kind not in "ub":
        raise ValueError(f"labels of type {labels.dtype}, expected unsigned integers")
    _format(path).write(path, labels, geometry)


def write_probabilities(path: str | Path, heads: Iterable[NDArray[np.floating]], n_heads: int) -> Path:
    """Write probabilities (H, z, y, x) in file axes as ``<path>.npz``, key ``probabilities``, atomically.

    ``heads`` yields the volumes (z, y, x) of the ``n_heads`` heads, all alike; one of them at a time is all that need
    exist. ``path`` has no ending; returns the path with it. Lightly compressed: zlib at its default level takes ten
    times longer than the prediction of a small case. Source: nnU-Net ``export_prediction.py`` (name and key).
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
    files = [Path(path) for path in paths]
    if not files:
        raise ValueError("no files given, expected at least one per case")
    stored = [_read(path) for path in files]
    for path, other in zip(files[1:], stored[1:], strict=True):
        _check_agreement(files[0], _header_of(stored[0]), path, _header_of(other))
    return stored


def _read(path: Path) -> StoredImage:
    with _naming(path):
        return _format(path).read(path)


def _read_header(path: Path) -> StoredHeader:
    with _naming(path):
        return _format(path).header(path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn whatever a library raises at a file that nobody foresaw into an error that names the file.

    One odd file must not end the check of a thousand.
    """
    try:
        yield
    except (AutosegError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        found = f"a file that cannot be read ({type(error).__name__}: {reason})"
        fix = "It may be damaged, or of a rare form: export it again, say as .nii.gz (3-D) or .png (2-D)."
        raise unreadable(path, found, f"a complete {ending_of(path)} file", fix) from error


def _stacked(stored: Sequence[StoredImage], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the channels of all files as one array (C, z, y, x), C-contiguous; writable if it had to be made."""
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
    """Raise ``FileFormatError`` if two files of a case do not cover the same voxels."""
    fix = "All files of a case must lie on one grid: resample them, or correct the wrong header."
    if first.shape[1:] != other.shape[1:]:
        raise unreadable(path, f"shape {other.shape[1:]}", f"{first.shape[1:]} as in {first_path.name}", fix)
    for name in first.geometry.differs_from(other.geometry):
        found, expected = getattr(other.geometry, name), getattr(first.geometry, name)
        raise unreadable(path, f"{name} {found}", f"{expected} as in {first_path.name}", fix)


def _single_channel(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Return (z, y, x) of an array whose channels are all equal."""
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
    """Return (z, y, x) labels of any real type as the smallest integers, looking at one slice at a time."""
    if array.dtype.kind == "f":
        if allow_nan and any(np.isnan(plane).any() for plane in array):
            array = np.nan_to_num(array, nan=NAN_VALUE, posinf=np.inf, neginf=-np.inf)
        wrong = [values for plane in array if (values := plane[_is_no_label(plane)]).size]
        if wrong:
            examples = ", ".join(f"{value:g}" for value in np.unique(np.concatenate(wrong))[:5])
            raise unreadable(
                path,
                f"{sum(map(len, wrong))} voxels that are no whole numbers ({examples})",
                "integers",
                _NAN_FIX if np.isnan(np.concatenate(wrong)).any() else _NO_INTEGER_FIX,
            )
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    dtype = np.min_scalar_type(high) if low >= 0 else np.min_scalar_type(min(low, -high - 1))
    return np.ascontiguousarray(array, dtype=dtype)


_NO_INTEGER_FIX = "Export the labels as integers, without interpolation."
_NAN_FIX = (
    'If NaN marks voxels that nobody annotated, write "unlabelled": "nan" in dataset.json; in a mask write 0 there, '
    "in a prediction a class."
)


def _is_no_label(values: NDArray[np.floating[Any]]) -> BoolArray:
    is_wrong: BoolArray = ~np.isfinite(values) | (values != np.rint(values)) | (np.abs(values) > np.iinfo(np.int32).max)
    return is_wrong
