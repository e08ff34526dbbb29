"""Read arrays out of HDF5 files by their keys; needs the optional package h5py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import ConfigError
from autoseg.core.findings import did_you_mean, listed
from autoseg.io.file_contents import check_file, unreadable


class Hdf5Array(NamedTuple):
    """A data set inside a file."""

    path: Path
    key: str
    """Its name, with the groups that it lies in (``volumes/raw``)."""

    def __str__(self) -> str:
        return f"{self.path}:{self.key}"


def parse_array(text: str) -> tuple[Path, str | None]:
    """Split ``file.h5:key`` into file and key; the key is None where only a file is named."""
    path, colon, key = text.rpartition(":")
    is_drive = len(path) == 1 and key[:1] in ("/", "\\")
    if not colon or is_drive or Path(text).is_file():
        return Path(text), None
    return Path(path), key or None


def find_array(path: Path, key: str | None, *, others: tuple[str, ...] = ()) -> Hdf5Array:
    """Return the data set ``key`` of a file, or the only one that it has besides ``others``.

    Raises
    ------
    ConfigError
        If h5py is not installed.
    FileFormatError
        If the file is missing or no HDF5 file, or has no such data set; names those that it has.
    """
    with _opened(path) as file:
        keys = _keys(file)
    wanted = None if key is None else key.strip("/")
    if wanted in keys:
        return Hdf5Array(path, wanted)
    there = f"the data sets {listed(keys, 20)}"
    if wanted is not None:
        fix = f"Name one of them after the colon.{did_you_mean(wanted, keys, 0.6)}"
        raise unreadable(path, there, f"a data set {wanted!r}", fix)
    own = [name for name in keys if name not in others]
    if len(own) != 1:
        raise unreadable(path, there, "one to take", f"Say which: {path.name}:KEY.")
    return Hdf5Array(path, own[0])


def has_array(path: Path, key: str) -> bool:
    """Whether a file has the data set ``key``; errors as for :func:`find_array`."""
    with _opened(path) as file:
        return key in _keys(file)


def read_array(array: Hdf5Array) -> NDArray[Any]:
    """Return the values in native byte order; raise ``FileFormatError`` if they are damaged or no numbers."""
    with _opened(array.path) as file:
        try:
            values = np.asarray(file[array.key][()])
        except (OSError, KeyError) as error:
            raise unreadable(
                array.path, f"a data set {array.key!r} that cannot be read ({error})", "whole data", "Copy it again."
            ) from error
    if values.dtype.kind not in "buif":
        raise unreadable(array.path, f"{array.key!r} of type {values.dtype}", "numbers", "Name another data set.")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(
            f"{path}: found no package h5py, expected it for reading HDF5. Install it: "
            "pip install 'autoseg[elektronn]'."
        ) from error
    check_file(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise unreadable(path, f"no HDF5 file ({error})", "HDF5", "Check the path, or copy the file again.") from error
    with file:
        yield file


def _keys(file: Any) -> tuple[str, ...]:
    """Return the names of all data sets, those in groups with their path."""
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    return tuple(found)
