"""TIFF: one slice like a photograph, or a stack (z, y, x) with spacing from a sidecar, ImageJ or OME.

``tifffile`` drops pages of a truncated stack and only logs it, so everything that it logs about offsets is an error
here, and every strip must lie inside the file. Compressions that it cannot inflate by itself (LZW) are read by ITK.
"""

from __future__ import annotations

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from autoseg.core.atomic import atomic_path
from autoseg.core.geometry import Geometry
from autoseg.io.itk import read_itk
from autoseg.io.sidecar import read_spacing, write_spacing
from autoseg.io.stored import (
    Shape4,
    Spacing,
    StoredHeader,
    StoredImage,
    assumed_geometry,
    check_file,
    flat_spacing,
    smallest_unsigned,
    unreadable,
)

DEPTH_AXES = "ZQIT"
"""Letters of tifffile that become z: depth, and page axes of unknown meaning."""
CHANNEL_AXES = "CS"
DAMAGE = re.compile(r"offset|corrupt|failed to reshape|invalid ifd", re.IGNORECASE)
MM_PER_UNIT = {
    "nm": 1e-6, "um": 1e-3, "µm": 1e-3, "\\u00b5m": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3,
    "micrometer": 1e-3, "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0,
}  # fmt: skip
NEEDS_CODECS = "imagecodecs"


def read_tiff(path: Path) -> StoredImage:
    """Read a file (C, z, y, x) in its stored type.

    Raises ``FileFormatError`` if it is truncated, damaged, or has axes that are neither depth nor channels.
    """
    check_file(path)
    with _opened(path) as file:
        header = _describe(path, file)
        axes = file.series[0].axes
        try:
            array = file.series[0].asarray()
        except ValueError as error:
            if NEEDS_CODECS not in str(error):
                raise
            array = read_itk(path).array
            axes = "SZYX"
    return StoredImage(_channels_first(array, axes).reshape(header.shape), header.geometry)


def read_tiff_header(path: Path) -> StoredHeader:
    """Read shape (C, z, y, x) and geometry without the voxels."""
    check_file(path)
    with _opened(path) as file:
        return _describe(path, file)


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
    except (tifffile.TiffFileError, zlib.error, ValueError, IndexError, KeyError, struct.error) as error:
        complaints.messages.append(str(error))
    finally:
        logger.removeHandler(complaints)
        logger.propagate = propagate
    if complaints.messages:
        raise unreadable(
            path,
            f"a damaged file ({complaints.messages[0]})",
            "a complete TIFF file",
            "It may be truncated: copy or export it again.",
        )


class _Complaints(logging.Handler):
    """Collects what tifffile logs about damage."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message that speaks of damage."""
        if DAMAGE.search(record.getMessage()):
            self.messages.append(record.getMessage())


def _check_strips(path: Path, file: tifffile.TiffFile) -> None:
    size = path.stat().st_size
    for page in file.pages:
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if ends and max(ends) > size:
            raise tifffile.TiffFileError(f"{size} bytes, expected at least {max(ends)}")


def _describe(path: Path, file: tifffile.TiffFile) -> StoredHeader:
    if len(file.series) != 1:
        found = f"{len(file.series)} images of different shape"
        raise unreadable(path, found, "one image or one stack", "Save each image in a file of its own.")
    series = file.series[0]
    lengths = dict(zip(series.axes, series.shape, strict=True))
    depth = [axis for axis in series.axes if axis not in "YX" and axis not in CHANNEL_AXES and lengths[axis] > 1]
    channels = [axis for axis in CHANNEL_AXES if lengths.get(axis, 1) > 1]
    if not set("YX") <= set(series.axes) or len(depth) > 1 or len(channels) > 1 or not set(depth) <= set(DEPTH_AXES):
        raise unreadable(
            path, f"axes {series.axes} {series.shape}", "y, x and at most one axis each of depth and channels",
            "Save one time point per file.",
        )  # fmt: skip
    z = lengths[depth[0]] if depth else 1
    c = lengths[channels[0]] if channels else 1
    shape: Shape4 = (c, z, lengths["Y"], lengths["X"])
    return StoredHeader(shape, _geometry(path, file, ndim=3 if depth else 2))


def _channels_first(array: NDArray[Any], axes: str) -> NDArray[Any]:
    order = sorted(range(len(axes)), key=lambda i: (axes[i] in "YX", axes[i] not in CHANNEL_AXES, axes[i] == "X"))
    return array.transpose(order)


def _geometry(path: Path, file: tifffile.TiffFile, *, ndim: int) -> Geometry:
    spacing = read_spacing(path) or _imagej_spacing(file) or _ome_spacing(file)
    if spacing is None:
        return assumed_geometry(ndim)
    return Geometry(spacing=spacing if ndim == 3 else flat_spacing(*spacing[1:]), ndim=ndim)


def _imagej_spacing(file: tifffile.TiffFile) -> Spacing | None:
    metadata = file.imagej_metadata or {}
    scale = MM_PER_UNIT.get(str(metadata.get("unit", "")).strip().lower())
    x, y = file.pages.first.resolution
    if scale is None or not x or not y:
        return None
    return (float(metadata.get("spacing", 1.0)) * scale, scale / y, scale / x)


def _ome_spacing(file: tifffile.TiffFile) -> Spacing | None:
    text = file.ome_metadata or ""
    edges = []
    for axis in "ZYX":
        size = re.search(rf'PhysicalSize{axis}="([^"]+)"', text)
        unit = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', text)
        scale = MM_PER_UNIT.get(unit.group(1) if unit else "µm")
        if size and scale:
            edges.append(float(size.group(1)) * scale)
        elif axis != "Z":
            return None
        else:
            edges.append(1.0)
    return (edges[0], edges[1], edges[2])
