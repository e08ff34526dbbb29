"""Array on disk that is read box by box, whatever its format and size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Shape3
from autoseg.core.boxes import Box
from autoseg.core.errors import Fault, FileFormatError
from autoseg.core.geometry import ASSUMED, Geometry
from autoseg.io.file_contents import Shape4, StoredHeader, assumed_geometry, unreadable


def _nothing_missing(box: Box) -> tuple[Box, ...]:
    return ()


@dataclass(frozen=True)
class StoredArray:
    """An array (C, z, y, x) of numbers on disk. A 2-D image has one slice, labels have one channel.

    Threads may share it. It cannot be pickled: another process opens ``location`` itself
    (:func:`autoseg.io.arrays.open_array`).
    """

    location: str
    """Path, and the name of the array in the file or group: ``volume.zarr:labels/cells/0``."""
    header: StoredHeader
    """Shape, geometry, and oddities of the file."""
    dtype: np.dtype[Any]
    """Type of the values: integers or floating point, in native byte order. Booleans are read as uint8."""
    chunk: Shape3
    """Voxels (z, y, x) that are stored together. Boxes on this grid are read without reading anything twice."""
    load: Callable[[Box], NDArray[Any]]
    """Function of the format that returns (C, *box) for a box that is not empty and lies inside."""
    find_missing: Callable[[Box], tuple[Box, ...]] = _nothing_missing
    """Function of the format that returns the boxes, within a box, of which the data are missing."""

    @property
    def shape(self) -> Shape4:
        """(C, z, y, x)."""
        return self.header.shape

    @property
    def spatial_shape(self) -> Shape3:
        """(z, y, x)."""
        _, z, y, x = self.header.shape
        return (z, y, x)

    @property
    def geometry(self) -> Geometry:
        """Spacing, origin and direction; a spacing of 1 mm, marked as assumed, if the format states none."""
        return self.header.geometry

    def read(self, box: Box) -> NDArray[Any]:
        """Return the values of a box as a new array (C, *box), C-contiguous, of type ``dtype``.

        What is missing (:meth:`missing`) is 0. An empty box gives an empty array.

        Raises
        ------
        ValueError
            If the box overhangs the array (:func:`autoseg.core.boxes.read_overhanging` reads such boxes).
        FileFormatError
            If a part of the data is damaged.
        """
        if not box.is_within(self.spatial_shape):
            raise ValueError(f"{self.location}: box {box} overhangs the array of {self.spatial_shape} voxels (z, y, x)")
        if not box.n_voxels:
            return np.empty((self.shape[0], *box.shape), dtype=self.dtype)
        return np.array(self.load(box), dtype=self.dtype, order="C", copy=True)

    def missing(self, box: Box | None = None) -> tuple[Box, ...]:
        """Return the boxes, within ``box`` (None: the whole array), of which nothing is known: their files are missing.

        Only tiles can be missing. Chunks that a Zarr array leaves out hold its fill value, which is data.
        """
        whole = Box.whole(self.spatial_shape)
        return self.find_missing(whole if box is None else whole.intersection(box))

    def known(self, box: Box) -> BoolArray:
        """Return the mask (*box) of the voxels of which the data are there. Raises as :meth:`read` does."""
        if not box.is_within(self.spatial_shape):
            raise ValueError(f"{self.location}: box {box} overhangs the array of {self.spatial_shape} voxels (z, y, x)")
        mask = np.ones(box.shape, dtype=bool)
        for gap in self.missing(box):
            mask[gap.relative_to(box).slices] = False
        return mask


def joined_channels(arrays: Sequence[StoredArray]) -> StoredArray:
    """Return arrays on the same grid as one, with the channels of each in turn.

    Parameters
    ----------
    arrays
        At least one (C, z, y, x); they agree in (z, y, x). Location, geometry and chunk are those of the first.
    """
    first = arrays[0]
    n_channels = sum(array.shape[0] for array in arrays)
    dtype = np.result_type(*(array.dtype for array in arrays))
    return replace(
        first,
        header=first.header._replace(shape=(n_channels, *first.spatial_shape)),
        dtype=dtype,
        load=lambda box: np.concatenate([array.load(box) for array in arrays], dtype=dtype),
        find_missing=lambda box: tuple(gap for array in arrays for gap in array.find_missing(box)),
    )


def part_of(array: StoredArray, box: Box, *, has_own_shape: bool = False) -> StoredArray:
    """Return a box of an array as an array of its own, whose first voxel lies in the world where that of the box lies.

    With ``has_own_shape`` an array that has the shape of the box is taken for the box: labels of it alone. Its geometry
    counts as not stated, since the box states where it lies.

    Raises ``FileFormatError`` if the box is empty, or leaves the array.
    """
    shape, own = array.spatial_shape, has_own_shape and array.spatial_shape == box.shape
    if not box.n_voxels or not (own or box.is_within(shape)):
        found = f"the box {box} (z, y, x) of an array of {shape} voxels"
        expected = "voxels of the array" if box.n_voxels else "a box with voxels on every axis"
        if has_own_shape:
            expected += f", or an array of the shape of the box, {box.shape}"
        raise FileFormatError(Fault(array.location, found, expected, "Correct the box, or the location."))
    start = (0, 0, 0) if own else box.start
    geometry = _geometry_of_part(array.geometry, box.start)
    geometry = geometry.model_copy(update={"metadata": {"spacing": ASSUMED}}) if own else geometry

    def missing(inner: Box) -> tuple[Box, ...]:
        return tuple(gap.relative_to(Box(start, start)) for gap in array.find_missing(inner.shifted(start)))

    return StoredArray(
        location=f"{array.location}{box}",
        header=array.header._replace(shape=(array.shape[0], *box.shape), geometry=geometry),
        dtype=array.dtype,
        chunk=array.chunk,
        load=lambda inner: array.load(inner.shifted(start)),
        find_missing=missing,
    )


def _geometry_of_part(geometry: Geometry, start: Shape3) -> Geometry:
    """Return the geometry of the part of an array that starts at voxel ``start`` (z, y, x), without file header."""
    columns = np.asarray(geometry.direction, dtype=float).reshape(3, 3)
    steps = np.asarray([index * edge for index, edge in zip(start, geometry.spacing, strict=True)][::-1])
    x, y, z = (float(value) for value in np.asarray(geometry.origin) + columns @ steps)
    kept = {key: value for key, value in geometry.metadata.items() if key == "spacing"}
    return geometry.model_copy(update={"origin": (x, y, z), "metadata": kept})


def refuse_broken(values: NDArray[Any], location: str, box: Box) -> None:
    """Raise ``FileFormatError`` if values (C, *box) of an array are NaN or infinite; names the voxels that are."""
    if values.dtype.kind != "f":
        return
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):  # faster than a look at each voxel
            return
    is_broken = ~np.isfinite(values)
    number = int(np.count_nonzero(is_broken))
    if number:
        channels = np.flatnonzero(is_broken.any(axis=(1, 2, 3)))
        where = f"{location}{bounding_box(is_broken.any(axis=0), box)}"
        where += f" (z, y, x), channel {', '.join(map(str, channels))}" if len(values) > 1 else " (z, y, x)"
        found = f"{number} {'value that is' if number == 1 else 'values that are'} NaN or infinite"
        fix = "Replace them, and others there may be, for example by 0, or export the volume again."
        raise FileFormatError(Fault(where, found, "numbers only", fix))


def bounding_box(mask: BoolArray, box: Box) -> Box:
    """Return the smallest box that holds the voxels of a mask (*box), at least one, in the coordinates of ``box``."""
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    (z0, z1), (y0, y1), (x0, x1) = ((int(span[0]), int(span[-1]) + 1) for span in spans)
    return Box((z0, y0, x0), (z1, y1, x1)).shifted(box.start)


def number_type(path: Path, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which values of ``dtype`` are read: in native byte order, booleans as uint8.

    Raises ``FileFormatError`` for anything but integers, booleans and floating-point numbers.
    """
    if dtype.kind not in "buif":
        what = f"array {name!r} of type {dtype}" if name else f"an array of type {dtype}"
        raise unreadable(path, what, "integers or floating-point numbers", "Save it in such a type.")
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def spatial(path: Path, shape: tuple[int, ...]) -> Shape4:
    """Return the shape (C, z, y, x) of an array without names of axes: (y, x), (z, y, x) or (C, z, y, x).

    Raises ``FileFormatError`` for another number of axes, or an empty axis.
    """
    if not 2 <= len(shape) <= 4 or 0 in shape:
        fix = "Save an array (y, x), (z, y, x) or (C, z, y, x)."
        raise unreadable(path, f"an array of shape {shape}", "2 to 4 axes, none of them empty", fix)
    c, z, y, x = (1,) * (4 - len(shape)) + shape
    return (c, z, y, x)


def plain_header(shape: Shape4, n_axes: int, geometry: Geometry | None = None) -> StoredHeader:
    """Return the header of an array of ``n_axes`` axes whose format states no voxel size."""
    return StoredHeader(shape, geometry or assumed_geometry(2 if n_axes == 2 else 3))
