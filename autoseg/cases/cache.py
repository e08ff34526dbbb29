"""The NumPy cache of preprocessed cases: written wholly or not at all, memory-mapped when read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import BoolArray, CodeArray, Float32Array
from autoseg.core.atomic import atomic_paths, write_text
from autoseg.core.errors import CacheError

ARRAYS = ("image", "target", "locations")
REMEDY = "Run autoseg_plan_and_preprocess again: it redoes only what is missing or stale."


class CacheEntry(BaseModel):
    """``CASE.json``: all that is known of a cached case besides its arrays."""

    model_config = ConfigDict(frozen=True)

    record: CaseRecord
    label_sets: tuple[tuple[int, ...], ...]
    """Per code the class indices that a voxel with that code may be by what was drawn."""
    inferred_sets: tuple[tuple[int, ...], ...] | None = None
    """Per code those that promises of the annotators leave of them; None: all."""
    undrawn: int
    """Code of voxels that nobody annotated and no promise narrows. Further codes of such voxels, which promises make,
    have the same label set."""
    n_classes: int
    locations: dict[int, tuple[int, int]]
    """Informative code -> [start, stop) in ``CASE.locations.npy``."""
    code_counts: dict[int, int]
    """Code -> number of voxels."""
    images: tuple[str, ...] = ()
    """Per channel the content of the image as read (:func:`autoseg.core.trained_on.image_contents`)."""
    fingerprint: str
    """Hash over the source files and all settings that made this case; another hash is stale."""

    @property
    def table(self) -> BoolArray:
        """The label sets as a table (N, K) bool: what was drawn."""
        return self._as_table(self.label_sets)

    @property
    def inferred_table(self) -> BoolArray:
        """What is left of the label sets after inference, as a table (N, K) bool; ``table`` if nothing is inferred."""
        return self._as_table(self.label_sets if self.inferred_sets is None else self.inferred_sets)

    def _as_table(self, sets: tuple[tuple[int, ...], ...]) -> BoolArray:
        table = np.zeros((len(sets), self.n_classes), dtype=bool)
        for code, members in enumerate(sets):
            table[code, list(members)] = True
        return table


@dataclass(frozen=True, slots=True)
class CachedCase:
    """A case of the cache, its arrays memory-mapped and read-only. Pickling it sends the path, not the voxels."""

    folder: Path
    name: str
    image: Float32Array
    """(C, *S)."""
    codes: CodeArray
    """(*S) unsigned integers, rows of ``entry.table``."""
    locations: NDArray[np.integer[Any]]
    """(L,) flat indices into *S, sorted within each code."""
    entry: CacheEntry

    def __reduce__(self) -> tuple[Callable[..., CachedCase], tuple[Path, str]]:
        return (open_case, (self.folder, self.name))

    def locations_of(self, code: int) -> NDArray[np.integer[Any]]:
        """Flat indices into *S of voxels with an informative code; empty if there is none."""
        start, stop = self.entry.locations.get(code, (0, 0))
        return self.locations[start:stop]


def write_case(
    folder: Path,
    name: str,
    *,
    image: Float32Array,
    codes: CodeArray,
    locations: NDArray[np.integer[Any]],
    entry: CacheEntry,
) -> None:
    """Write a case: three arrays, then the JSON that makes it exist. A former version vanishes first.

    Parameters
    ----------
    image, codes
        (C, *S) float32 and (*S) unsigned integers.
    locations
        (L,) flat indices into *S; may be empty.

    Raises
    ------
    ValueError
        If shapes and entry do not belong together.
    """
    if image.shape[1:] != codes.shape or codes.shape != entry.record.shape or locations.ndim != 1:
        raise ValueError(
            f"case {name}: image {image.shape}, codes {codes.shape}, record {entry.record.shape}, locations "
            f"{locations.shape}: expected (C, *S), (*S), *S and (L,)"
        )
    _json_path(folder, name).unlink(missing_ok=True)
    with atomic_paths([_array_path(folder, name, kind) for kind in ARRAYS]) as temporaries:
        for temporary, array in zip(temporaries, (image, codes, locations), strict=True):
            with temporary.open("wb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    write_text(_json_path(folder, name), entry.model_dump_json() + "\n")


def read_entry(folder: Path, name: str) -> CacheEntry | None:
    """Return what is known of a case, or None if it is not wholly there: a file is missing, short or not ours."""
    try:
        entry = CacheEntry.model_validate_json(_json_path(folder, name).read_bytes())
        for kind in ARRAYS:
            _check_size(_array_path(folder, name, kind))
    except (OSError, ValidationError, CacheError):
        return None
    return entry


def is_of_another_version(folder: Path, name: str) -> bool:
    """Whether the JSON of a case is there, but lacks what this version writes, or says it otherwise."""
    try:
        CacheEntry.model_validate_json(_json_path(folder, name).read_bytes())
    except ValidationError:
        return True
    except OSError:
        return False
    return False


def open_case(folder: Path, name: str) -> CachedCase:
    """Open a case with memory-mapped arrays. Raises ``CacheError`` saying which file is missing or damaged."""
    path = _json_path(folder, name)
    try:
        entry = CacheEntry.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CacheError(f"{path}: found no such file, expected a preprocessed case. {REMEDY}") from error
    except ValidationError as error:
        found = f"{error.error_count()} wrong entries"
        raise CacheError(f"{path}: found {found}, expected the record of a preprocessed case. {REMEDY}") from error
    image, codes, locations = (_open_array(_array_path(folder, name, kind)) for kind in ARRAYS)
    if image.shape[1:] != codes.shape or codes.shape != entry.record.shape:
        raise CacheError(
            f"{path}: found image {image.shape} and target {codes.shape}, expected shape {entry.record.shape}. {REMEDY}"
        )
    return CachedCase(folder, name, image, codes, locations, entry)


def _json_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _array_path(folder: Path, name: str, kind: str) -> Path:
    return folder / f"{name}.{kind}.npy"


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, dtype and the number of header bytes."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or dtype.hasobject:
        raise ValueError("not a plain array in C order")
    return shape, dtype, file.tell()


def _check_size(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    try:
        with path.open("rb") as file:
            shape, dtype, offset = _read_header(file)
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        raise CacheError(f"{path}: {error}, expected an array of a preprocessed case. {REMEDY}") from error
    expected = offset + int(np.prod(shape)) * dtype.itemsize
    if size != expected:
        raise CacheError(f"{path}: found {size} bytes, expected {expected}. {REMEDY}")
    return shape, dtype, offset


def _open_array(path: Path) -> NDArray[Any]:
    shape, dtype, offset = _check_size(path)
    if 0 in shape:  # an empty array cannot be mapped
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
