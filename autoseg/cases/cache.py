"""The NumPy cache of preprocessed cases: written atomically, memory-mapped when read."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from autoseg.cases.entry import CacheEntry
from autoseg.cases.layers import ARRAYS, Kind
from autoseg.cases.store import TARGET, ArrayStore, CaseSource, CaseStore
from autoseg.cases.volume_store import REMEDY, has_arrays, open_volume_case, remove_volume_case
from autoseg.core.arrays import CodeArray, Float32Array
from autoseg.core.atomic import atomic_paths, write_text
from autoseg.core.boxes import Box
from autoseg.core.errors import CacheError


@dataclass(frozen=True, slots=True)
class CachedCase:
    """The store of a cached case: read-only memory maps. Pickling it sends the path, not the voxels."""

    folder: Path
    name: str
    arrays: ArrayStore

    def __reduce__(self) -> tuple[Callable[..., CachedCase], tuple[Path, str]]:
        return (open_case, (self.folder, self.name))

    @property
    def source(self) -> CaseSource:
        """The case as a source of training patches, of priority 1."""
        return cached_source(self.folder, self.name)

    @property
    def entry(self) -> CacheEntry:
        """Record, label sets and counts of the case."""
        return self.arrays.entry

    @property
    def image(self) -> Float32Array:
        """(C, *S) float32."""
        return self.arrays.image

    @property
    def codes(self) -> CodeArray:
        """(*S) unsigned integers: row of ``entry.table`` of each voxel."""
        return self.arrays.codes

    @property
    def locations(self) -> NDArray[np.integer[Any]]:
        """(L,) flat indices into *S, sorted within each code."""
        return self.arrays.locations

    def read(self, layer: str, box: Box) -> NDArray[Any]:
        """Return a view of a box of a layer, (C, *box) or (*box); see :meth:`autoseg.cases.store.CaseStore.read`.

        Raises ``CacheError`` naming the file if it holds what nobody wrote: intensities that are not finite, infinite
        numbers (NaN is unknown), or codes without a row in the table. That is noticed here and not when the case is
        opened, which reads no voxels.
        """
        part = self.arrays.read(layer, box)
        if any(info.name == layer and info.kind is Kind.NUMBERS for info in self.entry.layers):
            if np.isinf(part).any():
                raise self._damaged(layer, "numbers that are infinite")
        elif part.dtype.kind == "f" and not np.isfinite(part.sum()):  # a sum is faster than a look at each voxel
            raise self._damaged(layer, "intensities that are not finite")
        if layer == TARGET and part.max(initial=0) >= len(self.entry.table):
            raise self._damaged(layer, f"code {part.max()} of {len(self.entry.table)} codes")
        return part

    def _damaged(self, layer: str, problem: str) -> CacheError:
        return CacheError(
            f"{_array_path(self.folder, self.name, layer)}: found {problem}: the file is damaged. Remove "
            f"{_json_path(self.folder, self.name)}, so that the case is made anew. {REMEDY}"
        )

    def locations_of(self, code: int) -> NDArray[np.integer[Any]]:
        """Return flat indices into *S, (n,) integers, of voxels with an informative code; empty if there is none."""
        return self.arrays.locations_of(code)


@dataclass(frozen=True, slots=True)
class CaseCache:
    """The preprocessed cases of a configuration, whose JSON files have been read."""

    folder: Path
    entries: Mapping[str, CacheEntry]
    """Name -> entry of every case whose files are complete."""

    @classmethod
    def read(cls, folder: Path, names: Iterable[str]) -> CaseCache:
        """Read the JSON files of the cases ``names``, but no voxels; cases with missing files are left out."""
        entries = {name: read_entry(folder, name) for name in dict.fromkeys(names)}
        return cls(folder, {name: entry for name, entry in entries.items() if entry is not None})

    def source(self, name: str, priority: float = 1.0) -> CaseSource:
        """Return a case as a source of training patches; opening it raises ``CacheError`` if a file is missing."""
        return cached_source(self.folder, name, priority, self.entries.get(name))


def cached_source(folder: Path, name: str, priority: float = 1.0, entry: CacheEntry | None = None) -> CaseSource:
    """Return a case of the cache as a source of training patches; see :func:`open_store`."""
    return CaseSource(partial(open_store, folder, name, entry), name, priority, entry)


def write_case(
    folder: Path,
    name: str,
    *,
    image: Float32Array,
    codes: CodeArray,
    locations: NDArray[np.integer[Any]],
    entry: CacheEntry,
    layers: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> None:
    """Write a case: its arrays, and last the JSON file that makes it complete. An earlier version is removed first.

    Parameters
    ----------
    image, codes
        (C, *S) float32 and (*S) unsigned integers.
    locations
        (L,) flat indices into *S; may be empty.
    layers
        The layers of ``entry.layers`` by name: (C, *S) or (*S), with the dtypes given there.

    Raises
    ------
    ValueError
        If shapes and entry disagree.
    """
    if image.shape[1:] != codes.shape or codes.shape != entry.record.shape or locations.ndim != 1:
        raise ValueError(
            f"case {name}: image {image.shape}, codes {codes.shape}, record {entry.record.shape}, locations "
            f"{locations.shape}: expected (C, *S), (*S), *S and (L,)"
        )
    _check_layers(name, layers, entry)
    _json_path(folder, name).unlink(missing_ok=True)
    remove_volume_case(folder, name)
    further = [layers[info.name] for info in entry.layers]
    paths = [_array_path(folder, name, kind) for kind in array_names(entry)]
    with atomic_paths([*paths, _json_path(folder, name)]) as (*temporaries, described):
        for temporary, array in zip(temporaries, (image, codes, locations, *further), strict=True):
            with temporary.open("wb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        described.write_text(entry.model_dump_json() + "\n", encoding="utf-8")


def read_entry(folder: Path, name: str) -> CacheEntry | None:
    """Return the entry of a case; None if one of its files is missing, too short or of another format."""
    try:
        entry = CacheEntry.model_validate_json(_json_path(folder, name).read_bytes())
        if entry.volume is not None:
            return entry if has_arrays(folder, name, entry) else None
        for kind in array_names(entry):
            _check_size(_array_path(folder, name, kind))
    except (OSError, ValidationError, CacheError):
        return None
    return entry


def array_names(entry: CacheEntry) -> tuple[str, ...]:
    """Return the names of the arrays of a case: those of ``ARRAYS``, then its further layers."""
    return (*ARRAYS, *(info.name for info in entry.layers))


def remove_cases(folder: Path, names: Collection[str]) -> None:
    """Remove the files of cases, the JSON files first, so that an interruption leaves no case without arrays."""
    if not names:
        return
    chosen = frozenset(names)
    for name in chosen:
        _json_path(folder, name).unlink(missing_ok=True)
        remove_volume_case(folder, name)
    for path in folder.glob("*.*.npy"):
        name, _, _ = path.name.removesuffix(".npy").rpartition(".")  # a case may have a dot in its name
        if name in chosen:
            path.unlink()


def is_of_another_version(folder: Path, name: str) -> bool:
    """Whether the JSON file of a case exists but has another schema than this version writes."""
    try:
        CacheEntry.model_validate_json(_json_path(folder, name).read_bytes())
    except ValidationError:
        return True
    except OSError:
        return False
    return False


def write_entry(folder: Path, name: str, entry: CacheEntry) -> None:
    """Write the JSON file of a case, which makes it complete, after its arrays."""
    write_text(_json_path(folder, name), entry.model_dump_json() + "\n")


def open_store(folder: Path, name: str, entry: CacheEntry | None = None) -> CaseStore:
    """Open a case, whatever its arrays are; ``entry`` is the content of its JSON file, None reads it.

    Raises ``CacheError`` naming what is missing or damaged.
    """
    entry = _load_entry(folder, name) if entry is None else entry
    return open_case(folder, name, entry) if entry.volume is None else open_volume_case(folder, name, entry)


def open_case(folder: Path, name: str, entry: CacheEntry | None = None) -> CachedCase:
    """Open a case with memory-mapped arrays; ``entry`` is the content of its JSON file, None reads it.

    Raises ``CacheError`` naming the file that is missing or damaged.
    """
    path = _json_path(folder, name)
    entry = _load_entry(folder, name) if entry is None else entry
    image, codes, locations = (_open_array(_array_path(folder, name, kind)) for kind in ARRAYS)
    if image.shape[1:] != codes.shape or codes.shape != entry.record.shape:
        raise CacheError(
            f"{path}: found image {image.shape} and target {codes.shape}, expected shape {entry.record.shape}. {REMEDY}"
        )
    layers = {info.name: _open_array(_array_path(folder, name, info.name)) for info in entry.layers}
    return CachedCase(folder, name, ArrayStore(image, codes, locations, entry, layers))


def _load_entry(folder: Path, name: str) -> CacheEntry:
    """Return the content of the JSON file of a case; raise ``CacheError`` if it is missing or damaged."""
    path = _json_path(folder, name)
    try:
        return CacheEntry.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CacheError(f"{path}: found no such file, expected a preprocessed case. {REMEDY}") from error
    except ValidationError as error:
        n_wrong = f"{error.error_count()} wrong entries"
        raise CacheError(f"{path}: found {n_wrong}, expected the record of a preprocessed case. {REMEDY}") from error


def _check_layers(name: str, layers: Mapping[str, NDArray[Any]], entry: CacheEntry) -> None:
    """Raise ``ValueError`` unless the arrays, (C, *S) or (*S), have names, dtypes and shape of ``entry``."""
    expected = {info.name: (info.dtype, entry.record.shape) for info in entry.layers}
    given = {layer: (array.dtype.name, array.shape[-3:]) for layer, array in layers.items()}
    if given != expected:
        raise ValueError(f"case {name}: found the layers {given}, expected {expected}")


def _json_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _array_path(folder: Path, name: str, kind: str) -> Path:
    return folder / f"{name}.{kind}.npy"


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape and dtype of the array in a .npy file, and the size of its header in bytes."""
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
    """Return a read-only memory map of an array of any shape; raise ``CacheError`` if the file is missing or cut."""
    shape, dtype, offset = _check_size(path)
    if 0 in shape:  # an empty array cannot be mapped
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
