"""Write pictures for people (overlays, curves) as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoseg.core.atomic import atomic_path


def write_png(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write an RGB picture (y, x, 3) uint8 as PNG, atomically.

    Raises ``ValueError`` if the array has another shape or type, or no pixels.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise ValueError(f"picture of shape {rgb.shape} and type {rgb.dtype}, expected (y, x, 3) uint8 with pixels")
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(rgb)).save(temporary, format="PNG")
