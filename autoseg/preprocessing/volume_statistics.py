"""Statistics of the intensities of a volume, by which all of its parts are normalised alike.

A volume that is trained on in boxes and predicted as a whole, or block by block, must have the same intensities each
time. So normalisation never uses the statistics of a box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box, block_at, blocks, n_blocks
from autoseg.core.channel_statistics import ChannelStatistics, Moments
from autoseg.io.stored_array import StoredArray

__all__ = ["ChannelStatistics", "Moments", "volume_statistics"]

EXACT_VOXELS = 1 << 27
"""Voxels of the largest volume of which every voxel is read."""
SAMPLED_BLOCKS = 512
"""Blocks that are read of a larger one, at most."""
BLOCK: Shape3 = (4, 256, 256)
"""Voxels (z, y, x) of a block. Few slices, since of each slice whole tiles may have to be decoded."""


def volume_statistics(volume: StoredArray) -> tuple[ChannelStatistics, ...]:
    """Return the statistics of each channel of a volume.

    Of at most ``EXACT_VOXELS`` voxels all are read, of a larger volume about ``SAMPLED_BLOCKS`` evenly spread blocks.
    The same volume always gives the same numbers. Missing tiles, NaN and infinite intensities do not count.

    Parameters
    ----------
    volume
        (C, z, y, x) of any size.

    Returns
    -------
    One item per channel.
    """
    sums = [_Sums() for _ in range(volume.shape[0])]
    for box in _read_boxes(volume.spatial_shape):
        values, known = volume.read(box), volume.known(box)
        is_nonzero = (values != 0).any(axis=0)
        for channel, of_channel in zip(values, sums, strict=True):
            inside = known & np.isfinite(channel)
            of_channel.add(channel[inside], is_nonzero[inside])
    return tuple(of_channel.finish() for of_channel in sums)


def _read_boxes(shape: Shape3) -> Iterator[Box]:
    """Yield the blocks of a volume of ``shape`` (z, y, x) that are read: all, or evenly spread ones."""
    if math.prod(shape) <= EXACT_VOXELS:
        yield from blocks(Box.whole(shape), BLOCK)
        return
    counts = n_blocks(shape, BLOCK)
    for index in spread(counts, SAMPLED_BLOCKS):
        yield block_at(index, shape, BLOCK)


def spread(counts: Shape3, most: int) -> list[Shape3]:
    """Return at most ``most`` places (z, y, x) of a grid of ``counts``, spread evenly over all of it, z first.

    Along every axis they are drawn from a sequence of low discrepancy (Roberts 2018, R3), so that they follow no
    period of the volume. All places if there are no more.
    """
    total = math.prod(counts)
    if total <= most:
        return [(z, y, x) for z in range(counts[0]) for y in range(counts[1]) for x in range(counts[2])]
    root = 1.2207440846057596  # the real root of r ** 4 = r + 1
    steps = [1 / root**power for power in (1, 2, 3)]
    places = {
        tuple(int((0.5 + step * (number + 1)) % 1 * count) for step, count in zip(steps, counts, strict=True))
        for number in range(most)
    }
    return [(z, y, x) for z, y, x in sorted(places)]


class _Sums:
    """Running sums of a channel, in float64, about its first value so that large offsets cost no accuracy."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._all = np.zeros(3)
        self._nonzero = np.zeros(3)
        self._low, self._high = math.inf, -math.inf

    def add(self, values: NDArray[Any], is_nonzero: NDArray[np.bool_]) -> None:
        """Add finite values (n,), and whether each counts as not zero (n,)."""
        if not values.size:
            return
        if self._offset is None:
            self._offset = float(values[0])
        centred = values.astype(np.float64) - self._offset
        self._all += _powers(centred)
        self._nonzero += _powers(centred[is_nonzero])
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))

    def finish(self) -> ChannelStatistics:
        """Return the statistics of all values added."""
        nothing = self._offset is None
        low, high = (0.0, 0.0) if nothing else (self._low, self._high)
        return ChannelStatistics(
            everywhere=self._moments(self._all), nonzero=self._moments(self._nonzero), low=low, high=high
        )

    def _moments(self, powers: NDArray[np.float64]) -> Moments:
        count, total, squares = powers.tolist()
        if not count or self._offset is None:
            return Moments(mean=0.0, std=0.0)
        mean = total / count
        return Moments(mean=mean + self._offset, std=math.sqrt(max(squares / count - mean**2, 0.0)))


def _powers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the number of values (n,), their sum and the sum of their squares."""
    return np.array([values.size, values.sum(), np.square(values).sum()])
