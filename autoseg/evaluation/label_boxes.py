"""Label maps of any size and format, read box by box, on the grid of a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Shape3
from autoseg.core.boxes import Box
from autoseg.core.geometry import Geometry
from autoseg.core.location import is_location, path_of
from autoseg.core.orientation import VoxelOrder
from autoseg.io.arrays import open_array
from autoseg.io.file_formats import label_map
from autoseg.io.images import read_header, read_labels
from autoseg.io.stored_array import StoredArray
from autoseg.io.zarr_writer import check_written

Known = Callable[[Box], BoolArray | None]
"""Function that returns the mask (*box) of voxels of which the data are there; None: all are."""
BOX_VOXELS = 2**22
"""Voxels that are scored at once, on which memory depends: some 100 bytes for each where files hold objects."""
IN_MEMORY_VOXELS = 2**27
"""Largest image file that is read whole, if its format can be read in boxes."""
_IN_BOXES = (".nii", ".tif", ".tiff")
"""Endings of image files that can be read in boxes."""


@dataclass(frozen=True)
class LabelBoxes:
    """A label map (z, y, x) whose boxes are read when they are needed."""

    path: Path
    shape: Shape3
    geometry: Geometry
    chunk: Shape3
    """Voxels that are best read together."""
    read: Callable[[Box], NDArray[np.integer[Any]]]
    """Function that returns the file values (*box) of a box within the map."""
    known: Known

    def turned(self, order: VoxelOrder) -> LabelBoxes:
        """Return the map in another voxel order; ``geometry`` is left as it is."""
        if order.is_identity:
            return self
        shape: Shape3 = order.permuted(self.shape)

        def stored(box: Box) -> Box:
            return _before_turning(box, order, shape)

        def known(box: Box) -> BoolArray | None:
            mask = self.known(stored(box))
            return None if mask is None else order.apply(mask)

        return replace(
            self,
            shape=shape,
            chunk=order.permuted(self.chunk),
            read=lambda box: np.ascontiguousarray(order.apply(self.read(stored(box)))),
            known=known,
        )


def open_label_boxes(path: Path, *, allow_nan: bool = False) -> LabelBoxes:
    """Open a label map: an image file, or a location (docs/volumes.md).

    An image file is read whole here, unless it is larger than ``IN_MEMORY_VOXELS`` and its format has boxes; of all
    others no voxel is read yet.

    Parameters and errors are those of :func:`autoseg.io.images.read_labels`; some are raised when a box is read. A
    volume that is still being written is an error, too.
    """
    if not is_location(path) and not _is_large(path):
        values, geometry = read_labels(path, allow_nan=allow_nan)
        z, y, x = values.shape
        return LabelBoxes(path, (z, y, x), geometry, (1, y, x), lambda box: values[box.slices], lambda box: None)
    check_written(path_of(path))
    array = open_array(path, as_labels=True)
    return LabelBoxes(
        path=path,
        shape=array.spatial_shape,
        geometry=array.geometry,
        chunk=array.chunk,
        read=lambda box: label_map(path, array.read(box), allow_nan=allow_nan),
        known=_known(array),
    )


def open_known(image: Path, shape: Shape3) -> Known:
    """Return the function that tells which voxels of an image are there, on the grid of a label map of ``shape``.

    No voxel is read; an image of another shape says nothing about the map. Raises ``FileFormatError`` if the image is
    an array that cannot be opened.
    """
    array = open_array(image) if is_location(image) else None
    return _known(array) if array is not None and array.spatial_shape == shape else lambda box: None


def _known(array: StoredArray) -> Known:
    return lambda box: array.known(box) if array.missing(box) else None


def box_shape(shape: Shape3, chunks: Sequence[Shape3], n_voxels: int = 0) -> Shape3:
    """Return the shape (z, y, x) of boxes of at most ``n_voxels`` (0: ``BOX_VOXELS``) for reading maps of ``shape``.

    It is a multiple of the largest of ``chunks``, as far as they fit, and as wide as possible, x first.
    """
    n_voxels = n_voxels or BOX_VOXELS
    edges = [min(max(sizes), edge) for edge, *sizes in zip(shape, *chunks, strict=True)]
    while math.prod(edges) > n_voxels:  # a chunk alone is too large
        axis = edges.index(max(edges))
        edges[axis] = -(-edges[axis] // 2)
    for axis in (2, 1, 0):
        times = max(1, n_voxels // math.prod(edges))
        edges[axis] = min(edges[axis] * times, shape[axis])
    return (edges[0], edges[1], edges[2])


def _is_large(path: Path) -> bool:
    if not path.name.lower().endswith(_IN_BOXES):
        return False
    shape, _ = read_header(path, as_labels=True)
    return math.prod(shape[1:]) > IN_MEMORY_VOXELS


def _before_turning(box: Box, order: VoxelOrder, shape: Shape3) -> Box:
    """Return the box, in the array before turning, of a box in the array of ``shape`` after it."""
    spans = [
        (edge - stop, edge - start) if is_flipped else (start, stop)
        for start, stop, edge, is_flipped in zip(box.start, box.stop, shape, order.flipped, strict=True)
    ]
    (z0, z1), (y0, y1), (x0, x1) = order.inverse.permuted(spans)
    return Box((z0, y0, x0), (z1, y1, x1))
