"""Read arrays from HDF5 files by their keys. Needs the optional package h5py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.core.boxes import Box
from autoseg.core.errors import ConfigError
from autoseg.core.findings import did_you_mean, listed
from autoseg.core.geometry import Geometry
from autoseg.io.file_contents import check_file, unreadable
from autoseg.io.stored_array import StoredArray, number_type, plain_header, spatial


class Hdf5Array(NamedTuple):
    """One array (HDF5 "data set") inside a file."""

    path: Path
    key: str
    """Name of the array with its groups (``volumes/raw``)."""

    def __str__(self) -> str:
        return f"{self.path}:{self.key}"


def parse_array(text: str) -> tuple[Path, str | None]:
    """Split ``file.h5:key`` into file and key. The key is None if the text names only a file."""
    path, colon, key = text.rpartition(":")
    is_drive = len(path) == 1 and key[:1] in ("/", "\\")
    if not colon or is_drive or Path(text).is_file():
        return Path(text), None
    return Path(path), key or None


def find_array(path: Path, key: str | None, *, others: tuple[str, ...] = ()) -> Hdf5Array:
    """Return the place of the data set ``key`` of a file. Its values, of any shape, are not read.

    If ``key`` is None, return the only data set that is not among ``others``.

    Raises
    ------
    ConfigError
        If h5py is not installed.
    FileFormatError
        If the file is missing or not HDF5, or has no such data set. The message lists the data sets of the file.
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
        raise unreadable(path, there, "exactly one", f"Name the data set to read: {path.name}:KEY.")
    return Hdf5Array(path, own[0])


def has_array(path: Path, key: str) -> bool:
    """Whether a file has the data set ``key``. Raises the errors of :func:`find_array`."""
    with _opened(path) as file:
        return key in _keys(file)


def read_array(array: Hdf5Array) -> NDArray[Any]:
    """Return the values of an array of any shape, in the number type of the file and in native byte order.

    Raises ``FileFormatError`` if they are damaged or not numbers.
    """
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


def open_hdf5(path: Path, key: str | None = None) -> StoredArray:
    """Return a data set (y, x), (z, y, x) or (C, z, y, x) that is read box by box. Its values are not read.

    If ``key`` is None, the file must have only one. The voxel size is that of the attribute ``element_size_um``
    ((z, y, x) in micrometres; ilastik and ImageJ write it). The file is open only during a read: another program may
    write to it in between, and processes may share the array. Raises the errors of :func:`find_array`.
    """
    place = find_array(path, key)
    with _opened(path) as file:
        data = file[place.key]
        shape = spatial(path, tuple(data.shape))
        dtype = number_type(path, place.key, data.dtype)
        header = plain_header(shape, len(data.shape), _element_size(data))
        stored = (1, 1, 1, *(data.chunks or (1, *data.shape)[-2:]))[-3:]

    def load(box: Box) -> NDArray[Any]:
        with _opened(path) as file:
            data = file[place.key]
            index = (slice(None), *box.slices)[4 - data.ndim :]
            try:
                return np.asarray(data[index]).reshape((shape[0], *box.shape))
            except OSError as error:
                problem = f"{place.key!r} with a chunk that cannot be read ({error})"
                raise unreadable(path, problem, "whole data", "Copy it again.") from error

    return StoredArray(str(place), header, dtype, (int(stored[0]), int(stored[1]), int(stored[2])), load)


def _element_size(data: Any) -> Geometry | None:
    """Return the geometry of a data set of 3 or 4 axes with the attribute ``element_size_um``; otherwise None."""
    size = np.ravel(data.attrs.get("element_size_um", ()))
    if data.ndim < 3 or len(size) != 3 or size.dtype.kind not in "iuf" or not (np.isfinite(size) & (size > 0)).all():
        return None
    z, y, x = (float(edge) / 1000 for edge in size)
    return Geometry(spacing=(z, y, x))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(
            f"{path}: the package h5py, which reads HDF5, is not installed. Install it: "
            "pip install 'autoseg[elektronn]'."
        ) from error
    check_file(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        problem = f"a file of another format ({error})"
        raise unreadable(path, problem, "an HDF5 file", "Check the path, or copy the file again.") from error
    with file:
        yield file


def _keys(file: Any) -> tuple[str, ...]:
    """Return the names of all data sets, with their groups."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return tuple(names)
