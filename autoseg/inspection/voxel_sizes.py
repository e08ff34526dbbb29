"""The size of the voxels of all cases: whether their files state it, and whether stated ones meet assumed ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autoseg.core.errors import Fault
from autoseg.core.findings import listed
from autoseg.core.geometry import ASSUMED, Geometry

SAME_SIZE = 0.01
"""Relative difference up to which two voxel sizes are the same."""


@dataclass(frozen=True)
class VoxelSize:
    """The size of the voxels of a case."""

    spacing: tuple[float, float, float]
    """mm, (z, y, x)."""
    is_stated: bool
    """Whether the file says it; else it is assumed."""
    ndim: int = 3

    @classmethod
    def of(cls, geometry: Geometry) -> VoxelSize:
        """Return the size that a geometry has."""
        return cls(geometry.spacing, geometry.metadata.get("spacing") != ASSUMED, geometry.ndim)

    @property
    def differs_from_assumed(self) -> bool:
        """Whether it is another than the one that is assumed where nothing is stated, 1 mm."""
        edges = self.spacing if self.ndim == 3 else self.spacing[1:]
        return any(not math.isclose(edge, 1.0, rel_tol=SAME_SIZE) for edge in edges)


def mixed_sizes(sizes: Mapping[str, VoxelSize]) -> list[Fault]:
    """Find that some cases state the size of their voxels and others do not, so that 1 mm would be mixed with it."""
    unknown = [case for case, size in sizes.items() if not size.is_stated]
    stated = [case for case, size in sizes.items() if size.is_stated and size.differs_from_assumed]
    if not unknown or not stated:
        return []
    size = sizes[stated[0]]
    edges = ", ".join(f"{edge:.4g}" for edge in (size.spacing if size.ndim == 3 else (1.0, *size.spacing[1:])))
    return [
        Fault(
            "voxel sizes",
            f"no (whole) voxel size in {len(unknown)} cases ({listed(unknown)}), and one in {len(stated)} "
            f"({listed(stated)}; {stated[0]!r} has {edges} mm in z, y, x)",
            "a voxel size in all of them, or in none: 1 mm would be assumed where it is missing",
            f'Write the true size of the former into <case>.json beside each image, like {{"spacing": [{edges}]}}, or '
            "save the files again with it.",
        )
    ]
