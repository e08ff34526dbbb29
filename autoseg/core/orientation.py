"""Voxel order of files, and exchange and reversal of the axes of arrays, which loses nothing.

Files may store voxels from right to left or from left to right, in axial or coronal slices. A network sees arrays
only, so all arrays are brought to the voxel order of most training files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.boxes import Box
from autoseg.core.geometry import Direction, Geometry

Triple = tuple[int, int, int]
Flips = tuple[bool, bool, bool]

_TIE = 1e-6
"""Difference of cosines that counts as rounding. Of equally close voxel orders, the one that changes less is taken."""
_LEAST_VOLUME = 0.5
"""Least volume of the parallelepiped of the three unit axes. Below it they do not span space and are ignored."""
_ENDS = (("R", "L"), ("A", "P"), ("I", "S"))
"""Per world axis (LPS): letters of the directions of falling and rising coordinates."""
_AXIS_ORDERS: tuple[Triple, ...] = tuple((a, b, c) for a, b, c in permutations(range(3)))


@dataclass(frozen=True, slots=True)
class VoxelOrder:
    """Exchange and reversal of array axes: axis ``axes[i]`` becomes axis ``i``, reversed if ``flipped[i]``."""

    axes: Triple = (0, 1, 2)
    flipped: Flips = (False, False, False)

    @property
    def is_identity(self) -> bool:
        """Whether the array stays as it is."""
        return self == VoxelOrder()

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of ``array`` (*S) or (C, *S) in this order. A leading axis stays first."""
        leading = array.ndim - 3
        turned = array.transpose(*range(leading), *(axis + leading for axis in self.axes))
        return turned[(slice(None),) * leading + tuple(_run(is_flipped) for is_flipped in self.flipped)]

    def invert(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of ``array`` (*S) or (C, *S) in its former order: ``invert(apply(array))`` equals ``array``."""
        return self.inverse.apply(array)

    @property
    def inverse(self) -> VoxelOrder:
        """The order that undoes this one."""
        back = [self.axes.index(axis) for axis in range(3)]
        return VoxelOrder(_triple(back), _flips(self.flipped[axis] for axis in back))

    def then(self, axes: Sequence[int]) -> VoxelOrder:
        """Return this order followed by the exchange of axes that puts axis ``axes[i]`` at ``i``."""
        return VoxelOrder(_triple(self.axes[axis] for axis in axes), _flips(self.flipped[axis] for axis in axes))

    def permuted(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Return three values, one per axis (spacings, edges), in this order."""
        z, y, x = (values[axis] for axis in self.axes)
        return (z, y, x)

    def inverse_point(self, point: Sequence[float], shape: Sequence[int]) -> tuple[float, float, float]:
        """Return the index in the array before turning of ``point`` (z, y, x), an index in the turned array.

        ``shape`` is that of the turned array. Both in voxels.
        """
        unflipped = [
            edge - 1 - at if is_flipped else at for at, edge, is_flipped in zip(point, shape, self.flipped, strict=True)
        ]
        return self.inverse.permuted(unflipped)

    def turned_box(self, box: Box, shape: Sequence[int]) -> Box:
        """Return the box after :meth:`apply` of an array whose ``shape`` (z, y, x) is that before."""
        spans = [
            (edge - stop, edge - start) if is_flipped else (start, stop)
            for (start, stop), edge, is_flipped in zip(
                self.permuted([*zip(box.start, box.stop, strict=True)]), self.permuted(shape), self.flipped, strict=True
            )
        ]
        (z0, z1), (y0, y1), (x0, x1) = spans
        return Box((z0, y0, x0), (z1, y1, x1))

    def turned(self, geometry: Geometry, shape: Sequence[int]) -> Geometry:
        """Return the geometry after :meth:`apply` of an array that has ``geometry`` and ``shape`` (z, y, x) before.

        Every voxel keeps its position in the world. ``metadata`` is left out, because it describes the stored file.
        """
        columns = np.asarray(geometry.direction, dtype=float).reshape(3, 3)[:, ::-1]  # of the axes z, y, x
        columns = columns[:, list(self.axes)]
        spacing = self.permuted(geometry.spacing)
        steps = [
            (edge - 1) * step if is_flipped else 0.0
            for edge, step, is_flipped in zip(self.permuted(shape), spacing, self.flipped, strict=True)
        ]
        x, y, z = (float(value) for value in np.asarray(geometry.origin) + columns @ np.asarray(steps))
        columns = columns * np.where(self.flipped, -1.0, 1.0)
        direction: Any = tuple(float(value) for value in columns[:, ::-1].ravel())
        return geometry.model_copy(
            update={"spacing": spacing, "origin": (x, y, z), "direction": direction, "metadata": {}}
        )


AS_STORED = VoxelOrder()


def order_towards(geometry: Geometry, wanted: Direction | None) -> VoxelOrder:
    """Return the voxel order that turns the axes of an array with ``geometry`` as close as possible to ``wanted``.

    ``wanted`` are direction cosines as in :class:`Geometry`. The order is ``AS_STORED`` if they are None, or if the
    file does not state the direction of its axes. For oblique axes, the order with the largest sum of cosines is taken,
    and of equally close ones the one that changes least.
    """
    if wanted is None or not has_axes(geometry):
        return AS_STORED
    cosines = _cosines(np.asarray(wanted, dtype=float), np.asarray(geometry.direction, dtype=float))
    sums = [sum(abs(cosines[row, column]) for row, column in enumerate(axes)) for axes in _AXIS_ORDERS]
    axes = next(item for item, value in zip(_AXIS_ORDERS, sums, strict=True) if value >= max(sums) - _TIE)
    return VoxelOrder(axes, _flips(cosines[row, column] < -_TIE for row, column in enumerate(axes)))


def has_axes(geometry: Geometry) -> bool:
    """Whether the file states the direction of its axes: finite cosines of axes that span space."""
    if not geometry.is_directed:
        return False
    if not all(map(math.isfinite, geometry.direction)):
        return False
    return abs(float(np.linalg.det(np.asarray(geometry.direction, dtype=float).reshape(3, 3)))) >= _LEAST_VOLUME


def prevailing_direction(geometries: Iterable[Geometry]) -> Direction | None:
    """Return the direction cosines of the voxel order of most files; None if no file states its direction.

    They are the cosines of one of the files: the one for which most of the other files need no turning, among equals
    the one to which the others are closest, then the first. Oblique volumes that differ a little from each other
    (short-axis views of hearts) therefore get one order, even if their closest world axes differ.
    """
    counted = Counter(_rounded(geometry.direction) for geometry in geometries if has_axes(geometry))
    if not counted:
        return None
    directions, numbers = np.array(list(counted), dtype=float), np.array(list(counted.values()))
    scores = [_agreement(direction, directions, numbers) for direction in directions]
    return list(counted)[max(range(len(scores)), key=scores.__getitem__)]


def orientation_name(direction: Direction, order: VoxelOrder = AS_STORED) -> str:
    """Return letters for the world directions closest to the axes x, y, z: ``LPS`` is left, posterior, superior.

    If ``order`` is given, it turns an array to ``direction``, and the letters describe the array before turning.
    """
    world = _cosines(np.eye(3).ravel(), np.asarray(direction, dtype=float))
    closest = max(_AXIS_ORDERS, key=lambda axes: round(sum(abs(world[r, c]) for r, c in enumerate(axes)), 6))
    letters = [""] * 3
    for row, column in enumerate(closest):  # rows are the world's S, P, L
        letters[column] = _ENDS[2 - row][int(world[row, column] > 0)]
    stored = [""] * 3
    for letter, axis, is_flipped in zip(letters, order.axes, order.flipped, strict=True):
        stored[axis] = _opposite(letter) if is_flipped else letter
    return "".join(reversed(stored))


def _rounded(direction: Direction) -> Direction:
    a, b, c, d, e, f, g, h, i = (round(float(cosine), 4) + 0.0 for cosine in direction)  # + 0.0: there is one zero
    return (a, b, c, d, e, f, g, h, i)


def _opposite(letter: str) -> str:
    low, high = next(ends for ends in _ENDS if letter in ends)
    return low if letter == high else high


def _cosines(wanted: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (..., 3, 3) cosines between the axes z, y, x of ``wanted`` (9,) and those of ``directions`` (..., 9)."""
    mine, theirs = wanted.reshape(3, 3), directions.reshape(*directions.shape[:-1], 3, 3)
    cosines: NDArray[np.float64] = np.einsum("ki,...kj->...ij", mine, theirs)[..., ::-1, ::-1]
    return cosines


def _agreement(
    direction: NDArray[np.float64], directions: NDArray[np.float64], numbers: NDArray[Any]
) -> tuple[int, float]:
    """Return the number of files that need no turning towards ``direction`` (9,), and the sum of their cosines.

    ``directions`` (n, 9) are the different directions, ``numbers`` (n,) the files that have each of them.
    """
    cosines = _cosines(direction, directions)
    largest = np.max([np.abs(cosines[:, range(3), axes]).sum(axis=1) for axes in _AXIS_ORDERS], axis=0)
    closeness = cosines.trace(axis1=1, axis2=2)
    agrees = closeness >= largest - _TIE
    return int(numbers[agrees].sum()), round(float((closeness * numbers)[agrees].sum()), 4)


def _run(is_flipped: bool) -> slice:
    """Return the slice of a whole axis, reversed if ``is_flipped``."""
    return slice(None, None, -1) if is_flipped else slice(None)


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return (z, y, x)


def _flips(values: Iterable[Any]) -> Flips:
    z, y, x = (bool(value) for value in values)
    return (z, y, x)
