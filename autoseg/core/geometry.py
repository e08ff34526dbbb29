"""Geometry of an array: spacing, origin and direction, which place its voxels in the world."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Direction = tuple[float, float, float, float, float, float, float, float, float]
"""Direction cosines, 3x3 row-major, in ITK's order (x, y, z) and system (LPS)."""

FLAT_SPACING = 999.0
"""Slice spacing (mm) of 2-D images. It is larger than any other spacing, so that no plan resamples across slices.
Source: nnU-Net ``imageio/natural_image_reader_writer.py``."""
ASSUMED = "assumed"
"""``metadata["spacing"]`` of a file that states no voxel size (PNG, plain TIFF). 1 mm is assumed for it."""

FLOAT32_ROUNDING = 2.0**-22
"""Relative error of two roundings to float32."""


class Geometry(BaseModel):
    """Spacing, origin and orientation of an array with axes (z, y, x).

    A 2-D image is an array with one slice: ``ndim == 2``, spacing z = 999 (or 999 times the larger pixel edge).
    """

    model_config = ConfigDict(frozen=True)

    spacing: tuple[float, float, float]
    """Edge lengths of a voxel, mm, (z, y, x)."""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """World position of the first voxel's centre, mm, in ITK's order (x, y, z) and system (LPS)."""
    direction: Direction = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    """Direction cosines of the axes x, y, z."""
    is_directed: bool = False
    """Whether the file states ``direction``. By default, True if a direction is given. If False (PNG, TIFF),
    ``direction`` has no meaning, and the array must not be turned by it."""
    ndim: int = 3
    """Number of spatial axes of the file, 2 or 3."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Further content of the file's header that is needed to write the same header again (NIfTI header in base64)."""

    @model_validator(mode="before")
    @classmethod
    def _is_directed_if_one_is_given(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "is_directed" in values:
            return values
        return {**values, "is_directed": "direction" in values}

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm³; for 2-D images, area of a pixel in mm²."""
        edges = self.spacing if self.ndim == 3 else self.spacing[1:]
        return math.prod(edges)

    def differs_from(self, other: Geometry, *, tolerance: float = 1e-3) -> tuple[str, ...]:
        """Return the properties (``spacing``, ``origin``, ``direction``) in which two geometries differ; () if none.

        ``tolerance`` is relative to the smallest in-plane spacing for spacing and origin, and absolute for direction.
        Rounding of a header to float32 is allowed in addition. Geometries of different ``ndim`` differ in all three. If
        one of them has an assumed spacing (``ASSUMED``), they are not compared, and the result is ().
        """
        if self.ndim != other.ndim:
            return ("spacing", "origin", "direction")
        if ASSUMED in (self.metadata.get("spacing"), other.metadata.get("spacing")):
            return ()
        scale = min(self.spacing[1:])
        pairs = {
            "spacing": (self.spacing, other.spacing, tolerance * scale),
            "origin": (self.origin, other.origin, tolerance * max(scale, 1.0)),
            "direction": (self.direction, other.direction, tolerance),
        }
        return tuple(
            name
            for name, (mine, theirs, limit) in pairs.items()
            if not all(abs(a - b) <= limit + FLOAT32_ROUNDING * abs(a) for a, b in zip(mine, theirs, strict=True))
        )


def slice_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    """Return the slice axis: the axis across which people annotate slice by slice.

    It is the axis with one voxel. Otherwise it is the axis whose spacing differs from the other two, if these agree
    within 1 % (square pixels). Otherwise it is the axis of the coarsest spacing. The first axis is taken if several
    qualify.

    Parameters
    ----------
    shape
        Voxels, of three axes.
    spacing
        mm, one per axis.
    """
    if 1 in shape:
        return list(shape).index(1)
    a, b, c = spacing
    for axis, (own, one, other) in enumerate(((a, b, c), (b, a, c), (c, a, b))):
        if _agree(one, other) and not _agree(own, one) and not _agree(own, other):
            return axis
    return next(axis for axis in range(3) if _agree(spacing[axis], max(spacing)))


def _agree(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=0.01)
