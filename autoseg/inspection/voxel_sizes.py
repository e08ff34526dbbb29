"""Voxel sizes of the cases of a data set: stated ones must not be mixed with assumed ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autoseg.core.errors import Fault
from autoseg.core.findings import listed
from autoseg.core.geometry import ASSUMED, Geometry

SAME_SIZE = 0.01
"""Relative difference up to which two voxel sizes count as equal."""


@dataclass(frozen=True)
class VoxelSize:
    """Voxel size of one case."""

    spacing: tuple[float, float, float]
    """mm, (z, y, x)."""
    is_stated: bool
    """Whether the file states the size; otherwise it is assumed to be 1 mm."""
    ndim: int = 3

    @classmethod
    def of(cls, geometry: Geometry) -> VoxelSize:
        """Return the voxel size of a geometry."""
        return cls(geometry.spacing, geometry.metadata.get("spacing") != ASSUMED, geometry.ndim)

    @property
    def differs_from_assumed(self) -> bool:
        """Whether the size differs from 1 mm, which is assumed where no size is stated."""
        edges = self.spacing if self.ndim == 3 else self.spacing[1:]
        return any(not math.isclose(edge, 1.0, rel_tol=SAME_SIZE) for edge in edges)


def mixed_sizes(sizes: Mapping[str, VoxelSize]) -> list[Fault]:
    """Return a fault if some cases state a voxel size and others do not: 1 mm would be mixed with it."""
    unknown = [case for case, size in sizes.items() if not size.is_stated]
    stated = [case for case, size in sizes.items() if size.is_stated and size.differs_from_assumed]
    if not unknown or not stated:
        return []
    size = sizes[stated[0]]
    edges = ", ".join(f"{edge:.4g}" for edge in (size.spacing if size.ndim == 3 else (1.0, *size.spacing[1:])))
    return [
        Fault(
            "voxel sizes",
            f"no (complete) voxel size in {len(unknown)} cases ({listed(unknown)}), and one in {len(stated)} "
            f"({listed(stated)}; {stated[0]!r} has {edges} mm in z, y, x)",
            "a voxel size in all of them, or in none: 1 mm would be assumed where it is missing",
            "Write the true size of the former into a JSON file beside each image (<case>.json, of an array "
            f'volume.json beside volume.zarr), for example {{"spacing": [{edges}]}}, or save the files again with it.',
        )
    ]
