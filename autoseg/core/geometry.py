"""Where the voxels of an array lie in the world, so that a prediction goes back exactly where its image came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Direction = tuple[float, float, float, float, float, float, float, float, float]
"""Direction cosines, 3x3 row-major, in ITK's order (x, y, z) and system (LPS)."""

FLAT_SPACING = 999.0
"""Slice spacing (mm) given to 2-D images, larger than any other, so that no plan ever resamples across slices.
Source: nnU-Net ``imageio/natural_image_reader_writer.py``."""
ASSUMED = "assumed"
"""``metadata["spacing"]`` of a file that does not say how large its voxels are (PNG, plain TIFF): 1 mm is assumed."""

FLOAT32_ROUNDING = 2.0**-22
"""Relative; two roundings of float32."""


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
    is_directed: bool = False
    """Whether the file says ``direction``; so it is if one is given, unless it is said otherwise. Else the default
    stands for nothing (PNG, TIFF), and nobody may turn the array by it."""
    ndim: int = 3
    """2 or 3: how many spatial axes the file has."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """What the file format needs besides to write the same header again (the NIfTI header, base64; NRRD keys)."""

    @model_validator(mode="before")
    @classmethod
    def _is_directed_if_one_is_given(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "is_directed" in values:
            return values
        return {**values, "is_directed": "direction" in values}

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm³ (area in mm² for 2-D images)."""
        edges = self.spacing if self.ndim == 3 else self.spacing[1:]
        return math.prod(edges)

    def differs_from(self, other: Geometry, *, tolerance: float = 1e-3) -> tuple[str, ...]:
        """Name the properties (``spacing``, ``origin``, ``direction``) in which two geometries differ.

        ``tolerance`` is relative to the smallest in-plane spacing for spacing and origin, absolute for direction;
        what a header in float32 loses is added.
        Empty if they agree. Geometries of different ``ndim`` differ in all three. Where a file does
        not state its spacing (``ASSUMED``) there is nothing to compare.
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
    """Return the axis that counts the slices which people draw in.

    An axis of one voxel, else the one whose spacing differs while the other two agree within 1 % (pixels are square),
    else that of the coarsest spacing; the first where several would do.

    Parameters
    ----------
    shape
        Voxels, three axes.
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
