"""TIFF: one slice like a photograph, or a stack (z, y, x), each with channels, in any order that the file names.

What an axis is, tifffile tells (OME, ImageJ, or its own description); every compression is inflated by imagecodecs.
``tifffile`` drops pages of a truncated stack, or fills them with zeros, and only logs it, so what it logs about that is
an error here, and every strip must lie inside the file. A palette says how indices are shown: the indices are read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

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
"""Letters of tifffile that become z: depth, and pages of which the file does not say what they count."""
CHANNEL_AXES = "CS"
TIME_AXIS = "T"
DAMAGE = re.compile(r"offset|corrupt|failed to reshape|invalid ifd|not supported", re.IGNORECASE)
INCOMPLETE = re.compile(
    r"zeroed|failed to read|missing|out of range|invalid tiffdata|expected \d+ frames", re.IGNORECASE
)
PAGE_KINDS = ("shaped", "generic", "uniform")
"""Kinds of series that are just pages: equal ones, written one by one, are one stack."""
EXACT = frozenset((1, 2, 3, 4, 5, 8, 32771, 32773, 32946, 34925, 34926, 34933, 50000, 50013))
"""Compressions that keep every value: none, CCITT, LZW, deflate, PackBits, LZMA, PNG, Zstandard. Others (all that begin
with JPEG, WebP, LERC) may have changed values, and do not say so."""
BILEVEL_WHITE_IS_ZERO = 0
ALPHA = (1, 2)
"""Values of ExtraSamples that mean opacity."""


def read_tiff(path: Path) -> StoredImage:
    """Read a file (C, z, y, x) in its stored type; of a pyramid the full resolution.

    Raises ``FileFormatError`` if it is truncated, damaged, or has axes that are neither depth nor channels.
    """
    return _read(path, as_labels=False)


def read_tiff_labels(path: Path) -> StoredImage:
    """Read a label file as :func:`read_tiff` does, without an alpha channel that says nothing.

    Raises ``FileFormatError`` also if the compression may have changed values.
    """
    return _read(path, as_labels=True)


def read_tiff_header(path: Path) -> StoredHeader:
    """Read shape (C, z, y, x) and geometry without the voxels."""
    check_file(path)
    with _opened(path) as file:
        return _describe(path, file, _series(path, file))


def write_tiff(path: Path, labels: NDArray[np.unsignedinteger], geometry: Geometry) -> None:
    """Write labels (z, y, x), deflated, atomically; beside a stack ``<name>.json`` with its spacing (z, y, x).

    Source: nnU-Net ``imageio/tif_reader_writer.py`` (the sidecar). A 2-D image becomes a plain picture.
    """
    array = smallest_unsigned(labels)
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary, array[0] if geometry.ndim == 2 else array, compression="zlib", photometric="minisblack"
        )
    if geometry.ndim == 3:
        write_spacing(path, geometry.spacing)


def _read(path: Path, *, as_labels: bool) -> StoredImage:
    check_file(path)
    with _opened(path) as file:
        pages = _series(path, file)
        header = _describe(path, file, pages)
        if as_labels:
            _check_exact(path, file)
        arrays = [series.asarray() for series in pages]
        array = arrays[0] if len(pages) == 1 else np.stack(arrays)
        array = _ordered(array, _axes(pages)).reshape(header.shape)
        page = pages[0].keyframe
        if array.dtype == bool:
            array = (array != _is_inverted(page)).astype(np.uint8)
        if as_labels and _has_alpha(pages[0].axes, page):
            array = without_alpha(path, array)
    return StoredImage(array, header.geometry)


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a file; all that tifffile raises or logs about damage becomes a ``FileFormatError``."""
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
        raise _damaged(path, complaints.messages[0])


def _damaged(path: Path, message: str) -> FileFormatError:
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
    """Collects what tifffile logs about damage."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message that speaks of damage."""
        if DAMAGE.search(record.getMessage()) or INCOMPLETE.search(record.getMessage()):
            self.messages.append(record.getMessage())


def _check_strips(path: Path, file: tifffile.TiffFile) -> None:
    size = path.stat().st_size
    for page in file.pages:
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if ends and max(ends) > size:
            raise tifffile.TiffFileError(f"{size} bytes, expected at least {max(ends)}")


def _check_exact(path: Path, file: tifffile.TiffFile) -> None:
    """Raise ``FileFormatError`` if a page is compressed by what may change values."""
    used = {int(page.compression) for page in file.pages} - EXACT
    if not used:
        return
    names = ", ".join(_compression_name(number) for number in sorted(used))
    raise unreadable(
        path,
        f"labels compressed as {names}, which may change values",
        "labels stored without loss",
        "Export them again from the program in which they were drawn, with LZW, deflate or no compression; if you know "
        "that nothing was lost, save this file so.",
    )


