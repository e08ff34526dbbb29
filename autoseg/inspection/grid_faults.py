"""Faults of label files and masks whose voxels are not those of their image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.core.errors import Fault
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import has_axes, order_towards, orientation_name


@dataclass(frozen=True, slots=True)
class FileGrid:
    """Voxels of a file."""

    path: Path
    shape: tuple[int, ...]
    """(z, y, x)."""
    geometry: Geometry


def grid_faults(file: FileGrid, image: FileGrid, *, where: str | None = None) -> list[Fault]:
    """Return the faults of a label file or mask that has another shape or geometry than its image.

    If it holds the same voxels in another order, that is its only fault. Otherwise there is one for each of shape,
    spacing, origin and direction that differs. ``where`` is the place that faults name; None names the file.
    """
    where = where or str(file.path)
    other_order = _order_fault(file, image, where)
    if other_order is not None:
        return [other_order]
    faults = []
    if file.shape != image.shape:
        fix = "Resample, crop or export it on the grid of the image."
        faults.append(Fault(where, f"shape {file.shape} (z, y, x)", _as_in(str(image.shape), image, file), fix))
    for name in file.geometry.differs_from(image.geometry):
        present, expected = (f"{name} {_rounded(getattr(grid.geometry, name))}" for grid in (file, image))
        fix = f"If both files show the same voxels, copy the header of the image ({_ORDERS[name]})."
        faults.append(Fault(where, present, _as_in(expected, image, file), fix))
    return faults


_ORDERS = {
    "spacing": "values are in the order z, y, x",
    "origin": "values are in the order x, y, z",
    "direction": "values are a 3x3 matrix, row by row",
}


def _order_fault(file: FileGrid, image: FileGrid, where: str) -> Fault | None:
    """Return a fault if a file covers the same voxels as its image, but stores them in another order."""
    if not has_axes(image.geometry):
        return None
    order = order_towards(file.geometry, image.geometry.direction)
    turned = order.turned(file.geometry, file.shape)
    is_same_grid = order.permuted(file.shape) == image.shape and not turned.differs_from(image.geometry)
    if order.is_identity or not is_same_grid:
        return None
    order_of_file, expected = (orientation_name(grid.geometry.direction) for grid in (file, image))
    fix = (
        "Store it in the order of the image; copying the header would mirror or turn it. In Python: import "
        f'SimpleITK as sitk; sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage("{file.path}"), "{expected}"), '
        f'"{file.path}").'
    )
    return Fault(where, f"the voxels in the order {order_of_file}", _as_in(expected, image, file), fix)


def _as_in(expected: str, image: FileGrid, file: FileGrid) -> str:
    """Return what is expected, with the file that has it: its name, or its path if both have the same name."""
    return f"{expected}, as {image.path if image.path.name == file.path.name else image.path.name}"


def _rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(np.round(number, 6)) + 0.0 for number in numbers)  # + 0.0 turns -0.0 into 0.0
