"""Distances between the surfaces of a prediction and its reference, in mm, over voxels that the reference decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from autoseg.core.arrays import BoolArray

_ROUNDING = 1e-6
"""mm. Two voxels of 0.4 mm are 0.8 mm apart, also where their coordinates are rounded."""
_PLANES = 2**22
"""Voxels of the slabs in which surfaces are searched: bounds the memory beside the masks."""


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """Distances from each surface to the other, and the scores that follow from them."""

    to_reference: NDArray[np.float64]
    """(A,) mm, from each surface voxel of the prediction to the nearest one of the reference; infinite without any."""
    to_prediction: NDArray[np.float64]
    """(B,) mm, from each surface voxel of the reference to the nearest one of the prediction; infinite without any."""

    @property
    def is_scored(self) -> bool:
        """Whether both masks have a surface."""
        return bool(self.to_reference.size and self.to_prediction.size)

    @property
    def hd95(self) -> float | None:
        """Hausdorff distance, 95th percentile, mm: the larger one of both directions. None without two surfaces."""
        if not self.is_scored:
            return None
        return float(max(np.percentile(self.to_reference, 95), np.percentile(self.to_prediction, 95)))

    @property
    def assd(self) -> float | None:
        """Average symmetric surface distance, mm: mean over the voxels of both surfaces. None without two surfaces."""
        if not self.is_scored:
            return None
        total = self.to_reference.sum() + self.to_prediction.sum()
        return float(total / (self.to_reference.size + self.to_prediction.size))

    def nsd(self, tolerance_mm: float) -> float | None:
        """Return the normalised surface Dice, 0 to 1: share of both surfaces within ``tolerance_mm`` of the other.

        0 if only one mask has a surface, None if neither has.
        """
        size = self.to_reference.size + self.to_prediction.size
        if not size:
            return None
        limit = tolerance_mm + _ROUNDING
        close = (self.to_reference <= limit).sum() + (self.to_prediction <= limit).sum()
        return float(close / size)


def surface_distances(
    prediction: BoolArray, reference: BoolArray, decided: BoolArray | None, spacing: Sequence[float]
) -> SurfaceDistances:
    """Return the distances between the surfaces of two masks.

    A surface voxel is a voxel of the mask with a face in common with a voxel that certainly is not in it, or with the
    border of the image. Distances are between centres of surface voxels. Undecided voxels have no surface and make none
    at their neighbours, so nothing depends on what is predicted there. The surface of a sparse reference is known only
    in part, and distances are to what is known of it.

    Parameters
    ----------
    prediction, reference
        (z, y, x) masks. An axis of one voxel (2-D images) has no surface.
    decided
        (z, y, x) mask of voxels that the reference decides; None: all.
    spacing
        mm, (z, y, x).

    Notes
    -----
    Source: Maier-Hein et al., Metrics reloaded, Nature Methods 21:195 (2024), HD95 as the larger percentile of the two
    directions. Surfaces are searched slab by slab and compared as points, so memory beside the masks grows with the
    surfaces, not with the image; the result does not depend on the slabs.
    """
    of_prediction = surface_points(prediction, decided) * np.asarray(spacing)
    of_reference = surface_points(reference, decided) * np.asarray(spacing)
    return SurfaceDistances(_nearest(of_prediction, of_reference), _nearest(of_reference, of_prediction))


def surface_points(mask: BoolArray, decided: BoolArray | None = None) -> NDArray[np.int64]:
    """Return (n, 3) the indices (z, y, x) of the surface voxels of a mask (z, y, x); see :func:`surface_distances`."""
    depth = max(1, _PLANES // max(1, mask[:1].size))
    points = []
    for start in range(0, len(mask), depth):
        low, high = max(0, start - 1), min(len(mask), start + depth + 1)  # a plane of context on each side
        inside = mask[low:high] if decided is None else mask[low:high] & decided[low:high]
        if not inside.any():
            continue
        beyond = mask[low:high] if decided is None else mask[low:high] | ~decided[low:high]
        is_surface = inside & ~_eroded(beyond, at_start=low == 0, at_end=high == len(mask))
        z, y, x = np.nonzero(is_surface[start - low : start - low + depth])
        points.append(np.stack([z + start, y, x], axis=1))
    return np.concatenate(points) if points else np.zeros((0, 3), dtype=np.int64)


def _eroded(mask: BoolArray, *, at_start: bool, at_end: bool) -> BoolArray:
    """Return the voxels of a slab (z, y, x) whose neighbours across all faces are in the mask; outside is not.

    ``at_start`` and ``at_end``: whether the image ends with the slab. Otherwise the outer planes are context, of which
    the result is not used.
    """
    cross = ndimage.generate_binary_structure(3, 1)
    for axis, length in enumerate(mask.shape):
        if length == 1 and (axis or (at_start and at_end)):
            cross[tuple(slice(None) if other == axis else 1 for other in range(3))] = False
            cross[1, 1, 1] = True
    eroded: BoolArray = ndimage.binary_erosion(mask, structure=cross, border_value=0)
    return eroded


def _nearest(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) the distance from each of ``points`` (n, 3) to the nearest of ``others`` (m, 3); inf if m is 0."""
    if not len(others) or not len(points):
        return np.full(len(points), np.inf)
    distances: NDArray[np.float64] = KDTree(others).query(points)[0]
    return distances
