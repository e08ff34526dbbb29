"""NIfTI files (.nii .nii.gz), read without any silent change of values.

ITK's reader turns NaN and Inf into 0, fills the missing part of a truncated gzip stream with 0 and does not compare
its checksum. Here ``gzip`` inflates the whole stream and checks length and CRC, and the number of bytes is compared
with the header. The geometry comes from ITK, so that it agrees with viewers and nnU-Net. Only files whose geometry ITK
refuses (NIfTI-2, and axes that are orthogonal up to rounding) are computed here.
"""

from __future__ import annotations

import base64
import gzip
import math
import tempfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array
from autoseg.core.atomic import atomic_path
from autoseg.core.chunks import chunks
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
from autoseg.io.itk import itk_geometry, open_itk
from autoseg.io.simple_itk import is_installed

HEADER_KEY = "nifti_header"
"""Key of ``Geometry.metadata`` that holds the binary header in base64."""
HEADER_CLASSES: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
HEADER_BYTES = 544
"""Size of the longer version of the header with the four bytes after it."""
SPACING_TOLERANCE = 1e-3
"""Relative difference of two voxel edges up to which they count as equal."""
SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two axes that count as orthogonal."""
MM_PER_UNIT = {1: 1e3, 3: 1e-3}
"""Code of the spatial unit in ``xyzt_units`` -> mm. Any other code counts as mm, as in ITK."""
GZIP_MARK = b"\x1f\x8b"
LARGEST_RATIO = 1032
"""Largest ratio of inflated to compressed size in deflate. Limits the memory that a damaged length can request."""
CHUNK_BYTES = 1 << 16
GZIP_LEVEL = 3
"""Label maps compress to a few per cent at any level, and level 3 is several times faster than 9."""
LPS_RAS = np.diag([-1.0, -1.0, 1.0])


def read_nifti(path: Path) -> StoredImage:
    """Read an image (C, z, y, x): float32 if the header has a slope and intercept, otherwise in the stored type.

    Raises ``FileFormatError`` if the file is truncated, fails its checksum, or is of a variant that is not supported.
    """
    check_file(path)
    content = _read_bytes(path)
    header = _parse(path, content)
    shape = _shape(path, header)
    dtype = header.get_data_dtype()
    expected = _total_bytes(header)
    if len(content) < expected:
        raise unreadable(
            path, f"{len(content)} bytes", f"{expected} bytes as its header says", "It is truncated: copy it again."
        )
    count = math.prod(header.get_data_shape())
    array = np.frombuffer(content, dtype=dtype, count=count, offset=int(header.get_data_offset()))
    if dtype.names:  # RGB(A): one byte per colour
        array = np.moveaxis(array.view(np.uint8).reshape(-1, len(dtype.names)), -1, 0)
    return StoredImage(scaled(array.reshape(shape), header), _geometry(path, header))


def read_nifti_header(path: Path) -> StoredHeader:
    """Read shape (C, z, y, x) and geometry without the voxels."""
    header = nifti_header(path)
    shape, geometry = _shape(path, header), _geometry(path, header)
    return StoredHeader(shape, geometry, _remarks(path, header, geometry))


def nifti_header(path: Path) -> Any:
    """Return the header of a file as a nibabel object. Raise ``FileFormatError`` if it is not valid."""
    check_file(path)
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
            content = file.read(HEADER_BYTES)
    except (EOFError, OSError, zlib.error) as error:
        raise _stream_error(path, error, path.read_bytes()) from error
    return _parse(path, content)


def write_nifti(path: Path, labels: NDArray[np.unsignedinteger], geometry: Geometry) -> None:
    """Write labels (z, y, x) atomically, with the header of the source image or, if there is none, of ``geometry``."""
    array = smallest_unsigned(labels)
    _write(path, [array], _written_header(array.shape, array.dtype, geometry))


def write_nifti_values(path: Path, values: Float32Array, geometry: Geometry) -> None:
    """Write numbers (C, z, y, x) float32 as :func:`write_nifti` does; several channels as the fourth axis."""
    write_nifti_parts(path, [np.ascontiguousarray(values)], values.shape, values.dtype, geometry)


def write_nifti_parts(
    path: Path, parts: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any], geometry: Geometry
) -> None:
    """Write an array (C, z, y, x) given as its parts in C order, C-contiguous, as :func:`write_nifti` does."""
    header = _written_header(shape[1:], dtype, geometry)
    if shape[0] > 1:
        header.set_data_shape((*shape[:0:-1], shape[0]))
    _write(path, parts, header)


def _write(path: Path, parts: Iterable[NDArray[Any]], header: Any) -> None:
    """Write the parts of an array, in C order, after its header, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", compresslevel=GZIP_LEVEL, fileobj=raw, mtime=0) as file:
                file.write(header.binaryblock + bytes(4))
                for part in parts:
                    file.write(part.data)
        else:
            raw.write(header.binaryblock + bytes(4))
            for part in parts:
                raw.write(part.data)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP_MARK


