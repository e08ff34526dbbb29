"""Separation of the objects of a class by affinities: the mutex watershed of the optional package bioimage-cpp."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.arrays import BoolArray
from autoseg.core.components import optional
from autoseg.core.errors import ConfigError
from autoseg.dataset.instance_numbers import Offset

MODULE, EXTRA = "bioimage_cpp.segmentation", "mutex"
"""What is imported, and the extra of autoseg that installs it."""


def is_installed() -> bool:
    """Whether the package is there."""
    return find_spec(MODULE.partition(".")[0]) is not None


def is_attractive(offset: Offset) -> bool:
    """Whether a pair at an offset is of nearest neighbours, which are joined; longer pairs only keep objects apart."""
    return sum(map(abs, offset)) == 1


def missing_offsets(offsets: Sequence[Offset], shape: Sequence[int]) -> str | None:
    """Return, in words, an offset without which objects in an array of ``shape`` (z, y, x) cannot be parted, or None.

    Along each axis of several voxels, objects do not extend without a pair of nearest neighbours, and two that touch
    are always joined without a longer pair.
    """
    for axis, name in enumerate("zyx"):
        along = [offset for offset in offsets if offset[axis]]
        if shape[axis] == 1:
            continue
        if not any(map(is_attractive, along)):
            return f"one of one voxel along {name}"
        if all(map(is_attractive, along)):
            return f"a longer one along {name}"
    return None


def check_offsets(where: str, offsets: Sequence[Offset], shape: Sequence[int]) -> None:
    """Raise ``ConfigError``, which begins with ``where``, if :func:`missing_offsets` names an offset."""
    missing = missing_offsets(offsets, shape)
    if missing is not None:
        raise ConfigError(
            f"{where}: found the affinities {[list(offset) for offset in offsets]}, expected also {missing}, which the "
            'mutex watershed needs. Part objects by --instances watershed, or add an offset to "affinities" in '
            "dataset.json and train again, along z a 3-D configuration."
        )


def part_by_affinities(
    mask: BoolArray, affinities: NDArray[np.integer[Any]], offsets: Sequence[Offset], *, top: int
) -> NDArray[np.uint32]:
    """Return the objects (z, y, x) of a class by the mutex watershed; numbers above 0, with gaps.

    All pairs of voxels within the mask are taken in turn, the surest first: pairs of nearest neighbours by their
    affinity a, longer pairs by 1 - a. Neighbours are joined, unless their objects are kept apart; a longer pair keeps
    the objects of its voxels apart from then on, unless they are one already. There is no setting. Equally sure pairs
    are taken in the order of neighbours before longer ones, offsets, and voxels, so the result is always the same. An
    empty mask has no objects.

    Parameters
    ----------
    mask
        (z, y, x) bool: voxels of the class.
    affinities
        (A, z, y, x) affinity of each voxel v and v + offset, 0 to ``top``; pairs that leave the array are not read.
    offsets
        (A,) offsets (z, y, x) in voxels, none of them missing by :func:`missing_offsets`.
    top
        The value that means 1.

    Raises
    ------
    ConfigError
        If bioimage-cpp is not installed.

    Notes
    -----
    With 4 to 6 offsets it takes 100 to 400 bytes and 0.1 to 7 µs per voxel of the box around the mask, most where the
    mask fills the box and affinities are noise. Source: Wolf et al., The Mutex Watershed and its Objective, arXiv
    1904.12654, algorithm 1, by bioimage-cpp.
    """
    mutex_watershed = optional(MODULE, EXTRA).mutex_watershed
    objects = np.zeros(mask.shape, dtype=np.uint32)
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return objects
    box = boxes[0]
    order = sorted(range(len(offsets)), key=lambda index: not is_attractive(offsets[index]))
    n_attractive = sum(map(is_attractive, offsets))
    weights = np.empty((len(order), *mask[box].shape), dtype=np.float32)
    for index, channel in enumerate(order):
        own = affinities[channel][box]
        weights[index] = own if index < n_attractive else top - own
    parted = mutex_watershed(weights, [offsets[channel] for channel in order], n_attractive, mask=mask[box])
    objects[box] = parted
    return objects
