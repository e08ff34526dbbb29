"""Context: voxels of a volume that are read around a case, because a patch at its border needs them."""

from __future__ import annotations

import math

from autoseg.core.arrays import Shape3
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Configuration, Plan

TRAINED_CONTEXT = 0.75
"""Context for training as a share of the patch: half of it, for a patch around a voxel of the border, and half as much
again, since augmentation turns and shrinks what is read. What lies farther is padded, as at the end of a volume."""
PREDICTED_CONTEXT = 0.25
"""Context for prediction as a share of the patch. With windows half a patch apart no voxel of the case is then farther
from the middle of a window than a voxel within a large image is."""


def context_margin(plan: Plan, configuration: Configuration, geometry: Geometry, share: float) -> Shape3:
    """Return the context on each side of a case (z, y, x), in voxels and axes of its volume.

    Parameters
    ----------
    plan, configuration
        Patch and spacing; a 2-D configuration needs none across its slices.
    geometry
        Geometry of the volume.
    share
        Context as a share of the patch.
    """
    order = plan.voxel_order(geometry)
    patch = (0,) * (3 - len(configuration.patch_size)) + tuple(configuration.patch_size)
    before: tuple[float, float, float] = order.permuted(geometry.spacing)
    after = before[: 3 - len(configuration.spacing)] + tuple(configuration.spacing)
    margin = [math.ceil(share * edge * new / old) for edge, old, new in zip(patch, before, after, strict=True)]
    return order.inverse.permuted(margin)
