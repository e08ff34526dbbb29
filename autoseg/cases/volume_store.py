"""The store of a case that is too large for memory: codes in a Zarr of the cache, the image there or where it lies.

tensorstore must not be forked after it was used; the processes that build batches are started afresh or by a fork
server, and each opens the case itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.cases.entry import CacheEntry
from autoseg.cases.store import IMAGE, TARGET
from autoseg.cases.volume_image import read_scaled
from autoseg.core.atomic import write_text
from autoseg.core.boxes import Box
from autoseg.core.errors import CacheError, FileFormatError
from autoseg.io.chunked import open_chunked
from autoseg.io.stored_array import StoredArray

REMEDY = "Run autoseg_plan_and_preprocess again: it redoes only what is missing or stale."
BEGUN = ".begun.json"
"""File in the folder of the target, by which a case that was begun is known."""


class BegunCase(BaseModel):
    """Content of ``BEGUN``: what the shards that are done were made from."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    """As :attr:`CacheEntry.fingerprint`."""
    label_sets: tuple[tuple[int, ...], ...]
    """For each code the class indices that a voxel may have. Unions of sets follow as they are found."""


@dataclass(frozen=True, slots=True)
class VolumeStore:
    """A case that is read box by box. Pickling it sends the path; see :class:`autoseg.cases.store.CaseStore`."""

    folder: Path
    name: str
    entry: CacheEntry
    arrays: Mapping[str, StoredArray]
    """Layer -> its Zarr. The image is missing if it is read from the volume itself."""
    read_image: Callable[[Box], NDArray[Any]]
    """Function that returns a box of the image, (C, *box) float32."""
    locations: NDArray[np.integer[Any]]
    """(L,) flat indices into *S, sorted within each code."""

    def __reduce__(self) -> tuple[Callable[..., VolumeStore], tuple[Path, str, CacheEntry]]:
        return (open_volume_case, (self.folder, self.name, self.entry))

    def read(self, layer: str, box: Box) -> NDArray[Any]:
        """Return a box of a layer, (C, *box) or (*box); see :meth:`autoseg.cases.store.CaseStore.read`.

        Raises ``CacheError`` if intensities are not finite, if codes have no row in the table, or if the volume has
        been moved.
        """
        try:
            if layer == IMAGE:
                part = self.read_image(box)
                if not np.isfinite(part.sum()):
                    raise self._damaged(layer, box, "intensities that are not finite")
                return part
            if layer not in self.arrays:
                raise CacheError(
                    f"case {self.name}: no layer {layer!r}, expected image or {list(self.arrays)}. {REMEDY}"
                )
            codes: NDArray[Any] = self.arrays[layer].read(box)[0]
        except FileFormatError as error:
            raise CacheError(f"case {self.name}: {error}") from error
        if layer == TARGET and codes.max(initial=0) >= len(self.entry.label_sets):
            raise self._damaged(layer, box, f"code {codes.max()} of {len(self.entry.label_sets)} codes")
        return codes

    def _damaged(self, layer: str, box: Box, problem: str) -> CacheError:
        return CacheError(
            f"case {self.name}, layer {layer}, box {box}: found {problem}, expected what was checked before. If the "
            f"image is right, remove {self.folder / f'{self.name}.json'}. {REMEDY}"
        )

    def locations_of(self, code: int) -> NDArray[np.integer[Any]]:
        """Return flat indices into *S, (n,) integers, of voxels with an informative code; empty if there is none."""
        start, stop = self.entry.locations.get(code, (0, 0))
        return self.locations[start:stop]


def open_volume_case(folder: Path, name: str, entry: CacheEntry) -> VolumeStore:
    """Open a case of the cache whose entry has ``volume``. Raises ``CacheError`` naming what is missing."""
    if entry.volume is None:
        raise ValueError(f"case {name}: its arrays are files of NumPy")
    layers = [TARGET, *(info.name for info in entry.layers)]
    try:
        arrays = {layer: open_chunked(layer_path(folder, name, layer), "0") for layer in layers}
        image = entry.volume.image
        if image is None:
            stored = open_chunked(layer_path(folder, name, IMAGE), "0")
            read_image = stored.read
        else:
            volume, scalings = image.open(), image.scalings

            def read_image(box: Box) -> NDArray[Any]:
                return read_scaled(volume, box, scalings)

        locations = np.load(locations_path(folder, name), mmap_mode="r") if entry.locations else np.zeros(0, np.int64)
    except (OSError, ValueError, FileFormatError) as error:
        raise CacheError(f"case {name}: {error}. {REMEDY}") from error
    found = arrays[TARGET].spatial_shape
    if found != entry.record.shape:
        raise CacheError(f"case {name}: found a target of {found} voxels, expected {entry.record.shape}. {REMEDY}")
    return VolumeStore(folder, name, entry, arrays, read_image, locations)


def layer_path(folder: Path, name: str, layer: str) -> Path:
    """Return the folder of the Zarr of a layer."""
    return folder / f"{name}.{layer}.zarr"


def locations_path(folder: Path, name: str) -> Path:
    """Return the file of the locations, which all cases have."""
    return folder / f"{name}.locations.npy"


def read_begun(folder: Path, name: str) -> BegunCase | None:
    """Return what a case was begun with; None if it was not."""
    try:
        return BegunCase.model_validate_json((layer_path(folder, name, TARGET) / BEGUN).read_bytes())
    except (OSError, ValidationError):
        return None


def write_begun(folder: Path, name: str, begun: BegunCase) -> None:
    """Write what the shards that follow are made from; must be called before a shard with a new code is written."""
    path = layer_path(folder, name, TARGET)
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / BEGUN, begun.model_dump_json() + "\n")


def remove_volume_case(folder: Path, name: str) -> None:
    """Remove the Zarr folders of a case."""
    for path in folder.glob("*.zarr"):
        layer = path.name.removesuffix(".zarr").rpartition(".")
        if layer[0] == name and path.is_dir():
            shutil.rmtree(path)


def has_arrays(folder: Path, name: str, entry: CacheEntry) -> bool:
    """Whether the arrays of a case whose entry has ``volume`` lie in the cache."""
    layers = [TARGET, *(info.name for info in entry.layers)]
    if entry.volume is not None and entry.volume.image is None:
        layers.append(IMAGE)
    return all((layer_path(folder, name, layer) / "zarr.json").is_file() for layer in layers) and (
        not entry.locations or locations_path(folder, name).is_file()
    )
