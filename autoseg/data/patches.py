"""One training sample: from a drawn place and transform to the patch of image and codes, reading only what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.augmentation.nominal import move_codes
from autoseg.augmentation.recipes import Recipe
from autoseg.augmentation.spatial import (
    SpatialDraw,
    draw_spatial,
    identity_draw,
    keep_inside,
    move_image,
    source_box,
)
from autoseg.data.sampling import Aim, box_anywhere, box_around, draw_voxel
from autoseg.io.cache import CachedCase


@dataclass(frozen=True, slots=True)
class Place:
    """Where a patch lies in its case and how it is transformed."""

    centre: tuple[float, ...]
    """Source point of the patch's centre, voxels, per patch axis."""
    draw: SpatialDraw
    slice_index: int | None = None
    """2-D patches: the slice (axis 0 of the case)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One patch, as read and moved."""

    image: Tensor
    """(C, *P) float32."""
    codes: Tensor
    """(*P) uint8, or int32 when the case has more than 256 codes."""


def draw_place(
    aim: Aim, case: CachedCase, patch: Sequence[int], recipe: Recipe | None, rng: np.random.Generator
) -> Place:
    """Draw voxel, box and transform for a patch of 2 or 3 axes; ``recipe=None`` transforms nothing.

    A 2-D patch lies in the slice of the voxel, or in any slice when the patch may lie anywhere.
    """
    n_axes = len(patch)
    shape = case.codes.shape[-n_axes:]
    voxel = None if aim.code is None else draw_voxel(case, aim.code, rng)
    if voxel is None:
        low = box_anywhere(shape, patch, rng)
        slice_index = int(rng.integers(case.codes.shape[0]))
    else:
        low = box_around(voxel[-n_axes:], shape, patch, rng)
        slice_index = voxel[0]
    draw = identity_draw(n_axes) if recipe is None else draw_spatial(recipe, n_axes, rng)
    centre = tuple(start + (edge - 1) / 2 for start, edge in zip(low, patch, strict=True))
    if voxel is not None and not draw.is_identity:
        centre = keep_inside(draw, centre, patch, voxel[-n_axes:])
    return Place(centre, draw, slice_index if n_axes == 2 else None)


def read_patch(case: CachedCase, place: Place, patch: Sequence[int], *, unknown: int, outside: int) -> Sample:
    """Read the box that the transform needs from the memory maps, and move it: one pass each for image and codes.

    Outside the image lie 0 and the code ``outside``.
    """
    low, high = source_box(place.draw, place.centre, patch)
    shape = case.codes.shape[-len(patch) :]
    first = [min(max(start, 0), edge) for start, edge in zip(low, shape, strict=True)]
    box = tuple(slice(start, max(min(stop, edge), start)) for start, stop, edge in zip(first, high, shape, strict=True))
    layer = () if place.slice_index is None else (place.slice_index,)
    image = _tensor(case.image[(slice(None), *layer, *box)], np.float32)
    codes = _tensor(case.codes[(*layer, *box)], np.uint8 if case.codes.dtype == np.uint8 else np.int32)
    centre = [middle - start for middle, start in zip(place.centre, first, strict=True)]
    return Sample(
        move_image(image, place.draw, centre, patch),
        move_codes(codes, place.draw, centre, patch, unknown=unknown, outside=outside),
    )


def _tensor(part: NDArray[Any], dtype: type[np.generic]) -> Tensor:
    """Copy a part of a read-only memory map into a tensor."""
    return torch.from_numpy(np.array(part, dtype=dtype, order="C", copy=True))
