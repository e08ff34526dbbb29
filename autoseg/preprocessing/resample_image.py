"""Spline resampling of images as one matrix product per axis: exact, and much faster than voxel by voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array
from autoseg.preprocessing.axes import Block, nearest_indices, operator

_COLUMNS = 4096  # columns of a (z, y * x) view processed together: with their result they fit the processor's cache
_EXACT_IN_FLOAT32 = (np.dtype(np.float32), np.dtype(np.float16))

Range = tuple[float, float]


def resample_image(
    image: NDArray[np.generic], shape: Sequence[int], *, order: int = 3, separate_axis: int | None = None
) -> Float32Array:
    """Resample every channel of an image to another number of voxels in the same field of view.

    The interpolating spline is linear and separable: along each axis it is one small matrix (with the prefilter). So
    the work is matrix products in float32. The middle of the range is subtracted first, so that large offsets cost no
    accuracy.

    Parameters
    ----------
    image
        (C, *S) of any real type, one to three spatial axes. Finite (NaN spreads). Not changed.
    shape
        New *S, every length at least 1.
    order
        Spline order 0, 1 or 3.
    separate_axis
        Index into *S of an axis along which the nearest slice is taken; only the slices that are needed are resampled
        with ``order``. None treats all axes in the same way.

    Returns
    -------
    (C, *shape) float32, C-contiguous, clipped to the range of the channel (with ``separate_axis``: of the slice). An
    image without voxels gives zeros; the same shape gives a copy.

    Raises
    ------
    ValueError
        If the number of axes differs, a length is below 1 or ``order`` is not supported.

    Notes
    -----
    Source: ``skimage.transform.resize(order, mode="edge", anti_aliasing=False)`` and nnU-Net's
    ``default_resampling.py:resample_data_or_seg``; equal to both within 1e-5 of the range.
    """
    shape = check_shape(image.shape[1:], shape, separate_axis)
    result = np.zeros((image.shape[0], *shape), dtype=np.float32)
    if image.size == 0:
        return result
    if image.shape[1:] == shape:
        return np.array(image, dtype=np.float32, order="C")
    padding = 3 - len(shape)
    full = (1,) * padding + shape
    operators = (operator(1, 1, order),) * padding + tuple(
        operator(n, m, order) for n, m in zip(image.shape[1:], shape, strict=True)
    )
    for source, target in zip(image, result, strict=True):
        volume, output = source.reshape((1,) * padding + source.shape), target.reshape(full)
        if separate_axis is None:
            _resample_volume(volume, output, operators)
        else:
            _resample_slices(volume, output, operators, separate_axis + padding)
    return result


def check_shape(before: Sequence[int], after: Sequence[int], separate_axis: int | None) -> tuple[int, ...]:
    """Return the new spatial shape as a tuple of ints; raise ``ValueError`` if it does not fit the old one."""
    shape = tuple(int(length) for length in after)
    if len(shape) != len(before) or not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise ValueError(
            f"resampling: new shape {shape} does not fit an array with spatial shape {tuple(before)}, expected one "
            "length of at least 1 for each of one to three axes. Give the spatial axes only."
        )
    if separate_axis is not None and not 0 <= separate_axis < len(shape):
        raise ValueError(
            f"resampling: separate_axis is {separate_axis}, expected None or 0 to {len(shape) - 1}. "
            "It counts spatial axes only."
        )
    return shape


def _resample_volume(volume: NDArray[np.generic], output: Float32Array, operators: Sequence[tuple[Block, ...]]) -> None:
    """Fill ``output`` (z', y', x') from ``volume`` (z, y, x); axis 0 comes first if it shrinks more than the slices."""
    limits = _range(volume)
    slices_ratio = np.prod(output.shape[1:]) / np.prod(volume.shape[1:])
    if output.shape[0] / volume.shape[0] < slices_ratio:
        between = np.empty((output.shape[0], *volume.shape[1:]), dtype=np.float32)
        _along_first_axis(volume, between, operators[0], limits=limits, centre=True, finish=False)
        for source, target in zip(between, output, strict=True):
            target[...] = _finish(_resample_plane(source, operators[1:]), limits)
        return
    if output.shape[0] == volume.shape[0]:
        for source, target in zip(volume, output, strict=True):
            target[...] = _finish(_resample_plane(_centred(source, limits), operators[1:]), limits)
        return
    if output.shape[1:] == volume.shape[1:]:
        _along_first_axis(volume, output, operators[0], limits=limits, centre=True, finish=True)
        return
    between = np.empty((volume.shape[0], *output.shape[1:]), dtype=np.float32)
    for source, target in zip(volume, between, strict=True):
        target[...] = _resample_plane(_centred(source, limits), operators[1:])
    _along_first_axis(between, output, operators[0], limits=limits, centre=False, finish=True)


def _resample_slices(
    volume: NDArray[np.generic], output: Float32Array, operators: Sequence[tuple[Block, ...]], axis: int
) -> None:
    """Fill ``output`` (z', y', x') from ``volume`` (z, y, x): nearest along ``axis``, splines inside the needed slices.

    Each slice is clipped to its own range.
    """
    planes, targets = np.moveaxis(volume, axis, 0), np.moveaxis(output, axis, 0)
    in_plane = [blocks for index, blocks in enumerate(operators) if index != axis]
    wanted = nearest_indices(planes.shape[0], targets.shape[0])
    for index in np.unique(wanted):
        plane = planes[index]
        limits = _range(plane)
        targets[wanted == index] = _finish(_resample_plane(_centred(plane, limits), in_plane), limits)


def _resample_plane(plane: Float32Array, operators: Sequence[tuple[Block, ...]]) -> Float32Array:
    """Resample a (y, x) plane along both axes, first the one that shrinks more."""
    rows, columns = operators
    if rows[-1].stop / plane.shape[0] <= columns[-1].stop / plane.shape[1]:
        return _columns(_rows(plane, rows), columns)
    return _rows(_columns(plane, columns), rows)


def _rows(plane: Float32Array, blocks: tuple[Block, ...]) -> Float32Array:
    """Apply ``blocks`` along the first axis of a (y, x) plane."""
    if blocks[-1].stop == plane.shape[0]:
        return plane
    result = np.empty((blocks[-1].stop, plane.shape[1]), dtype=np.float32)
    for block in blocks:
        np.matmul(block.weights, plane[block.low : block.high], out=result[block.start : block.stop])
    return result


def _columns(plane: Float32Array, blocks: tuple[Block, ...]) -> Float32Array:
    """Apply ``blocks`` along the last axis of a (y, x) plane."""
    if blocks[-1].stop == plane.shape[1]:
        return plane
    result = np.empty((plane.shape[0], blocks[-1].stop), dtype=np.float32)
    for block in blocks:
        np.matmul(plane[:, block.low : block.high], block.weights.T, out=result[:, block.start : block.stop])
    return result


def _along_first_axis(
    volume: NDArray[np.generic],
    output: Float32Array,
    blocks: tuple[Block, ...],
    *,
    limits: Range,
    centre: bool,
    finish: bool,
) -> None:
    """Fill ``output`` (z', y, x): apply ``blocks`` along axis 0 of ``volume`` (z, y, x), some rows of y at a time.

    ``volume`` is C-contiguous or a slice of a C-contiguous array.
    """
    step = max(1, _COLUMNS // volume.shape[2])
    for start in range(0, volume.shape[1], step):
        rows = slice(start, start + step)
        piece = _centred(volume[:, rows], limits) if centre else np.ascontiguousarray(volume[:, rows], np.float32)
        flat = piece.reshape(piece.shape[0], -1)
        for block in blocks:
            values = block.weights @ flat[block.low : block.high]
            target = output[block.start : block.stop, rows]
            target[...] = (_finish(values, limits) if finish else values).reshape(target.shape)


def _range(values: NDArray[np.generic]) -> Range:
    """Return the smallest and the largest of ``values`` (any shape, at least one)."""
    return float(values.min()), float(values.max())


def _centred(values: NDArray[np.generic], limits: Range) -> Float32Array:
    """Return ``values`` (any shape) minus the middle of their range: float32, C-contiguous, rounded once."""
    middle = _middle(limits)
    if values.dtype in _EXACT_IN_FLOAT32:
        centred = np.array(values, dtype=np.float32, order="C")
        centred -= middle
        return centred
    exact = np.array(values, dtype=np.float64, order="C")
    exact -= middle
    return exact.astype(np.float32)


def _finish(values: Float32Array, limits: Range) -> Float32Array:
    """Add the middle of the range to ``values`` (any shape) and clip them to the range, in place."""
    values += _middle(limits)
    return np.clip(values, np.float32(limits[0]), np.float32(limits[1]), out=values)


def _middle(limits: Range) -> np.float32:
    return np.float32(limits[0] / 2 + limits[1] / 2)
