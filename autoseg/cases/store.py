"""Stores: the layers of one preprocessed case, read box by box.

Sampling reads cases through :class:`CaseStore` alone. The NumPy cache (``cases.cache``) is one store, arrays in memory
are another; a further one needs the same three members, and a :class:`CaseSource` that opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.entry import CacheEntry
from autoseg.core.arrays import CodeArray, Float32Array
from autoseg.core.errors import CacheError

IMAGE, TARGET = "image", "target"
"""Names of the layers that every case has: (C, *S) float32, and (*S) codes. Others stand in ``entry.layers``."""

Box = tuple[slice, slice, slice]
"""Voxels (z, y, x) of a case, within its shape, step 1."""


class CaseStore(Protocol):
    """One case. It is opened in the process that reads it, so it need not be picklable."""

    @property
    def entry(self) -> CacheEntry:
        """All that is known of the case besides its voxels."""

    def read(self, layer: str, box: Box) -> NDArray[Any]:
        """Return a box of a layer: (C, *box) float32 of ``IMAGE``, (*box) unsigned integers of ``TARGET``.

        Of a layer of ``entry.layers``: (C, *box) of intensities, else (*box), of the type that stands there. The result
        may be a view that must not be written to. An empty box gives an empty array. Raises ``CacheError`` if the case
        has no such layer.
        """

    def locations_of(self, code: int) -> NDArray[np.integer[Any]]:
        """Return flat indices into *S of some voxels of an informative code; empty if there is none."""


@dataclass(frozen=True)
class CaseSource:
    """A case of a training: how it is opened, and how often it is drawn."""

    open: Callable[[], CaseStore]
    """Sent to worker processes, so a function of a module, or a ``functools.partial`` of one."""
    name: str
    priority: float = 1.0
    """Relative sampling weight, at least 0."""


@dataclass(frozen=True, slots=True)
class ArrayStore:
    """A case whose layers lie in memory, or in memory maps."""

    image: Float32Array
    """(C, *S)."""
    codes: CodeArray
    """(*S) unsigned integers, rows of ``entry.table``."""
    locations: NDArray[np.integer[Any]]
    """(L,) flat indices into *S, sorted within each code."""
    entry: CacheEntry
    layers: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Those of ``entry.layers`` by name, (C, *S) or (*S)."""

    def read(self, layer: str, box: Box) -> NDArray[Any]:
        """Return a view of a box of a layer; see :meth:`CaseStore.read`."""
        if layer == TARGET:
            return self.codes[box]
        if layer == IMAGE:
            return self.image[(slice(None), *box)]
        if layer not in self.layers:
            raise CacheError(
                f"layer {layer!r}: found image, target{''.join(f', {name}' for name in self.layers)}, expected a layer "
                "of that name. Run autoseg_plan_and_preprocess for this configuration."
            )
        return self.layers[layer][(..., *box)]

    def locations_of(self, code: int) -> NDArray[np.integer[Any]]:
        """Return flat indices into *S of voxels with an informative code; empty if there is none."""
        start, stop = self.entry.locations.get(code, (0, 0))
        return self.locations[start:stop]
