"""Separation of the objects of a class that touch: its settings, and a watershed on distance and probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.core.errors import ConfigError

UNITS = 255
"""A probability is kept as a whole number from 0 to this, in 1 byte per voxel."""


class SeparationSettings(BaseModel):
    """Settings of the separation, stored in the model folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["watershed", "mutex"] = "watershed"
    """watershed on distance and probability, or, for models with affinities, mutex watershed
    (:mod:`autoseg.tasks.mutex`), of which only the last setting is one."""
    core: float = Field(0.5, ge=0, le=1)
    """Probability above which a voxel is in the core of an object."""
    neck: float = Field(0.7, gt=0, le=1)
    """Two parts of a core are two objects if the neck between them is narrower than this share of the narrower part.
    Smaller values part less."""
    min_size: int = Field(5, ge=0)
    """Objects of fewer voxels become background."""


def separate(
    mask: BoolArray, probability: NDArray[np.uint8], spacing: Sequence[float], settings: SeparationSettings
) -> LabelMap:
    """Return the objects (*S) of a class, numbered from 1 without gaps; uint16, or uint32 for more than 65,535.

    1. The core of objects is where the probability is above ``settings.core``, within the mask.
    2. Markers are the maxima of the distance to the edge of the core that stand out: on every path to a higher one the
       distance plus a voxel falls below ``settings.neck`` times that at the maximum. A component of the mask without
       one is an object of its own.
    3. A watershed within the mask, from the markers along falling distance plus probability, gives each voxel to an
       object.
    4. Objects below ``settings.min_size`` voxels are removed.

    Parameters
    ----------
    mask
        (*S) bool: voxels of the class, 2-D or 3-D. A 3-D array of one plane is taken as 2-D.
    probability
        (*S) in 1/255: of the inside of an object, or of the class where the model knows no boundaries.
    spacing
        Edges of a voxel in mm, one per axis; distances are measured in mm.

    Raises
    ------
    ConfigError
        If ``settings`` ask for another method.

    Notes
    -----
    Neighbours are those that share a face, so objects that touch at an edge or corner alone are two. The array's edge
    is no edge of an object. Source: marker-controlled watershed (scikit-image); deepflash2 ``learner.py`` uses cellpose
    instead, which needs a network of its own.
    """
    if settings.method != "watershed":
        raise ConfigError(
            f"separation of objects: found the method {settings.method}, expected watershed, as nothing is known here "
            'of affinities. Write "method": "watershed" into separation.json of the model folder.'
        )
    if mask.ndim == 3 and len(mask) == 1:
        return separate(mask[0], probability[0], spacing[1:], settings)[None]
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    objects = np.zeros(mask.shape, dtype=np.uint32)
    if boxes:
        low = [max(0, part.start - 1) for part in boxes[0]]
        box = tuple(slice(first, part.stop + 1) for first, part in zip(low, boxes[0], strict=True))
        objects[box] = _separated(mask[box], probability[box], spacing, settings)
    return renumbered(objects, settings.min_size)


def as_units(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return probabilities in [0, 1] of any shape in units of 1/255, rounded."""
    units: NDArray[np.uint8] = np.rint(np.clip(probability, 0, 1) * UNITS).astype(np.uint8)
    return units


def _separated(
    mask: BoolArray, probability: NDArray[np.uint8], spacing: Sequence[float], settings: SeparationSettings
) -> NDArray[np.int32]:
    """Return the objects (*S) of a mask that is not empty, before small ones are removed."""
    edge = min(spacing)
    core = mask & (probability > settings.core * UNITS)
    distance = _depth_in(core, [step / edge for step in spacing])
    markers, _ = ndimage.label(_maxima(distance, settings.neck))
    for region in (core, mask):
        markers = with_unmarked(markers, region)
    height = -(distance + probability.astype(np.float32) / UNITS)
    parted: NDArray[np.int32] = watershed(height, markers, mask=mask)
    return parted


def _depth_in(core: BoolArray, spacing: Sequence[float]) -> NDArray[np.float32]:
    """Return the distance (*S) of each voxel of the core to the nearest voxel that is not; 0 outside.

    Of a core without an edge it is 1 everywhere.
    """
    if core.all():
        return np.ones(core.shape, dtype=np.float32)
    distance: NDArray[np.float32] = ndimage.distance_transform_edt(core, sampling=spacing).astype(np.float32)
    return distance


def with_unmarked(markers: NDArray[np.int32], region: BoolArray) -> NDArray[np.int32]:
    """Return markers (*S) and, as one marker each, the components of ``region`` that have none."""
    components, n_components = ndimage.label(region)
    is_marked = np.zeros(n_components + 1, dtype=bool)
    is_marked[components[markers > 0]] = True
    is_marked[0] = True
    highest = markers.max(initial=0)
    with_all: NDArray[np.int32] = np.where(is_marked[components], markers, highest + components).astype(np.int32)
    return with_all


def _maxima(distance: NDArray[np.float32], neck: float) -> BoolArray:
    """Return (*S) bool: the surroundings of maxima of distances (in voxels) that stand out; see :func:`separate`.

    A voxel is added to distances, so that steps of one voxel in thin objects are no necks. Maxima that stand out by
    less than that from the outside of the core are left out.
    """
    faces = ndimage.generate_binary_structure(distance.ndim, 1)
    widths = np.log1p(distance)
    flooded = reconstruction(np.maximum(widths + np.log(neck), 0), widths, method="dilation", footprint=faces)
    is_top: BoolArray = local_maxima(flooded, connectivity=1).astype(bool) & (flooded > 0)
    return is_top


def renumbered(objects: NDArray[np.uint32], min_size: int) -> LabelMap:
    """Return the objects (*S) of at least ``min_size`` voxels, with numbers from 1 in the same order."""
    sizes = np.bincount(objects.reshape(-1))
    is_kept = sizes >= max(1, min_size)
    is_kept[0] = False
    numbers = np.where(is_kept, np.cumsum(is_kept), 0)
    dtype: type[np.unsignedinteger[Any]] = np.uint16 if numbers.max() < 2**16 else np.uint32
    result: LabelMap = numbers.astype(dtype)[objects]
    return result
