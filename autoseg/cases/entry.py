"""The JSON file of a preprocessed case: everything but its voxels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.cases.case import CaseRecord
from autoseg.cases.code_table import CodeTable
from autoseg.cases.layers import LayerInfo
from autoseg.cases.volume_image import VolumeImage
from autoseg.core.arrays import BoolArray


class VolumeArrays(BaseModel):
    """Arrays of a case that is too large for memory: its target and further layers are Zarr in the cache."""

    model_config = ConfigDict(frozen=True)

    image: VolumeImage | None = None
    """Place of the image if it is read from the volume itself; None if it was resampled into a Zarr of the cache."""
    missing_tiles: int = 0
    """Number of places in the volume whose tiles are missing; their voxels are unknown."""


class CacheEntry(BaseModel):
    """Content of ``CASE.json``, which describes a cached case and its arrays."""

    model_config = ConfigDict(frozen=True)

    record: CaseRecord
    label_sets: tuple[tuple[int, ...], ...]
    """For each code the class indices that a voxel may have by its annotation."""
    inferred_sets: tuple[tuple[int, ...], ...] | None = None
    """For each code the class indices that promises of the annotators leave of them; None: all of them."""
    weights: tuple[float, ...] | None = None
    """For each code how much a voxel counts in training, above 0 and at most 1; None: all 1."""
    undrawn: int
    """Code of unannotated voxels that no promise narrows. Unannotated voxels that promises narrow have further codes,
    whose annotated set is the same."""
    n_classes: int
    """K, background included."""
    locations: dict[int, tuple[int, int]]
    """Informative code -> [start, stop) in ``CASE.locations.npy``."""
    code_counts: dict[int, int]
    """Code -> number of voxels."""
    images: tuple[str, ...] = ()
    """For each channel a hash of the image as read (:func:`autoseg.core.trained_on.image_contents`)."""
    layers: tuple[LayerInfo, ...] = ()
    """Layers besides image and target."""
    volume: VolumeArrays | None = None
    """Arrays of a case that is too large for memory; None: they are files of NumPy."""
    fingerprint: str
    """Hash over the source files and settings that the case was made from; a case with another hash is stale."""

    @property
    def table(self) -> CodeTable:
        """The code table of the case, which cases with the same sets share; its arrays are read-only."""
        return _table(self.label_sets, self.inferred_sets, self.undrawn, self.weights, self.n_classes)


Sets = tuple[tuple[int, ...], ...]
"""For each code its class indices."""


@lru_cache(maxsize=256)
def _table(
    drawn: Sets, inferred: Sets | None, undrawn: int, weights: tuple[float, ...] | None, n_classes: int
) -> CodeTable:
    """Return a code table; kept, because thousands of small cases have the same and ask for it in every epoch."""
    own = _as_rows(drawn, n_classes)
    learnt = own if inferred is None else _as_rows(inferred, n_classes)
    table = CodeTable.of_sets(own, learnt, undrawn, weights)
    for array in (table.drawn, table.learnt, table.base, table.held_out, table.zone, table.weight):
        array.flags.writeable = False
    return table


def _as_rows(sets: Sets, n_classes: int) -> BoolArray:
    """Return label sets as a table (N, K) bool."""
    rows = np.zeros((len(sets), n_classes), dtype=bool)
    for code, members in enumerate(sets):
        rows[code, list(members)] = True
    return rows
