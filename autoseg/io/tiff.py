"""TIFF files: one slice or a stack (z, y, x), with channels, axes in any order that the file states.

The meaning of the axes comes from tifffile (OME, ImageJ, or tifffile's own description); imagecodecs inflates every
compression. ``tifffile`` drops the missing pages of a truncated stack, or fills them with zeros, and only logs a
message. Such a message is an error here, and every strip must lie inside the file. Of a picture with a palette, the
indices are read, not the colours.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
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
    orientation_remark,
    smallest_unsigned,
    unreadable,
    without_alpha,
)
from autoseg.io.sidecar import write_spacing
from autoseg.io.tiff_spacing import tiff_geometry

DEPTH_AXES = "ZQI"
"""Axis letters of tifffile that become z: depth, and pages without a stated meaning."""
CHANNEL_AXES = "CS"
TIME_AXIS = "T"
DAMAGE = re.compile(r"offset|corrupt|failed to reshape|invalid ifd|not supported", re.IGNORECASE)
INCOMPLETE = re.compile(
    r"zeroed|failed to read|missing|out of range|invalid tiffdata|expected \d+ frames", re.IGNORECASE
)
PAGE_KINDS = ("shaped", "generic", "uniform")
"""Kinds of series that are single pages. Pages of equal shape and type form one stack."""
EXACT = frozenset((1, 2, 3, 4, 5, 8, 32771, 32773, 32946, 34925, 34926, 34933, 50000, 50013))
"""Codes of lossless compressions: none, CCITT, LZW, deflate, PackBits, LZMA, PNG, Zstandard. Others (JPEG..., WebP,
LERC) may be lossy, and a file does not state whether it is."""
BILEVEL_WHITE_IS_ZERO = 0
ALPHA = (1, 2)
"""Values of the tag ExtraSamples that mean opacity."""


def read_tiff(path: Path) -> StoredImage:
    """Read an image (C, z, y, x) in its stored type; of a pyramid, the full resolution.

    Raises ``FileFormatError`` if it is truncated, damaged, or has axes that are neither depth nor channels.
    """
    return _read(path, as_labels=False)


def read_tiff_labels(path: Path) -> StoredImage:
    """Read labels (C, z, y, x) as :func:`read_tiff` does, without an alpha channel.

    Also raises ``FileFormatError`` if the compression may be lossy, or if the alpha channel carries information.
    """
    return _read(path, as_labels=True)


def read_tiff_header(path: Path) -> StoredHeader:
    """Read shape (C, z, y, x) and geometry without the voxels."""
    check_file(path)
    with opened_tiff(path) as file:
        return described(path, file, stack_series(path, file))


def write_tiff(path: Path, labels: NDArray[np.unsignedinteger], geometry: Geometry) -> None:
    """Write labels (z, y, x) with deflate compression, atomically, and ``<name>.json`` with the spacing of a stack.

    A 2-D image is written as one page, without a JSON file. Source: nnU-Net ``imageio/tif_reader_writer.py`` (JSON).
    """
    array = smallest_unsigned(labels)
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary, array[0] if geometry.ndim == 2 else array, compression="zlib", photometric="minisblack"
        )
    if geometry.ndim == 3:
        write_spacing(path, geometry.spacing)


def write_tiff_values(path: Path, values: Float32Array, geometry: Geometry) -> None:
    """Write numbers (C, z, y, x) float32 as :func:`write_tiff` does; of several channels, the first axis."""
    is_flat = geometry.ndim == 2
    array, axes = (values[:, 0], "CYX") if is_flat else (values, "CZYX")
    if len(values) == 1:
        array, axes = array[0], axes[1:]
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, array, compression="zlib", photometric="minisblack", metadata={"axes": axes})
    if not is_flat:
        write_spacing(path, geometry.spacing)


def write_tiff_planes(
    path: Path, planes: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any], geometry: Geometry
) -> None:
    """Write an array (C, z, y, x), given as its planes (y, x), as :func:`write_tiff_values` does, as BigTIFF."""
    is_flat = geometry.ndim == 2
    axes, edges = ("CYX", (shape[0], *shape[2:])) if is_flat else ("CZYX", shape)
    if shape[0] == 1:
        axes, edges = axes[1:], edges[1:]
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as file:
        file.write(
            iter(planes), shape=edges, dtype=dtype, compression="zlib", photometric="minisblack",
            metadata={"axes": axes},
        )  # fmt: skip
    if not is_flat:
        write_spacing(path, geometry.spacing)


def _read(path: Path, *, as_labels: bool) -> StoredImage:
    """Read an image (C, z, y, x); labels without their alpha channel."""
    check_file(path)
    with opened_tiff(path) as file:
        pages = stack_series(path, file)
        header = described(path, file, pages)
        if as_labels:
            check_exact(path, file)
        arrays = [series.asarray() for series in pages]
        array = arrays[0] if len(pages) == 1 else np.stack(arrays)
        array = ordered(array, axes_of(pages)).reshape(header.shape)
        page = pages[0].keyframe
        if array.dtype == bool:
            array = (array != is_inverted(page)).astype(np.uint8)
        if as_labels and has_alpha(pages[0].axes, page):
            array = without_alpha(path, array)
    return StoredImage(array, header.geometry)


@contextmanager
def opened_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a file. Every exception of tifffile, and every message it logs about damage, raises ``FileFormatError``."""
    complaints = _Complaints()
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(complaints)
    try:
        with tifffile.TiffFile(path) as file:
            _check_strips(path, file)
            yield file
    except (FileFormatError, MemoryError):
        raise
    except Exception as error:  # every codec has errors of its own
        complaints.messages.append(" ".join(str(error).split()) or type(error).__name__)
    finally:
        logger.removeHandler(complaints)
        logger.propagate = propagate
    if complaints.messages:
        raise damaged(path, complaints.messages[0])


