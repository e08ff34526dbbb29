"""Warp of the layers of a case into a patch, by kind: all by the same warp, so that they stay aligned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.augmentation.move_labels import move_codes
from autoseg.augmentation.move_nearest import move_nearest
from autoseg.augmentation.move_numbers import move_numbers
from autoseg.augmentation.warp import Warp, move_image
from autoseg.cases.layers import Kind, LayerInfo


class View(NamedTuple):
    """Position, size and warp of a patch in the box that was read."""

    warp: Warp
    centre: tuple[float, ...]
    """Source point of the patch's centre, in voxels of the box."""
    patch: tuple[int, ...]
    """Edges of the patch in voxels."""


Move = Callable[[Tensor, View, LayerInfo], Tensor]
"""(box (C, *box) or (*box), view, layer) -> patch (C, *P) or (*P), of the same dtype."""


def move_layer(box: Tensor, view: View, info: LayerInfo) -> Tensor:
    """Return the patch (C, *P) or (*P) of a box (C, *box) or (*box) of a layer, by the rule of its kind."""
    return MOVE[info.kind](box, view, info)


def as_tensor(part: NDArray[np.generic]) -> Tensor:
    """Return a copy of an array of any shape as a tensor: floats as float32, other integers than uint8 as int32."""
    integers = np.uint8 if part.dtype == np.uint8 else np.int32
    dtype = np.float32 if part.dtype.kind == "f" else integers
    return torch.from_numpy(np.array(part, dtype=dtype, order="C", copy=True))


def _intensity(box: Tensor, view: View, info: LayerInfo) -> Tensor:
    """Return the patch (C, *P) of intensities (C, *box), interpolated linearly."""
    return move_image(box, *view, outside=info.outside)


def _label_sets(box: Tensor, view: View, info: LayerInfo) -> Tensor:
    """Return the patch (*P) of codes (*box), by a vote in which annotated codes win over unannotated ones."""
    unknown = _no_code(box) if info.undrawn is None else info.undrawn
    return move_codes(box, *view, unknown=unknown, outside=info.outside)


def _instances(box: Tensor, view: View, info: LayerInfo) -> Tensor:
    """Return the patch (*P) of ids (*box), each that of the nearest voxel."""
    return move_nearest(box, *view, outside=info.outside)


def _numbers(box: Tensor, view: View, info: LayerInfo) -> Tensor:
    """Return the patch (C, *P) of numbers (C, *box), interpolated linearly between known voxels; NaN where unknown."""
    return move_numbers(box, *view)


def _classes(box: Tensor, view: View, info: LayerInfo) -> Tensor:
    """Return the patch (*P) of class indices (*box), by a vote."""
    return move_codes(box, *view, unknown=info.channels + 1, outside=info.outside)  # no voxel has this code


def _no_code(box: Tensor) -> int:
    """Return a code that no voxel of ``box`` (*box) has; 1 for an empty box."""
    return int(box.max()) + 1 if box.numel() else 1


MOVE: Mapping[Kind, Move] = {
    Kind.INTENSITY: _intensity,
    Kind.LABEL_SETS: _label_sets,
    Kind.INSTANCES: _instances,
    Kind.NUMBERS: _numbers,
    Kind.CLASSES: _classes,
}
"""Rule of each kind: linear between voxels, a vote in which annotated codes win, the nearest voxel, linear between
known voxels, a vote."""
