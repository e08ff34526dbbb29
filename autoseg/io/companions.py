"""The files that lie beside an image file and belong to it: the spacing of a TIFF stack, the data of a header."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from autoseg.core.errors import FileFormatError
from autoseg.io.metaimage import read_meta_header
from autoseg.io.sidecar import sidecars


def companions(path: Path) -> tuple[Path, ...]:
    """Return the files from which a file takes more than its own content says; those that exist, often none.

    Of an ``.mhd`` file with a data file per slice none of them is named.
    """
    beside = [name for name in sidecars(path) if name.is_file()]
    if path.suffix.lower() == ".mhd":
        with suppress(OSError, FileFormatError):
            header = read_meta_header(path)
            beside += [header.data_file] if header.data_file.is_file() and header.data_file != path else []
    return tuple(beside)