def _read_bytes(path: Path) -> bytes:
    """Return the content of a file, inflated if it is compressed. Raise ``FileFormatError`` if it is damaged."""
    content = path.read_bytes()
    if content[:2] != GZIP_MARK:
        return content
    # The last four bytes of a gzip stream are its length: a buffer of that size saves a third of the time.
    length = int.from_bytes(content[-4:], "little")
    try:
        inflated = zlib.decompress(content, wbits=31, bufsize=max(1, min(length, len(content) * LARGEST_RATIO)))
        # A different length means several streams in a row (bgzip), or bytes after the end of the stream.
        return inflated if len(inflated) == length else gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise _stream_error(path, error, content) from error


def _stream_error(path: Path, error: Exception, content: bytes) -> FileFormatError:
    """Return the error for a damaged gzip stream, with the number of bytes that could be inflated."""
    start = bytearray()
    stream = zlib.decompressobj(wbits=31)
    with suppress(zlib.error):
        for chunk in chunks(len(content), CHUNK_BYTES):
            start += stream.decompress(content[chunk])
    try:
        expected = f"{_total_bytes(_parse(path, bytes(start[:HEADER_BYTES])))} bytes and a matching checksum"
    except (FileFormatError, ValueError, OverflowError):
        expected = "a complete stream with a matching checksum"
    is_short = isinstance(error, EOFError) or "truncated" in str(error)
    problem = "a truncated gzip stream" if is_short else f"a damaged gzip stream ({error})"
    return unreadable(path, f"{problem} of {len(start)} bytes", expected, "Copy or export the file again.")


def _total_bytes(header: Any) -> int:
    """Return the number of bytes of the whole uncompressed file."""
    n_voxels = math.prod(int(length) for length in header.get_data_shape())
    return int(header.get_data_offset()) + n_voxels * int(header.get_data_dtype().itemsize)


def _parse(path: Path, content: bytes) -> Any:
    """Return the header as a nibabel object of version 1 or 2. Raise ``FileFormatError`` if it is not valid."""
    length = min(int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big"))
    magic = content[344:348] if length == 348 else content[4:8]
    if length not in HEADER_CLASSES or not magic.startswith(b"n+") or len(content) < length:
        raise unreadable(
            path,
            f"{min(len(content), length)} header bytes with mark {magic!r}",
            "a single-file NIfTI-1 or NIfTI-2 header (mark 'n+1' or 'n+2')",
            "Convert the image to .nii.gz; .hdr/.img pairs and Analyze files are not read.",
        )
    try:
        header = HEADER_CLASSES[length](content[:length], check=False)
        if header["vox_offset"] == 0:  # some writers leave it out
            header["vox_offset"] = length + 4
        axes, offset = header.get_data_shape(), int(header.get_data_offset())
        if header.get_data_dtype().itemsize == 0 or offset < length or not 2 <= len(axes) <= 7:
            raise ValueError(f"axes {axes}, voxels from byte {offset} on, type {header.get_data_dtype()}")
    except (
        nib.spatialimages.HeaderDataError,
        nib.wrapstruct.WrapStructError,
        LookupError,
        ArithmeticError,
        ValueError,
    ) as error:
        raise unreadable(
            path, f"a header that is not valid ({error!r})", "a NIfTI header", "Export it again."
        ) from error
    return header


def _shape(path: Path, header: Any) -> Shape4:
    """Return the shape (C, z, y, x). Raise ``FileFormatError`` if the axes or the data type are not supported."""
    axes = tuple(int(length) for length in header.get_data_shape())
    dtype = header.get_data_dtype()
    if min(axes) < 1:
        raise unreadable(path, f"axes {axes}", "2 or 3 spatial axes, none of them empty", "Export the image again.")
    x, y, z, *rest = (*axes, 1)[: max(3, len(axes))]
    if sum(length > 1 for length in rest) > 1 or (dtype.names and max([1, *rest]) > 1):
        raise unreadable(
            path, f"axes {axes} of {dtype}", "at most one axis of channels beside x, y, z", "Save one channel per file."
        )
    if dtype.kind == "c":
        raise unreadable(path, "complex values", "real values", "Save magnitude (and phase) as real images.")
    return (int(np.prod(rest)) * len(dtype.names or (0,)), z, y, x)


def _slope_inter(header: Any) -> tuple[float, float]:
    """Return slope and intercept; (1, 0) if the slope is 0. Values that are not finite count as 0, as in ITK."""
    slope, inter = (float(value) if np.isfinite(value) else 0.0 for value in (header["scl_slope"], header["scl_inter"]))
    return (slope, inter) if slope else (1.0, 0.0)


def scaled(array: NDArray[Any], header: Any) -> NDArray[Any]:
    """Return the image (C, z, y, x) with slope and intercept applied, float32; unchanged without them.

    Computed in double precision if the stored type has 32 bits or more.
    """
    slope, inter = _slope_inter(header)
    if header.get_data_dtype().names or (slope, inter) == (1, 0):
        return array
    precision = np.float32 if array.dtype.itemsize <= 2 else np.float64
    scaled: NDArray[np.floating[Any]] = np.multiply(array, slope, dtype=precision)
    scaled += inter
    return scaled.astype(np.float32, copy=False)


def _unit(header: Any) -> float:
    """Return the number of mm per unit of length in the header."""
    return MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)


