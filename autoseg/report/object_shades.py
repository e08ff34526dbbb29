"""Shades and lines by which objects of one class are told apart in a picture of a slice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array

N_SHADES = 4
"""Shades of a colour: as it is, lighter, darker, lightest."""
_LIGHTER = {1: 0.4, 3: 0.7}
_DARKER = {2: 0.45}

IntegerArray = NDArray[np.integer[Any]]


def shades_of(objects: IntegerArray) -> NDArray[np.uint8]:
    """Return the shade (y, x) of each object of a slice, 0 to ``N_SHADES`` - 1; 0 where there is none.

    Objects (y, x) that share an edge or a corner have different shades, unless one touches all shades already.
    """
    numbers, index = np.unique(objects, return_inverse=True)
    place = index.reshape(objects.shape)
    neighbours: dict[int, set[int]] = {}
    for one, other in _touching(place):
        neighbours.setdefault(max(one, other), set()).add(min(one, other))
    shades = np.zeros(len(numbers), dtype=np.uint8)
    for own in range(len(numbers)):
        taken = {int(shades[other]) for other in neighbours.get(own, ()) if numbers[other] > 0}
        free = [shade for shade in range(N_SHADES) if shade not in taken] or [own % N_SHADES]
        shades[own] = free[0] if numbers[own] > 0 else 0
    return shades[place]


def shade(pixels: Float32Array, shades: NDArray[np.uint8]) -> None:
    """Change colours (rows, columns, 3) in place to their shades (rows, columns)."""
    for number, share in _LIGHTER.items():
        where = shades == number
        pixels[where] += share * (1 - pixels[where])
    for number, share in _DARKER.items():
        pixels[shades == number] *= 1 - share


def edges(objects: IntegerArray) -> BoolArray:
    """Return (rows, columns) bool: pixels of an object with a neighbour inside the picture that is not of it."""
    result = np.zeros(objects.shape, dtype=bool)
    for axis in (0, 1):
        differs = np.diff(objects, axis=axis) != 0
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        result[tuple(before)] |= differs
        result[tuple(after)] |= differs
    inside: BoolArray = result & (objects > 0)
    return inside


def _touching(place: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return the pairs of different numbers in ``place`` (y, x) that share an edge or a corner."""
    sides = (
        (place[:, :-1], place[:, 1:]),
        (place[:-1], place[1:]),
        (place[:-1, :-1], place[1:, 1:]),
        (place[:-1, 1:], place[1:, :-1]),
    )
    pairs = np.concatenate([np.stack([one.ravel(), other.ravel()], axis=1) for one, other in sides])
    return [(int(one), int(other)) for one, other in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)]
