"""Rule of label files that hold numbers of objects, and what a network learns of them."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_NUMBER = 2**31 - 1
"""Largest number of an object: maps of objects are moved and compared as int32."""


Offset = tuple[int, int, int]
"""(z, y, x) from a voxel to another one, in voxels; one of them is not 0."""


@dataclass(frozen=True, slots=True)
class InstanceNumbers:
    """Rule for the file values of objects; background and unannotated voxels keep values of their own."""

    per_class: int | None = None
    """None: there is one class, and every value above 0 is an object of it. Otherwise a value v is object
    ``v % per_class`` of the class with the value ``v // per_class`` in ``labels``."""
    offsets: tuple[Offset, ...] = ()
    """Offsets of the affinities that a network learns; (): it learns the inside and the boundary of objects."""
