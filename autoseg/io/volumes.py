"""Write one channel of an image as a file, for conversion from other sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.atomic import atomic_path
from autoseg.core.geometry import Geometry
from autoseg.io.file_contents import unreadable
from autoseg.io.images import ending_of
from autoseg.io.simple_itk import simple_itk

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Formats that hold any number type and the spacing in one file."""


def write_volume(path: Path, image: NDArray[Any], geometry: Geometry) -> None:
    """Write an image (z, y, x) atomically: integers in the smallest integer type, other numbers as float32.

    Raises
    ------
    FileFormatError
        If the ending is not one of ``VOLUME_ENDINGS``, or an integer needs more than 32 bits.
    """
    if ending_of(path) not in VOLUME_ENDINGS:
        raise unreadable(path, f"the ending {ending_of(path)}", f"one of {', '.join(VOLUME_ENDINGS)}", "Choose one.")
    stored = simple_itk().GetImageFromArray(_storable(path, image))
    stored.SetSpacing(geometry.spacing[::-1])
    stored.SetOrigin(geometry.origin)
    stored.SetDirection(geometry.direction)
    with atomic_path(path) as temporary:
        simple_itk().WriteImage(stored, str(temporary), useCompression=not path.name.endswith(".nii"))


def _storable(path: Path, image: NDArray[Any]) -> NDArray[Any]:
    """Return the image (z, y, x) in a type that every format of ``VOLUME_ENDINGS`` can store."""
    if image.dtype.kind == "f":
        return image.astype(np.float32)
    low, high = (int(image.min()), int(image.max())) if image.size else (0, 0)
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.uint32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return image.astype(dtype)
    raise unreadable(path, f"values from {low} to {high}", "at most 32 bits", "Rescale the image.")
