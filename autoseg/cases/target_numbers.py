"""The numbers that a regression learns: read from label files, NaN in voxels of which nothing is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.core.errors import Fault, FileFormatError
from autoseg.core.findings import counted, listed
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Labels
from autoseg.io.images import read_image


def read_numbers(path: Path, labels: Labels) -> tuple[Float32Array, Geometry]:
    """Read the targets of a regression, or a prediction of them.

    Parameters
    ----------
    labels
        Names of the targets, and the number that means "unknown" besides NaN.

    Returns
    -------
    (R, z, y, x) float32, NaN where unknown, and the geometry of the file.

    Raises
    ------
    FileFormatError
        If the file cannot be read, has another number of channels than there are targets, or infinite numbers.
    """
    numbers, geometry = read_image([path])
    if len(numbers) != len(labels.targets):
        found, expected = counted(len(numbers), "channel"), f"{len(labels.targets)}: {listed(labels.targets)}"
        raise FileFormatError(Fault(str(path), found, expected, "Correct targets in dataset.json, or the file."))
    n_infinite = int(np.count_nonzero(np.isinf(numbers)))
    if n_infinite:
        found = f"{counted(n_infinite, 'infinite number')} (or beyond the range of float32)"
        fix = "Write NaN where nothing is known, or correct the file."
        raise FileFormatError(Fault(str(path), found, "finite numbers, or NaN where nothing is known", fix))
    if labels.no_number is not None:
        numbers[numbers == labels.no_number] = np.nan
    return numbers, geometry


def is_known(numbers: Float32Array) -> BoolArray:
    """Return (*S) bool: voxels of (R, *S) in which at least one number is known."""
    known: BoolArray = ~np.isnan(numbers[0])
    for channel in numbers[1:]:
        known |= ~np.isnan(channel)
    return known
