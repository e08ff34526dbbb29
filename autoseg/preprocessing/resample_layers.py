"""Resampling of the layers of a case, by kind.

The target of a case is resampled by :func:`autoseg.preprocessing.resample_codes.resample_codes` itself, since ties
between its codes make new label sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.layers import Kind, Layer, LayerInfo
from autoseg.core.arrays import Shape3
from autoseg.preprocessing.axes import nearest_indices
from autoseg.preprocessing.resample_codes import resample_codes
from autoseg.preprocessing.resample_image import resample_image
from autoseg.preprocessing.resample_numbers import resample_numbers

Resample = Callable[[NDArray[Any], Shape3, int | None, LayerInfo], NDArray[Any]]
"""(array, new *S, axis that is resampled on its own or None, layer) -> array."""


def resample_layer(layer: Layer, shape: Shape3, separate_axis: int | None) -> Layer:
    """Return a layer with another number of voxels in the same field of view, by the rule of its kind.

    Parameters
    ----------
    layer
        (C, *S) or (*S).
    shape
        New *S, every length at least 1.
    separate_axis
        Axis along which the nearest slice is taken, or None; see ``preprocessing.pipeline.anisotropic_axis``.

    Returns
    -------
    The layer with a C-contiguous array of ``layer.info.dtype``; the same voxels if the shape is the same.
    """
    array = layer.array
    if array.shape[-3:] != shape:
        array = RESAMPLE[layer.info.kind](array, shape, separate_axis, layer.info)
    return replace(layer, array=np.ascontiguousarray(array, dtype=layer.info.dtype))


def resample_nearest(ids: NDArray[Any], shape: Shape3) -> NDArray[Any]:
    """Return a map (*S) with the value of the nearest voxel at each of ``shape``, the later one on ties."""
    for axis, (before, after) in enumerate(zip(ids.shape, shape, strict=True)):
        if before != after:
            ids = ids.take(nearest_indices(before, after), axis=axis)
    return ids


def _intensity(array: NDArray[Any], shape: Shape3, separate_axis: int | None, info: LayerInfo) -> NDArray[Any]:
    """Return intensities (C, *S) resampled to (C, *shape) by splines."""
    return resample_image(array, shape, separate_axis=separate_axis)


def _codes(array: NDArray[Any], shape: Shape3, separate_axis: int | None, info: LayerInfo) -> NDArray[Any]:
    """Return codes (*S) resampled to ``shape`` by linear weights."""
    return resample_codes(array, shape, unknown=info.undrawn, separate_axis=separate_axis)


def _nearest(array: NDArray[Any], shape: Shape3, separate_axis: int | None, info: LayerInfo) -> NDArray[Any]:
    """Return ids (*S) resampled to ``shape``: each that of the nearest voxel."""
    return resample_nearest(array, shape)


def _numbers(array: NDArray[Any], shape: Shape3, separate_axis: int | None, info: LayerInfo) -> NDArray[Any]:
    """Return numbers (C, *S) resampled to (C, *shape) from known voxels alone."""
    return resample_numbers(array, shape, separate_axis=separate_axis)


RESAMPLE: Mapping[Kind, Resample] = {
    Kind.INTENSITY: _intensity,
    Kind.LABEL_SETS: _codes,
    Kind.INSTANCES: _nearest,
    Kind.NUMBERS: _numbers,
    Kind.CLASSES: _codes,
}
"""Rule of each kind. Classes are a dense map of codes: the largest sum of linear weights wins, as in nnU-Net."""