def _geometry(path: Path, header: Any) -> Geometry:
    """Return the geometry that ITK gives to the file, computed here if ITK refuses it, with the header as metadata.

    Where SimpleITK is not installed it is always computed here: for files with an sform or a qform the same up to
    rounding.
    """
    try:
        geometry = _itk_geometry(path, header) if is_installed() else _orthonormalised(path, header)
    except FileFormatError as error:
        if "orthonormal" not in str(error) and header.structarr.dtype.itemsize == 348:
            raise
        geometry = _orthonormalised(path, header)
    edges = geometry.spacing if geometry.ndim == 3 else geometry.spacing[1:]
    if not all(np.isfinite(edge) and edge > 0 for edge in edges):
        raise unreadable(path, f"voxel edges {edges}", "finite edges above 0", "Correct pixdim in the header.")
    block = base64.b64encode(header.as_byteswapped("<").binaryblock).decode("ascii")
    is_directed = bool(header["sform_code"] or header["qform_code"])
    return geometry.model_copy(update={"metadata": {HEADER_KEY: block}, "is_directed": is_directed})


def _itk_geometry(path: Path, header: Any) -> Geometry:
    if path.name.lower().endswith(".gz") or not _is_gzip(path):
        return itk_geometry(open_itk(path))
    with tempfile.TemporaryDirectory() as folder:  # ITK goes by the name: it cannot read a compressed file named .nii
        plain = Path(folder) / "header.nii"
        plain.write_bytes(header.binaryblock + bytes(4))
        try:
            return itk_geometry(open_itk(plain))
        except FileFormatError as error:
            fault = error.fault
            found = fault.found.replace(str(plain), str(path))
            raise FileFormatError(replace(fault, where=str(path), found=found)) from error


def _remarks(path: Path, header: Any, geometry: Geometry) -> tuple[str, ...]:
    """Return remarks on contradictions inside the header, or between the content and the name of the file."""
    remarks = []
    if _is_gzip(path) != path.name.lower().endswith(".gz"):
        is_not = "is" if _is_gzip(path) else "is not"
        remarks.append(f"the content {is_not} gzip-compressed, in contrast to the file name; it is read all the same")
    stated = (float(header["scl_slope"]), float(header["scl_inter"]))
    if np.isfinite(stated).sum() == 1 and stated[0] != 0:
        remarks.append(f"scl_slope and scl_inter are {stated[0]:g} and {stated[1]:g}; {_slope_inter(header)} are used")
    return (*remarks, *_placement_remarks(header, geometry))


def _placement_remarks(header: Any, geometry: Geometry) -> tuple[str, ...]:
    """Return a remark if pixdim, qform and sform disagree on the voxel size or position; otherwise ()."""
    edges = geometry.spacing[::-1][: geometry.ndim]
    cosines = np.asarray(geometry.direction).reshape(3, 3)[:, : geometry.ndim]
    taken = LPS_RAS @ np.column_stack([cosines * edges, geometry.origin])
    for name, matrix in _forms(header, geometry.ndim).items():
        lengths = np.linalg.norm(matrix[:, :-1], axis=0)
        if not np.allclose(lengths, edges, rtol=SPACING_TOLERANCE):
            pixdim = header["pixdim"][1 : geometry.ndim + 1] * _unit(header)
            return (
                f"voxel edges differ: {_shown(pixdim)} mm in pixdim, {_shown(lengths)} mm in {name}. "
                f"{_shown(edges)} mm is used, as in ITK. Correct the header if that is wrong",
            )
        if not np.allclose(matrix, taken, rtol=SPACING_TOLERANCE, atol=10 * SPACING_TOLERANCE * max(edges)):
            return (f"qform and sform place the voxels differently; {name} is ignored, as in ITK",)
    return ()


