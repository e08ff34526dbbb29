"""Crop of the empty border of an image: the image alone decides what is empty, never its annotation.

All cases of a data set are cropped, or none: none if annotated foreground lies in such a border.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.annotation.label_counts import count_values
from autoseg.core.arrays import BoolArray, Shape3
from autoseg.core.chunks import slabs


def nonzero_mask(image: NDArray[Any]) -> BoolArray:
    """(*S) bool: voxels that are not 0 in at least one channel, and the holes that they enclose.

    ``image`` is (C, *S); NaN counts as not 0. In an image of one slice nothing is enclosed, as in nnU-Net.
    Source: nnU-Net ``preprocessing/cropping/cropping.py:create_nonzero_mask`` (``binary_fill_holes``). We label the
    components of the zero voxels instead, which is several times faster.
    """
    mask = any_nonzero(image)
    if mask.all() or min(mask.shape) < 3:  # all zeros touch the border
        return mask
    components, n_components = ndimage.label(~mask)
    is_hole = np.ones(n_components + 1, dtype=bool)
    for axis in range(mask.ndim):
        for end in (0, -1):
            is_hole[components.take(end, axis=axis).ravel()] = False
    is_hole[0] = False
    for slab in slabs(mask.shape):
        mask[slab] |= is_hole[components[slab]]
    return mask


def any_nonzero(image: NDArray[Any]) -> BoolArray:
    """(*S) bool: voxels that are not 0 in at least one channel of ``image`` (C, *S)."""
    mask: BoolArray = image[0] != 0
    for channel in image[1:]:
        mask |= channel != 0
    return mask


def content_box(image: NDArray[Any]) -> tuple[Shape3, Shape3]:
    """Return the box of all voxels that are not 0 in at least one channel: its first voxel and one past its last.

    ``image`` is (C, *S) of any real type; if it is 0 everywhere, the box is the whole image. Filled holes do not change
    the box. Only as many slabs are read as needed: of a CT, whose air is not 0, one at each end. Source:
    ``acvl_utils.cropping_and_padding.bounding_boxes.get_bbox_from_mask``, which would import torch.
    """
    z, y, x = image.shape[1:]
    rows, columns = np.zeros(y, dtype=bool), np.zeros(x, dtype=bool)
    first, last = z, -1
    pieces = list(slabs((z, y, x)))
    for slab in pieces:
        mask = any_nonzero(image[:, slab])
        used = np.flatnonzero(mask.any(axis=(1, 2)))
        if used.size:
            first, last = min(first, slab.start + int(used[0])), slab.start + int(used[-1])
            plane: BoolArray = np.logical_or.reduce(mask, axis=0)
            rows |= plane.any(axis=1)
            columns |= plane.any(axis=0)
        if rows.all() and columns.all():
            break
    if last < 0:
        return (0, 0, 0), (z, y, x)
    for slab in reversed(pieces):  # if the loop ended early, the remaining slabs matter only for z
        used = np.flatnonzero(any_nonzero(image[:, slab]).any(axis=(1, 2)))
        if used.size:
            last = slab.start + int(used[-1])
            break
    (y_low, y_high), (x_low, x_high) = _ends(rows), _ends(columns)
    return (first, y_low, x_low), (last + 1, y_high, x_high)


def full_box(image: NDArray[Any]) -> tuple[Shape3, Shape3]:
    """Return the box of the whole ``image`` (C, *S): its first voxel and one past its last."""
    z, y, x = image.shape[1:]
    return (0, 0, 0), (z, y, x)


def count_outside(values: NDArray[Any], low: Shape3, high: Shape3) -> dict[int, int]:
    """Return value -> voxels of an integer map (*S) outside a box, values ascending, only values with such voxels."""
    if high == values.shape and not any(low):
        return {}
    everywhere, inside = count_values(values), count_values(values[box_slices(low, high)])
    outside = {value: number - inside.get(value, 0) for value, number in everywhere.items()}
    return {value: number for value, number in outside.items() if number}


def box_slices(low: Shape3, high: Shape3) -> tuple[slice, ...]:
    """Return the slices that select a box from an array (*S)."""
    return tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))


def _ends(used: BoolArray) -> tuple[int, int]:
    """Return the first index and one past the last index of the True elements of ``used`` (L,), at least one."""
    indices = np.flatnonzero(used)
    return int(indices[0]), int(indices[-1]) + 1
