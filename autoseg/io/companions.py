"""Files that belong to an image: the spacing of a TIFF stack, the data of an ``.mhd`` header, what a folder holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from autoseg.core.errors import FileFormatError
from autoseg.core.location import HDF5_ENDINGS
from autoseg.io.chunked import is_chunked, metadata_files
from autoseg.io.metaimage import read_meta_header
from autoseg.io.sections import section_files
from autoseg.io.sidecar import sidecars
from autoseg.io.tile_json import describes_tiles, tile_files, tile_folders

WITHOUT_SPACING = (*HDF5_ENDINGS, ".npy")
"""Endings of files of arrays that may take their voxel size from a JSON file beside them."""


def companions(path: Path) -> tuple[Path, ...]:
    """Return the existing files, other than ``path`` itself, that are read when ``path`` is read; usually none.

    For an ``.mhd`` file with one data file per slice, the data files are not listed. Of a folder these are the pictures
    of sections, or the metadata of Zarr, N5 or Precomputed, and the JSON file with its voxel size. Of a tile JSON these
    are the folders of its tiles, which change when a tile is added or removed.
    """
    if path.is_dir():
        parts = metadata_files(path) if is_chunked(path) else tuple(section_files(path))
        return (*parts, *_voxel_size(path))
    if path.suffix.lower() == ".json":
        with suppress(OSError, FileFormatError):
            return tile_folders(path) if describes_tiles(path) else ()
    beside = [name for name in sidecars(path) if name.is_file()]
    if path.suffix.lower() in WITHOUT_SPACING:
        beside += _voxel_size(path)
    if path.suffix.lower() == ".mhd":
        with suppress(OSError, FileFormatError):
            header = read_meta_header(path)
            beside += [header.data_file] if header.data_file.is_file() and header.data_file != path else []
    return tuple(beside)


def content_files(path: Path) -> Iterator[os.DirEntry[str] | Path]:
    """Yield every file of a volume in many files: what lies in a Zarr, N5 or Precomputed folder, tiles that exist.

    Of any other file or folder nothing is yielded.
    """
    if path.is_dir():
        yield from _files_below(path) if is_chunked(path) else ()
    elif path.suffix.lower() == ".json" and describes_tiles(path):
        with suppress(OSError, FileFormatError):
            yield from (tile for tile in tile_files(path) if tile.is_file())


def _files_below(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files_below(entry.path)
            else:
                yield entry


def _voxel_size(path: Path) -> list[Path]:
    """Return the JSON file from which an array may take its voxel size, if it is there."""
    beside = path.with_suffix(".json") if path.suffix else path.with_name(f"{path.name}.json")
    return [beside] if beside.is_file() else []
