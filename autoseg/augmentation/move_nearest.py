"""Maps of ids moved by a warp: each point of the patch takes the value of the nearest voxel, so that none is mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from autoseg.augmentation.sampling_grid import Source, axis_strides, pieces
from autoseg.augmentation.warp import Warp, moved_by


def move_nearest(box: Tensor, warp: Warp, centre: Sequence[float], patch: Sequence[int], *, outside: int) -> Tensor:
    """Return the patch of a map of ids.

    Parameters
    ----------
    box
        (*box) integers: the part of the map that ``source_box`` asks for, cut off where the image ends.
    warp, centre, patch
        As in :func:`autoseg.augmentation.warp.move_image`.
    outside
        Value of everything beyond ``box``.

    Returns
    -------
    Tensor
        (*patch), type of ``box``. Of two voxels that are equally near, the former.
    """
    return moved_by(box[None], warp, centre, patch, outside, _nearest)[0]


def _nearest(source: Source) -> Tensor:
    """Return (L, V): the value of the voxel nearest to each of V points, of every layer of the source."""
    flat, strides = source.layers.flatten(1), axis_strides(source)
    moved = flat.new_empty((len(flat), math.prod(source.patch)))
    for piece in pieces(source):
        nearest = piece.corner
        for fraction, stride in zip(piece.fractions, strides, strict=True):
            nearest = nearest + (fraction > 0.5) * stride
        moved[:, piece.points] = flat.index_select(1, nearest)
    return moved
