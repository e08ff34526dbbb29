"""TIFF stacks that are read box by box: only the strips or tiles of a file that a box touches are decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from autoseg.core.boxes import Box
from autoseg.io.file_contents import check_file
from autoseg.io.stored_array import StoredArray, number_type
from autoseg.io.tiff import (
    CHANNEL_AXES,
    axes_of,
    check_exact,
    damaged,
    described,
    has_alpha,
    opened_tiff,
    ordered,
    read_tiff,
    read_tiff_labels,
    stack_series,
)
from autoseg.io.tiled_planes import TileCache, TiledPlanes


@dataclass(frozen=True)
class _Segments:
    """Places of the compressed strips or tiles of all pages in a file."""

    path: Path
    pages: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """Offsets and numbers of bytes of the segments of each page."""
    decode: Callable[[bytes | None, int], Any]
    """tifffile's decoder of the pages, which are all of one form."""
    empty: tuple[int | float, np.dtype[Any]]
    """Value and type of segments that the writer left out."""
    cache: TileCache

    def decoded(self, page: int, segment: int) -> NDArray[Any]:
        """Return a segment (C, h, w) of a page. It is decoded once, and then held while there is room."""
        return self.cache.get((page, segment), lambda: self._decode(page, segment))

    def _decode(self, page: int, segment: int) -> NDArray[Any]:
        offsets, counts = self.pages[page]
        try:
            with self.path.open("rb") as file:  # opened each time, so that threads and processes share no position
                file.seek(offsets[segment])
                content = file.read(counts[segment]) if counts[segment] else None
            values, _, shape = self.decode(content, segment)
        except MemoryError:
            raise
        except Exception as error:  # every codec has errors of its own
            raise damaged(self.path, " ".join(str(error).split()) or type(error).__name__) from error
        if values is None:
            values = np.full(shape, *self.empty)
        return np.moveaxis(values[0], -1, 0)


def open_tiff(path: Path, *, as_labels: bool = False) -> StoredArray:
    """Return the image of a TIFF file, of a pyramid the full resolution; no page is decoded.

    Uncompressed stacks are memory-mapped. Files whose pages are not single planes, and pictures of one bit per pixel,
    are read whole and held in memory.

    Raises
    ------
    FileFormatError
        As ``autoseg.io.tiff.read_tiff``. Reading a box raises it if a strip or tile is damaged.
    """
    check_file(path)
    with opened_tiff(path) as file:
        series = stack_series(path, file)
        header = described(path, file, series)
        if as_labels:
            check_exact(path, file)
        keyframe = series[0].keyframe
        stored = np.dtype(keyframe.dtype)
        is_plain = keyframe.dtype is not None and stored.kind != "b"
        is_plain = is_plain and not (as_labels and has_alpha(series[0].axes, keyframe))
        if is_plain and len(series) == 1 and series[0].dataoffset is not None:
            mapped = tifffile.memmap(path, series=0, mode="r")
            load = _of_array(ordered(mapped, axes_of(series)).reshape(header.shape))
            chunk = (1, *header.shape[2:])
            return StoredArray(str(path), header, number_type(path, "", stored), chunk, load)
        planes = _planes(path, series, header.shape) if is_plain else None
    if planes is not None:
        dtype = number_type(path, "", planes.dtype)
        return StoredArray(str(path), header, dtype, (1, *planes.tile), planes.read)
    array = (read_tiff_labels if as_labels else read_tiff)(path).array
    header = header._replace(shape=array.shape)
    return StoredArray(str(path), header, number_type(path, "", array.dtype), header.shape[1:], _of_array(array))


def _of_array(array: NDArray[Any]) -> Callable[[Box], NDArray[Any]]:
    return lambda box: array[(slice(None), *box.slices)]


def _planes(path: Path, series: list[tifffile.TiffPageSeries], shape: tuple[int, int, int, int]) -> TiledPlanes | None:
    """Return the planes of a stack with one plane (and its colours) a page; None for any other arrangement."""
    keyframe = series[0].keyframe
    if keyframe.axes not in ("YX", "YXS"):
        return None
    pages = [page for item in series for page in item.pages if page is not None]
    outer = [(axis, n) for axis, n in axes_of(series)[: -len(keyframe.axes)] if n > 1]
    n_samples = keyframe.shape[2] if keyframe.axes == "YXS" else 1
    n_channel_pages = shape[0] // n_samples
    if len(pages) != n_channel_pages * shape[1] or (n_channel_pages > 1 and n_samples > 1):
        return None
    is_channel_first = bool(outer) and outer[0][0] in CHANNEL_AXES
    places = tuple((tuple(page.dataoffsets), tuple(page.databytecounts)) for page in pages)
    # These attributes of a page are computed on first use, from the file, which is open only now.
    decoder = partial(keyframe.decode, jpegtables=keyframe.jpegtables, jpegheader=keyframe.jpegheader)
    dtype = np.dtype(keyframe.dtype)
    segments = _Segments(path, places, decoder, (keyframe.nodata, dtype), TileCache())
    height, width = keyframe.chunks[:2]
    columns = keyframe.chunked[1]

    def decode(z: int, row: int, column: int) -> NDArray[Any]:
        strides = (shape[1], 1) if is_channel_first else (1, n_channel_pages)
        numbers = (c * strides[0] + z * strides[1] for c in range(n_channel_pages))
        channels = [segments.decoded(number, row * columns + column) for number in numbers]
        return channels[0] if len(channels) == 1 else np.concatenate(channels)

    return TiledPlanes(shape, (height, width), dtype, decode)