def _forms(header: Any, ndim: int) -> dict[str, NDArray[np.float64]]:
    """Return the affines of a header: name -> (3, ndim + 1) float64 in mm, RAS. Empty if it has none."""
    forms = {}
    for name, code, read in (("sform", "sform_code", header.get_sform), ("qform", "qform_code", header.get_qform)):
        with suppress(ValueError, ArithmeticError, nib.spatialimages.HeaderDataError):
            if int(header[code]) > 0:
                matrix = np.asarray(read(), dtype=np.float64)[:3] * _unit(header)
                forms[name] = matrix[:, [*range(ndim), 3]]
    return {name: matrix for name, matrix in forms.items() if np.isfinite(matrix).all()}


def _shown(edges: Any) -> str:
    return " x ".join(f"{float(edge):.6g}" for edge in edges)


def _orthonormalised(path: Path, header: Any) -> Geometry:
    """Return the geometry of a header that ITK refuses, with exactly orthogonal axes.

    Raises ``FileFormatError`` if the axes deviate from right angles by more than ``SHEAR_TOLERANCE``.
    """
    matrix = LPS_RAS @ header.get_best_affine()[:3] * _unit(header)
    spacing = np.linalg.norm(matrix[:, :3], axis=0)
    cosines = matrix[:, :3] / np.where(spacing > 0, spacing, np.nan)
    shear = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if not shear <= SHEAR_TOLERANCE:
        raise unreadable(
            path,
            f"sheared axes (cosine {shear:.2g} between two of them)",
            "axes at right angles",
            "Resample the image to an orthogonal grid (correct the gantry tilt), or repair sform and qform.",
        )
    u, _, v = np.linalg.svd(cosines)
    x, y, z = (float(edge) for edge in spacing)
    flat = len(header.get_data_shape()) == 2
    return Geometry(
        spacing=flat_spacing(y, x) if flat else (z, y, x),
        origin=tuple(matrix[:, 3].tolist()),
        direction=tuple((u @ v).ravel().tolist()),
        ndim=2 if flat else 3,
    )


def _written_header(zyx: tuple[int, ...], dtype: np.dtype[Any], geometry: Geometry) -> Any:
    """Return the header for a file of shape (z, y, x): of the source image, or made from ``geometry``."""
    shape = zyx[::-1][: geometry.ndim]
    header = _source_header(shape, geometry) or _made_header(shape, geometry)
    header.set_data_dtype(dtype)
    header.set_data_offset(header.structarr.dtype.itemsize + 4)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"], header["cal_min"] = 0, 0
    header["intent_code"], header["intent_name"] = 0, b""
    for key in ("intent_p1", "intent_p2", "intent_p3"):
        header[key] = 0
    return header


def _source_header(shape: tuple[int, ...], geometry: Geometry) -> Any:
    """Return the header stored in ``metadata``; None if there is none, or if its shape or spacing differs."""
    if HEADER_KEY not in geometry.metadata:
        return None
    block = base64.b64decode(geometry.metadata[HEADER_KEY])
    header = HEADER_CLASSES[int.from_bytes(block[:4], "little")](block, endianness="<", check=False)
    edges = np.abs(header["pixdim"][1 : len(shape) + 1]) * _unit(header)
    same_spacing = np.allclose(edges, geometry.spacing[::-1][: len(shape)], rtol=SPACING_TOLERANCE) or not edges.all()
    if tuple(header.get_data_shape()[: len(shape)]) != shape or not same_spacing:
        return None
    header.set_data_shape(shape)
    return header


def _made_header(shape: tuple[int, ...], geometry: Geometry) -> Any:
    """Return a NIfTI-1 header for ``shape`` (x, y[, z]) with sform and qform from ``geometry``."""
    spacing = geometry.spacing[::-1] if geometry.ndim == 3 else (geometry.spacing[2], geometry.spacing[1], 1.0)
    affine = np.eye(4)
    affine[:3, :3] = LPS_RAS @ np.asarray(geometry.direction).reshape(3, 3) * np.asarray(spacing)
    affine[:3, 3] = LPS_RAS @ geometry.origin
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_zooms(spacing[: len(shape)])
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    header.set_xyzt_units("mm")
    return header
