"""Boxes of resampled images and maps of codes, each from the box of the source that it depends on.

The voxel of an output box has the value that the resampling of the whole gives it: positions count from the first voxel
of the volume, and the source is read as far as the rules reach. The halo of an image is 16 source voxels on both sides,
that of codes ``HALO`` output voxels. Images are equal within 1e-5 of the range, codes exactly
(:mod:`autoseg.preprocessing.resample_image`, :mod:`autoseg.preprocessing.resample_codes`). A box belongs to whoever
asks for it; no voxel depends on the order of boxes or on their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array, Shape3
from autoseg.core.boxes import Box
from autoseg.preprocessing.axes import AxisPart, Block, linear_taps, mapped_positions, nearest_indices, operator_rows
from autoseg.preprocessing.keep_small_annotation import TILE
from autoseg.preprocessing.label_set_unions import LabelSetUnions
from autoseg.preprocessing.resample_codes import resample_part

HALO = 12
"""Output voxels around a box that are resampled with it. Rules for single voxels reach 2 voxels; but a code that would
vanish takes the place of another, which may take that of a third. Chains of more than about six are cut off here."""
LEAST_EDGE = 16
"""Edge of a part of a box that is not divided any more, since it is mostly halo."""

Limits = NDArray[np.floating]
"""Smallest and largest intensity: (C, 2) of each channel, or (C, L, 2) of its L slices along an axis."""


def source_box(before: Shape3, after: Shape3, box: Box, *, order: int = 3, separate_axis: int | None = None) -> Box:
    """Return the box of the source, a volume of shape ``before``, that a box of ``after``, not empty, depends on."""
    spans = [(rows.low, rows.high) for rows in _rows(before, after, box, order, separate_axis)]
    (z0, z1), (y0, y1), (x0, x1) = spans
    return Box((z0, y0, x0), (z1, y1, x1))


def resample_box(
    read: Callable[[Box], NDArray[np.generic]],
    before: Shape3,
    after: Shape3,
    box: Box,
    *,
    limits: Limits,
    order: int = 3,
    separate_axis: int | None = None,
) -> Float32Array:
    """Return a box of an image that is resampled from one number of voxels to another in the same field of view.

    Parameters
    ----------
    read
        Function that returns a box (C, *box) of the image, finite; it is called once.
    before, after
        Shape (z, y, x) of the whole image before and after.
    box
        Box within ``after``, not empty.
    limits
        Smallest and largest intensity of each channel, to which the spline is clipped: (C, 2). With ``separate_axis``
        those of each slice of the image before, (C, L, 2). Limits that are too narrow cut no intensity of the image:
        they are widened by the intensities that are read for the box.
    order, separate_axis
        As for :func:`autoseg.preprocessing.resample_image.resample_image`.

    Returns
    -------
    (C, *box) float32, C-contiguous.
    """
    rows = _rows(before, after, box, order, separate_axis)
    needed = source_box(before, after, box, order=order, separate_axis=separate_axis)
    source = read(needed)
    if before == after:
        return np.array(source, dtype=np.float32, order="C")
    kept = {axis for axis in range(3) if before[axis] == after[axis] or axis == separate_axis}
    changed = [None if axis in kept else item for axis, item in enumerate(rows)]
    result = np.empty((len(source), *box.shape), dtype=np.float32)
    for channel, out, of_channel in zip(source, result, limits, strict=True):
        if separate_axis is None:
            out[...] = _resampled(channel, changed, of_channel)
            continue
        nearest = nearest_indices(before[separate_axis], after[separate_axis])
        wanted = nearest[box.start[separate_axis] : box.stop[separate_axis]]
        targets, first = np.moveaxis(out, separate_axis, 0), needed.start[separate_axis]
        for index in np.unique(wanted):
            slices = channel.take([index - first], axis=separate_axis)
            plane = _resampled(slices, changed, of_channel[index])
            targets[wanted == index] = np.moveaxis(plane, separate_axis, 0)[0]
    return result


def codes_window(before: Shape3, after: Shape3, box: Box) -> tuple[AxisPart, AxisPart, AxisPart]:
    """Return the parts of the three axes that are resampled for a box of codes: the box and its halo."""
    z, y, x = (_window(n, m, start, stop) for n, m, start, stop in zip(before, after, box.start, box.stop, strict=True))
    return z, y, x


def sources_of(window: tuple[AxisPart, AxisPart, AxisPart]) -> Box:
    """Return the box of source voxels of a window."""
    (z0, z1), (y0, y1), (x0, x1) = (part.sources for part in window)
    return Box((z0, y0, x0), (z1, y1, x1))


def resample_codes_box(
    read: Callable[[Box], NDArray[Any]],
    before: Shape3,
    after: Shape3,
    box: Box,
    *,
    unknown: int | None,
    separate_axis: int | None = None,
    unions: LabelSetUnions | None = None,
) -> NDArray[Any]:
    """Return a box of a map of codes that is resampled in the same field of view.

    Parameters
    ----------
    read
        Function that returns a box (*box) of the map; it is called once.
    before, after
        Shape (z, y, x) of the whole map before and after.
    box
        Box within ``after``, not empty.
    unknown
        Code of unannotated voxels; None if there is none in all of the map.
    separate_axis, unions
        As for :func:`autoseg.preprocessing.resample_codes.resample_codes`. Unions are numbered as they are found.

    Returns
    -------
    (*box), same type.
    """
    if before == after:
        return read(box)
    window = codes_window(before, after, box)
    source = np.ascontiguousarray(read(sources_of(window)))
    codes = resample_part(source, window, unknown=unknown, separate_axis=separate_axis, unions=unions)
    (z0, z1), (y0, y1), (x0, x1) = (part.outputs for part in window)
    return np.ascontiguousarray(codes[box.relative_to(Box((z0, y0, x0), (z1, y1, x1))).slices])


def divided(box: Box, sources: Callable[[Box], Box], most: int) -> Iterator[Box]:
    """Yield the parts of a box, each of which depends on at most ``most`` source voxels, if it is no small part.

    ``sources`` returns the box of source voxels of a part. An edge of at most ``LEAST_EDGE`` voxels is not divided.
    """
    needed = sources(box)
    axis = max(range(3), key=lambda axis: (box.shape[axis] > LEAST_EDGE) * needed.shape[axis])
    if needed.n_voxels <= most or box.shape[axis] <= LEAST_EDGE:
        yield box
        return
    middle = (box.start[axis] + box.stop[axis]) // 2
    stop, start = list(box.stop), list(box.start)
    stop[axis] = start[axis] = middle
    yield from divided(Box(box.start, (stop[0], stop[1], stop[2])), sources, most)
    yield from divided(Box((start[0], start[1], start[2]), box.stop), sources, most)


def measured_limits(channels: NDArray[np.generic], separate_axis: int | None = None) -> Limits:
    """Return the limits of an image, or a box of one, (C, *S): (C, 2), or (C, L, 2) with ``separate_axis``."""
    axes = tuple(axis + 1 for axis in range(3) if axis != separate_axis)
    return np.stack([channels.min(axis=axes), channels.max(axis=axes)], axis=-1).astype(np.float64)


def _window(n: int, m: int, start: int, stop: int) -> AxisPart:
    """Return the part of an axis that output voxels ``start`` to ``stop - 1`` depend on."""
    first, last = max(0, (start - HALO) // TILE * TILE), min(m, stop + HALO)
    if n == m:
        return AxisPart(n, m, (first, last), (first, last))
    lower, upper, _ = linear_taps(n, m)
    mapped = mapped_positions(n, m)
    low = min(int(lower[first]), int(np.searchsorted(mapped, first - 1)))
    high = max(int(upper[last - 1]) + 1, int(np.searchsorted(mapped, last, side="right")))
    return AxisPart(n, m, (low, high), (first, last))


def _rows(before: Shape3, after: Shape3, box: Box, order: int, separate_axis: int | None) -> list[Block]:
    """Return the weights of each axis for the voxels of a box; those of the nearest slices on ``separate_axis``."""
    return [
        operator_rows(n, m, 0 if axis == separate_axis else order, start, stop)
        for axis, (n, m, start, stop) in enumerate(zip(before, after, box.start, box.stop, strict=True))
    ]


def _resampled(volume: NDArray[np.generic], rows: Sequence[Block | None], limits: NDArray[np.floating]) -> Float32Array:
    """Return a volume (z, y, x) with the rows of each axis applied, clipped to ``limits`` (2,); None leaves an axis."""
    low, high = min(float(limits[0]), float(volume.min())), max(float(limits[1]), float(volume.max()))
    middle = np.float32(low / 2 + high / 2)
    values: Float32Array = (volume.astype(np.float64) - middle).astype(np.float32)
    axes = [axis for axis, item in enumerate(rows) if item is not None]
    for axis in sorted(axes, key=lambda axis: _growth(rows[axis])):
        if (item := rows[axis]) is not None:
            values = np.moveaxis(np.tensordot(item.weights, values, axes=(1, axis)), 0, axis)
    values = np.ascontiguousarray(values)
    values += middle
    return np.clip(values, np.float32(low), np.float32(high), out=values)


def _growth(rows: Block | None) -> float:
    """Return the number of output voxels for each source voxel: axes that shrink most are cheapest first."""
    return 1.0 if rows is None else rows.weights.shape[0] / rows.weights.shape[1]