def _compression_name(number: int) -> str:
    try:
        return tifffile.COMPRESSION(number).name
    except ValueError:
        return f"number {number}"


def _series(path: Path, file: tifffile.TiffFile) -> list[tifffile.TiffPageSeries]:
    """Return the series that make up the image: one, or equal pages; raise ``FileFormatError`` if there are several."""
    found = list(file.series)
    if not found:
        raise unreadable(path, "no image", "one image or one stack", "Export the file again.")
    first = found[0]
    others = [series for series in found[1:] if not _is_smaller_copy(series, first)]
    if not others:
        return [first]
    forms = {(series.kind, series.axes, series.shape, str(series.dtype)) for series in found}
    if len(forms) == 1 and first.kind in PAGE_KINDS and len(_long_axes([first])) == _n_in_page(first):
        return found
    what = "different shape" if len({series.shape for series in found}) > 1 else "equal shape, which are no stack"
    fix = "Save each image in a file of its own."
    raise unreadable(path, f"{len(found)} images of {what}", "one image or one stack", fix)


def _n_in_page(series: tifffile.TiffPageSeries) -> int:
    """Return how many axes longer than 1 a single page of a series has."""
    return sum(length > 1 for length in series.keyframe.shape)


def _is_smaller_copy(series: tifffile.TiffPageSeries, first: tifffile.TiffPageSeries) -> bool:
    """Whether a series is another level of a pyramid, or a thumbnail, of the first."""
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


def _axes(pages: Sequence[tifffile.TiffPageSeries]) -> list[tuple[str, int]]:
    """Return letter and length of every axis of the array that :func:`_read` makes of ``pages``."""
    own = list(zip(pages[0].axes, pages[0].shape, strict=True))
    return own if len(pages) == 1 else [("I", len(pages)), *own]


def _long_axes(pages: Sequence[tifffile.TiffPageSeries]) -> list[tuple[str, int]]:
    """Return the axes that matter: y, x, and others longer than 1."""
    return [(axis, length) for axis, length in _axes(pages) if axis in "YX" or length > 1]


def _describe(path: Path, file: tifffile.TiffFile, pages: Sequence[tifffile.TiffPageSeries]) -> StoredHeader:
    axes = _long_axes(pages)
    letters = "".join(axis for axis, _ in axes)
    lengths = dict(axes)
    depth = [axis for axis in letters if axis not in "YX" and axis not in CHANNEL_AXES]
    channels = [axis for axis in letters if axis in CHANNEL_AXES]
    shown = f"axes {letters} {tuple(length for _, length in axes)}"
    if depth.count(TIME_AXIS):
        fix = "Save one time point per file. If these are slices, say so in the file (in Fiji: Image > Properties)."
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


def _is_inverted(page: tifffile.TiffPage) -> bool:
    """Whether 0 stands for white in a file of one bit: 1 is white then, as ITK and Pillow read it.

    ``tifffile.imwrite`` calls every array of truth values so, whatever it means, and reads it back as it was.
    """
    is_of_tifffile = page.is_shaped or str(page.software).startswith("tifffile")
    return bool(page.photometric == BILEVEL_WHITE_IS_ZERO) and not is_of_tifffile


def _remarks(page: tifffile.TiffPage) -> tuple[str, ...]:
    remarks = []
    if page.photometric == BILEVEL_WHITE_IS_ZERO and page.bitspersample != 1:
        remarks.append("white is stated to be 0 (photometric MINISWHITE); values are taken as they are stored")
    return (*remarks, *orientation_remark(page.tags.valueof("Orientation", 1)))


def _ordered(array: NDArray[Any], axes: Sequence[tuple[str, int]]) -> NDArray[Any]:
    """Return an array with axes in the order channels, depth, y, x, of those that matter."""
    kept = [(axis, length) for axis, length in axes if axis in "YX" or length > 1]
    rank = {axis: 0 for axis in CHANNEL_AXES} | {"Y": 2, "X": 3}
    order = sorted(range(len(kept)), key=lambda index: rank.get(kept[index][0], 1))
    return array.reshape([length for _, length in kept]).transpose(order)


def _has_alpha(axes: str, page: tifffile.TiffPage) -> bool:
    """Whether the last of the samples of a pixel is opacity."""
    return "S" in axes and tuple(page.extrasamples)[-1:] != () and int(page.extrasamples[-1]) in ALPHA
