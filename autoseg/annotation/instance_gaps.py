"""Gaps of one voxel between touching instances, so that they stay apart where only their class is kept."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray


def separated(instances: NDArray[np.integer[Any]]) -> BoolArray:
    """Return the mask (*S) of instances without the voxels that touch another instance.

    Of two instances that share a face, an edge or a corner, the larger one loses the voxels that touch the smaller one
    (of equal ones that with the greater number). So no connected component of the mask holds voxels of two instances,
    in whatever order they are numbered. A large instance that is thin everywhere beside smaller ones may lose most of
    its voxels.

    Parameters
    ----------
    instances
        (*S) number of the instance of each voxel, 0 or less for background. Any integers up to the dtype's limit.

    Notes
    -----
    Source: deepflash2 ``data.py`` (ridges). There, instances are written one after the other into a mask, so that the
    result depends on their order, and their numbers on 16 bits.
    """
    ranks = _ranks_by_size(instances)
    touches: BoolArray = np.zeros(instances.shape, dtype=bool)
    for offset in product((-1, 0, 1), repeat=instances.ndim):
        if offset <= (0,) * instances.ndim:  # each pair of neighbours once
            continue
        first, second = _shifted(offset, instances.shape)
        one, other = ranks[first], ranks[second]
        is_contact = (one != other) & (one > 0) & (other > 0)
        touches[first] |= is_contact & (one > other)
        touches[second] |= is_contact & (other > one)
    return (ranks > 0) & ~touches


def _ranks_by_size(instances: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
    """Return the ranks (*S) of the instances by size, 1 for the smallest one; 0 for background."""
    values, inverse, sizes = np.unique(instances, return_inverse=True, return_counts=True)
    is_instance = values > 0
    order = np.lexsort((values, sizes))
    ranks = np.zeros(len(values), dtype=np.uint32)
    ordered = order[is_instance[order]]
    ranks[ordered] = np.arange(1, len(ordered) + 1)
    return ranks[inverse].reshape(instances.shape)


def _shifted(offset: tuple[int, ...], shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the boxes of the voxels that have a neighbour at ``offset``, and of those neighbours."""
    first = tuple(slice(max(0, -step), length - max(0, step)) for step, length in zip(offset, shape, strict=True))
    second = tuple(slice(max(0, step), length - max(0, -step)) for step, length in zip(offset, shape, strict=True))
    return first, second
