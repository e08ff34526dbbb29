"""Our side of the resampling rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.preprocessing import resample_codes, resample_image


def image(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Resample ``image.npy``."""
    values, shape = np.load(folder / "image.npy"), tuple(settings["after"])
    return lambda: resample_image(values, shape, separate_axis=settings.get("axis"))


def codes(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Resample ``codes.npy``, all of them drawn."""
    values, shape = np.load(folder / "codes.npy"), tuple(settings["after"])
    return _repeated(lambda: resample_codes(values, shape, unknown=None), settings)


def _repeated(run: Callable[[], Any], settings: dict[str, Any]) -> Callable[[], Any]:
    """Return a function that runs ``repeats`` times what is too short to be timed once, and returns the last result."""
    return lambda: [run() for _ in range(settings.get("repeats", 1))][-1]
