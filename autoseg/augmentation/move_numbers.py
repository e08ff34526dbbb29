"""Numbers that are known in some voxels, moved by a warp so that no value of an unknown voxel is mixed in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from autoseg.augmentation.warp import Warp, arranged, cut, move_image

KNOWN_SHARE = 0.5
"""Least share of the weights of an interpolation that must belong to known voxels."""


def move_numbers(box: Tensor, warp: Warp, centre: Sequence[float], patch: Sequence[int]) -> Tensor:
    """Return the patch of a map of numbers, NaN where unknown and beyond ``box``.

    A point gets the mean of its known neighbours by the weights of linear interpolation, unless less than half of the
    weight belongs to known voxels: then it is unknown. What lies outside the image is unknown.

    Parameters
    ----------
    box
        (C, *box) float32, NaN where unknown: the part of the map that ``source_box`` asks for, cut off where the image
        ends.
    warp, centre, patch
        As in :func:`autoseg.augmentation.warp.move_image`.

    Returns
    -------
    Tensor
        (C, *patch) float32.
    """
    if warp.is_identity or 0 in box.shape:
        return arranged(cut(box, centre, patch, math.nan), warp)
    is_known = ~box.isnan()
    moved = move_image(torch.cat([box.masked_fill(~is_known, 0), is_known.to(box)]), warp, centre, patch)
    total, weight = moved[: len(box)], moved[len(box) :]
    return torch.where(weight >= KNOWN_SHARE, total / weight, math.nan)
