"""Reading of saved probabilities, one head at a time, so that memory does not grow with the number of heads."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from autoseg.core.arrays import Float32Array
from autoseg.core.errors import AutosegError
from autoseg.io.file_contents import Shape4, check_file, unreadable

PROBABILITIES_ENDING = ".npz"
_ARRAY = "probabilities.npy"


class ProbabilityFile:
    """An open file of :func:`autoseg.io.images.write_probabilities`, or of nnU-Net: key ``probabilities``.

    A context manager. Raises ``FileFormatError`` if the file is missing, damaged or holds something else.
    """

    def __init__(self, path: Path) -> None:
        check_file(path)
        self.path = path
        with _naming(path):
            self._archive = zipfile.ZipFile(path)
            if _ARRAY not in self._archive.namelist():
                self._archive.close()
                raise _no_probabilities(path, f"the arrays {[Path(name).stem for name in self._archive.namelist()]}")
            self._file: IO[bytes] = self._archive.open(_ARRAY)
            shape, is_fortran, self._dtype = _read_npy_header(self._file)
            self._start = self._file.tell()
        if len(shape) != 4 or is_fortran or self._dtype.kind != "f":
            self.close()
            raise _no_probabilities(path, f"an array of shape {shape} and {self._dtype}")
        self.shape: Shape4 = (shape[0], shape[1], shape[2], shape[3])
        """(H, z, y, x)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._archive.close()

    def head(self, index: int) -> Float32Array:
        """Return the probabilities (z, y, x) float32 of one head; quick if heads are read in order.

        Raises ``FileFormatError`` if the file is damaged, or holds numbers that are not finite.
        """
        values = np.empty(self.shape[1:], dtype=self._dtype)
        with _naming(self.path):
            self._file.seek(self._start + index * values.nbytes)
            for plane in values:
                data = self._file.read(plane.nbytes)
                if len(data) < plane.nbytes:
                    raise EOFError("the array ends early")
                plane[...] = np.frombuffer(data, dtype=self._dtype).reshape(plane.shape)
        if not math.isfinite(float(values.sum(dtype=np.float64))):
            raise _no_probabilities(self.path, f"numbers that are not finite in head {index}")
        return values.astype(np.float32, copy=False)


def read_probability_shape(path: Path) -> Shape4:
    """Return the shape (H, z, y, x) of saved probabilities, without reading them; errors as for the class."""
    with ProbabilityFile(path) as file:
        return file.shape


def _read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    return shape, is_fortran, dtype


def _no_probabilities(path: Path, found: str) -> AutosegError:
    fix = "Predict again with autoseg_predict --save-probabilities."
    return unreadable(path, found, "the array 'probabilities' (heads, z, y, x) of floating-point numbers", fix)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn the exceptions of a damaged archive into a ``FileFormatError`` that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise _no_probabilities(path, f"a file that cannot be read ({type(error).__name__}: {error})") from error
