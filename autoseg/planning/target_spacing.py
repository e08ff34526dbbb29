"""Resolution at which a data set is segmented: target spacing, axis order, and the shapes that follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Shape3

Triples = NDArray[np.float64]


def target_spacing(spacings: Triples, shapes: Triples, *, anisotropy: float = 3.0) -> NDArray[np.float64]:
    """Return the spacing to which cases are resampled: the median over cases, but finer along a coarse axis.

    An axis is coarse if its median spacing is more than ``anisotropy`` times that of both other axes, and it has that
    many times fewer voxels. It gets the 10th percentile of its spacings, but never less than the larger spacing of the
    others.

    Parameters
    ----------
    spacings, shapes
        (cases, 3): mm and voxels after cropping, axes as in the file.

    Returns
    -------
    ndarray
        (3,) mm, axes as in the file.

    Notes
    -----
    Source: nnU-Net 2.8.1 ``default_experiment_planner.py``, ``determine_fullres_target_spacing``.
    """
    target = np.percentile(spacings, 50, axis=0)
    size = np.percentile(shapes, 50, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    is_coarse = target[coarse] > anisotropy * max(target[others])
    is_short = size[coarse] * anisotropy < min(size[others])
    if is_coarse and is_short:
        fine = np.percentile(spacings[:, coarse], 10)
        target[coarse] = max(target[others]) + 1e-5 if fine < max(target[others]) else fine
    return target


def transpose_axes(target: Sequence[float] | NDArray[np.float64]) -> tuple[Shape3, Shape3]:
    """Return the axis order that puts the coarsest axis of ``target`` ((3,) mm) first, and the inverse order.

    ``forward[i]`` is the axis of the file that becomes axis i. Source: nnU-Net 2.8.1, ``determine_transpose``.
    """
    coarse = int(np.argmax(target))
    forward = [coarse, *(axis for axis in range(3) if axis != coarse)]
    backward = np.argsort(forward)
    return _shape3(forward), _shape3(backward)


def median_resampled_shape(spacings: Triples, shapes: Triples, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median over cases of their shapes at the target spacing: (3,) voxels, at least 1; may end in .5.

    Halves are rounded to even. We differ from nnU-Net in the lower bound: without it a data set of slices thinner than
    half the target spacing would have no voxels.

    Parameters
    ----------
    spacings, shapes
        (cases, 3): mm and voxels after cropping, axes as in the file.
    target
        (3,) mm, axes as in the file.
    """
    resampled = np.round(spacings / target * shapes)
    return np.maximum(np.median(resampled, axis=0), 1.0)


def _shape3(values: Sequence[int] | NDArray[np.integer]) -> Shape3:
    """Return a sequence or an array (3,) as a tuple of three ints."""
    first, second, third = (int(value) for value in values)
    return (first, second, third)
