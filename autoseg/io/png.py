"""Pictures for people (overlays, curves) as PNG."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoseg.core.atomic import atomic_path


def write_png(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write an RGB picture (y, x, 3) uint8 as PNG, atomically.

    Raises ``ValueError`` if the array has another shape or type, or no pixels.
    """
    png = png_bytes(rgb)
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)


def png_bytes(rgb: NDArray[np.uint8]) -> bytes:
    """Return an RGB picture (y, x, 3) uint8 as the content of a PNG file.

    Raises ``ValueError`` if the array has another shape or type, or no pixels.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise ValueError(f"picture of shape {rgb.shape} and type {rgb.dtype}, expected (y, x, 3) uint8 with pixels")
    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(stream, format="PNG")
    return stream.getvalue()
