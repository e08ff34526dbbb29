"""Files that belong to an image file and lie beside it: the spacing of a TIFF stack, the data of an ``.mhd`` header."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from autoseg.core.errors import FileFormatError
from autoseg.io.metaimage import read_meta_header
from autoseg.io.sidecar import sidecars


def companions(path: Path) -> tuple[Path, ...]:
    """Return the existing files, other than ``path`` itself, that are read when ``path`` is read; usually none.

    For an ``.mhd`` file with one data file per slice, the data files are not listed.
    """
    beside = [name for name in sidecars(path) if name.is_file()]
    if path.suffix.lower() == ".mhd":
        with suppress(OSError, FileFormatError):
            header = read_meta_header(path)
            beside += [header.data_file] if header.data_file.is_file() and header.data_file != path else []
    return tuple(beside)