def damaged(path: Path, message: str) -> FileFormatError:
    """Return the error for a file of which tifffile or a codec says ``message``."""
    message = re.sub(r"<(tifffile\.)?Tiff\w+ .*?> ", "", message)
    if "imagecodecs" in message:
        fix = "Install a complete imagecodecs (pip install imagecodecs), or save the file with LZW or no compression."
        return unreadable(path, f"a compression that cannot be read ({message})", "one that imagecodecs reads", fix)
    if INCOMPLETE.search(message):
        fix = "Its planes may lie in other files: save all of them in one file (in Fiji: File > Save As > Tiff)."
        return unreadable(path, f"a file without all of its planes ({message})", "all planes in one file", fix)
    fix = "It may be truncated: copy or export it again."
    return unreadable(path, f"a damaged file ({message})", "a complete TIFF file", fix)


class _Complaints(logging.Handler):
    """Log handler that collects tifffile's messages about damage."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store a message if it is about damage."""
        if DAMAGE.search(record.getMessage()) or INCOMPLETE.search(record.getMessage()):
            self.messages.append(record.getMessage())


def _check_strips(path: Path, file: tifffile.TiffFile) -> None:
    """Raise ``TiffFileError`` if pixel data would lie beyond the end of the file."""
    size = path.stat().st_size
    for page in file.pages:
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if ends and max(ends) > size:
            raise tifffile.TiffFileError(f"{size} bytes, expected at least {max(ends)}")


def check_exact(path: Path, file: tifffile.TiffFile) -> None:
    """Raise ``FileFormatError`` if a page has a compression that may be lossy."""
    used = {int(page.compression) for page in file.pages} - EXACT
    if not used:
        return
    names = ", ".join(_compression_name(number) for number in sorted(used))
    raise unreadable(
        path,
        f"labels compressed as {names}, which may change values",
        "labels stored without loss",
        "Export them again from the program in which they were drawn, with LZW, deflate or no compression. If you know "
        "that the values are exact, save this file with one of these compressions.",
    )


def _compression_name(number: int) -> str:
    try:
        return tifffile.COMPRESSION(number).name
    except ValueError:
        return f"number {number}"


def stack_series(path: Path, file: tifffile.TiffFile) -> list[tifffile.TiffPageSeries]:
    """Return the series that make up the image: a single one, or all pages of a stack.

    Raises ``FileFormatError`` if the file holds no image, or several that are not pages of one stack.
    """
    every = list(file.series)
    if not every:
        raise unreadable(path, "no image", "one image or one stack", "Export the file again.")
    first = every[0]
    others = [series for series in every[1:] if not _is_smaller_copy(series, first)]
    if not others:
        return [first]
    forms = {(series.kind, series.axes, series.shape, str(series.dtype)) for series in every}
    if len(forms) == 1 and first.kind in PAGE_KINDS and len(_long_axes([first])) == _n_in_page(first):
        return every
    kind = "different shape" if len({series.shape for series in every}) > 1 else "equal shape that are not one stack"
    fix = "Save each image in a separate file."
    raise unreadable(path, f"{len(every)} images of {kind}", "one image or one stack", fix)


def _n_in_page(series: tifffile.TiffPageSeries) -> int:
    """Return the number of axes longer than 1 of a single page of a series."""
    return sum(length > 1 for length in series.keyframe.shape)


