"""Stores: the layers of one preprocessed case, read box by box.

Sampling reads cases only through :class:`CaseStore`. The NumPy cache (``cases.cache``) is one store, arrays in memory
are another. A further store needs the same three members, and a :class:`CaseSource` that opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.entry import CacheEntry
from autoseg.core.arrays import CodeArray, Float32Array
from autoseg.core.boxes import Box
from autoseg.core.errors import CacheError

IMAGE, TARGET = "image", "target"
"""Names of the layers of every case: (C, *S) float32, and (*S) codes. Further layers are in ``entry.layers``."""


class CaseStore(Protocol):
    """A case whose layers are read box by box. The process that reads it opens it, so it need not be picklable."""

    @property
    def entry(self) -> CacheEntry:
        """Record, label sets and counts of the case."""

    def read(self, layer: str, box: Box) -> NDArray[Any]:
        """Return a box of a layer, within the case: (C, *box) float32 of ``IMAGE``, (*box) codes of ``TARGET``.

        A layer of ``entry.layers`` gives (C, *box) if it has intensities, otherwise (*box), in the dtype given there.
        The result may be a view that must not be written to. An empty box gives an empty array. Raises ``CacheError``
        if the case has no such layer.
        """

    def locations_of(self, code: int) -> NDArray[np.integer[Any]]:
        """Return flat indices into *S, (n,) integers, of some voxels of an informative code; empty if there is none."""


@dataclass(frozen=True)
class CaseSource:
    """A training case: the function that opens it, and its sampling weight."""

    open: Callable[[], CaseStore]
    """Function that opens the store; picklable, so a function of a module or a ``functools.partial`` of one."""
    name: str
    priority: float = 1.0
    """Relative sampling weight, at least 0."""
    known_entry: CacheEntry | None = None
    """Entry of the case, if it has been read; None if the case must be opened for it."""

    @property
    def entry(self) -> CacheEntry:
        """Record, label sets and counts of the case; opens it only if they are not known."""
        return self.open().entry if self.known_entry is None else self.known_entry


@dataclass(frozen=True, slots=True)
class ArrayStore:
    """A case whose layers are arrays in memory, or memory maps."""

    image: Float32Array
    """(C, *S) float32."""
    codes: CodeArray
    """(*S) unsigned integers: row of ``entry.table`` of each voxel."""
    locations: NDArray[np.integer[Any]]
    """(L,) flat indices into *S, sorted within each code."""
    entry: CacheEntry
    layers: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """The layers of ``entry.layers`` by name, (C, *S) or (*S)."""

    def read(self, layer: str, box: Box) -> NDArray[Any]:
        """Return a view of a box of a layer, (C, *box) or (*box); see :meth:`CaseStore.read`."""
        if layer == TARGET:
            return self.codes[box.slices]
        if layer == IMAGE:
            return self.image[(slice(None), *box.slices)]
        if layer not in self.layers:
            raise CacheError(
                f"layer {layer!r}: found image, target{''.join(f', {name}' for name in self.layers)}, expected a layer "
                "of that name. Run autoseg_plan_and_preprocess for this configuration."
            )
        return self.layers[layer][(..., *box.slices)]

    def locations_of(self, code: int) -> NDArray[np.integer[Any]]:
        """Return flat indices into *S, (n,) integers, of voxels with an informative code; empty if there is none."""
        start, stop = self.entry.locations.get(code, (0, 0))
        return self.locations[start:stop]
