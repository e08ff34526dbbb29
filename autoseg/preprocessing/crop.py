"""Cut away the empty border of an image; what is empty is decided by the image alone, never by its annotation."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from autoseg.core.case import BoolArray, Float32Array, Shape3


def nonzero_mask(image: Float32Array) -> BoolArray:
    """(*S) bool: voxels that are not 0 in some channel, with the holes filled that these enclose.

    ``image`` is (C, *S); NaN counts as not 0. In an image of one slice nothing is enclosed, as in nnU-Net.
    Source: nnU-Net ``preprocessing/cropping/cropping.py:create_nonzero_mask`` (``binary_fill_holes``), here by
    labelling the components of the background, which is several times faster.
    """
    mask = any_nonzero(image)
    if mask.all() or min(mask.shape) < 3:  # whatever is zero touches the border
        return mask
    components, n_components = ndimage.label(~mask)
    is_hole = np.ones(n_components + 1, dtype=bool)
    for axis in range(mask.ndim):
        for end in (0, -1):
            is_hole[components.take(end, axis=axis).ravel()] = False
    is_hole[0] = False
    mask |= is_hole[components]
    return mask


def any_nonzero(image: Float32Array) -> BoolArray:
    """(*S) bool: voxels that are not 0 in some channel of ``image`` (C, *S)."""
    mask: BoolArray = image[0] != 0
    for channel in image[1:]:
        mask |= channel != 0
    return mask


def bounding_box(mask: BoolArray) -> tuple[Shape3, Shape3]:
    """Return the first voxel and one past the last voxel of the box that holds all True voxels of ``mask`` (*S).

    A mask without True gives the full box. Filling holes does not change it.
    Source: ``acvl_utils.cropping_and_padding.bounding_boxes.get_bbox_from_mask``, which would import torch.
    """
    low, high = [0] * mask.ndim, list(mask.shape)
    offsets = [0] * mask.ndim
    inside = mask
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        used = np.flatnonzero(inside.any(axis=others))
        if used.size == 0:
            return _triple([0] * mask.ndim), _triple(list(mask.shape))
        low[axis], high[axis] = offsets[axis] + int(used[0]), offsets[axis] + int(used[-1]) + 1
        inside = inside[(slice(None),) * axis + (slice(int(used[0]), int(used[-1]) + 1),)]
    return _triple(low), _triple(high)


def box_slices(low: Shape3, high: Shape3) -> tuple[slice, ...]:
    """Return the slices that select a box from an array (*S)."""
    return tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))


def _triple(values: list[int]) -> Shape3:
    z, y, x = values
    return (z, y, x)