def _is_smaller_copy(series: tifffile.TiffPageSeries, first: tifffile.TiffPageSeries) -> bool:
    """Whether a series is a thumbnail of the first, or a coarser level of the same pyramid."""
    if series.keyframe.is_reduced:
        return True
    small, large = (dict(zip(item.axes, item.shape, strict=True)) for item in (series, first))
    if series.axes != first.axes or not {"Y", "X"} <= set(small):
        return False
    if any(small[axis] != large[axis] for axis in set(small) - {"Y", "X"}):
        return False
    factors = {round(large[axis] / small[axis]) for axis in "YX"}
    factor = min(factors)
    return len(factors) == 1 and factor > 1 and all(abs(large[axis] / factor - small[axis]) < 1 for axis in "YX")


def axes_of(pages: Sequence[tifffile.TiffPageSeries]) -> list[tuple[str, int]]:
    """Return letter and length of every axis of the array made from ``pages``."""
    own = list(zip(pages[0].axes, pages[0].shape, strict=True))
    return own if len(pages) == 1 else [("I", len(pages)), *own]


def _long_axes(pages: Sequence[tifffile.TiffPageSeries]) -> list[tuple[str, int]]:
    """Return letter and length of y, x, and the other axes longer than 1."""
    return [(axis, length) for axis, length in axes_of(pages) if axis in "YX" or length > 1]


def described(path: Path, file: tifffile.TiffFile, pages: Sequence[tifffile.TiffPageSeries]) -> StoredHeader:
    """Return shape (C, z, y, x), geometry and remarks. Raise ``FileFormatError`` for axes that are not supported."""
    axes = _long_axes(pages)
    letters = "".join(axis for axis, _ in axes)
    lengths = dict(axes)
    depth = [axis for axis in letters if axis not in "YX" and axis not in CHANNEL_AXES]
    channels = [axis for axis in letters if axis in CHANNEL_AXES]
    shown = f"axes {letters} {tuple(length for _, length in axes)}"
    if depth.count(TIME_AXIS):
        fix = "Save one time point per file. If T counts slices, correct the file (in Fiji: Image > Properties)."
        raise unreadable(path, f"{shown}, of which T is time", "y, x and at most depth (Z) and channels (C)", fix)
    is_placed = not {"Y", "X"} - set(letters) and len(depth) <= 1 and len(channels) <= 1
    if not is_placed or not set(depth) <= set(DEPTH_AXES):
        fix = "Name the axes in the file (in Fiji: Image > Properties), or save one channel per file as z, y, x."
        raise unreadable(path, shown, "y, x and at most one axis each of depth (Z) and channels (C)", fix)
    z = lengths[depth[0]] if depth else 1
    c = lengths[channels[0]] if channels else 1
    if pages[0].dtype is not None and pages[0].dtype.kind == "c":
        raise unreadable(path, "complex values", "real values", "Save magnitude (and phase) as real images.")
    shape: Shape4 = (c, z, lengths["Y"], lengths["X"])
    geometry, unknown_size = tiff_geometry(path, file, ndim=3 if depth else 2)
    return StoredHeader(shape, geometry, _remarks(pages[0].keyframe), unknown_size)


def is_inverted(page: tifffile.TiffPage) -> bool:
    """Whether 0 means white in a file with one bit per pixel, so that values must be swapped, as ITK and Pillow do.

    ``tifffile.imwrite`` marks every boolean array in this way and reads it back unchanged; its files are not swapped.
    """
    is_of_tifffile = page.is_shaped or str(page.software).startswith("tifffile")
    return bool(page.photometric == BILEVEL_WHITE_IS_ZERO) and not is_of_tifffile


def _remarks(page: tifffile.TiffPage) -> tuple[str, ...]:
    remarks = []
    if page.photometric == BILEVEL_WHITE_IS_ZERO and page.bitspersample != 1:
        remarks.append("0 means white in this file (photometric MINISWHITE); values are read as they are stored")
    return (*remarks, *orientation_remark(page.tags.valueof("Orientation", 1)))


def ordered(array: NDArray[Any], axes: Sequence[tuple[str, int]]) -> NDArray[Any]:
    """Return the array (C, z, y, x), reordered from ``axes``, without those of C and z that have length 1."""
    long_axes = [(axis, length) for axis, length in axes if axis in "YX" or length > 1]
    rank = {axis: 0 for axis in CHANNEL_AXES} | {"Y": 2, "X": 3}
    order = sorted(range(len(long_axes)), key=lambda index: rank.get(long_axes[index][0], 1))
    return array.reshape([length for _, length in long_axes]).transpose(order)


def has_alpha(axes: str, page: tifffile.TiffPage) -> bool:
    """Whether the last sample of a pixel is opacity."""
    return "S" in axes and tuple(page.extrasamples)[-1:] != () and int(page.extrasamples[-1]) in ALPHA
