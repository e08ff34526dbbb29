"""Measures of a case that is too large for memory, from evenly spread blocks; the same in every run.

The labels of at most ``READ_LABELS`` voxels are all counted. Of larger ones only the blocks are, and numbers of voxels
are those of the blocks, multiplied up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.label_counts import ChannelCondition, count_values
from autoseg.core.arrays import BoolArray, Shape3
from autoseg.core.boxes import Box, block_at, blocks, n_blocks
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import annotated_codes, foreground_codes
from autoseg.inspection.coverage import share_in_slices
from autoseg.inspection.intensities import Sketch, Sketcher
from autoseg.io.arrays import open_volume
from autoseg.io.stored_array import StoredArray, bounding_box
from autoseg.preprocessing.volume_annotation import VolumeAnnotation
from autoseg.preprocessing.volume_statistics import spread

READ_LABELS = 1 << 33
"""Voxels of the largest labels that are all read."""
LABEL_BLOCK: Shape3 = (16, 512, 512)
"""Voxels (z, y, x) that are counted at once."""
N_BLOCKS = 512
"""Blocks that are read of an image, and of larger labels, at most."""
BLOCK: Shape3 = (4, 256, 256)
"""Voxels (z, y, x) of such a block. Few slices, since of each slice whole tiles may have to be decoded."""


@dataclass(frozen=True, slots=True)
class SampledLabels:
    """Numbers of voxels of each file value."""

    counts: Mapping[int, int]
    """File value -> annotated voxels; of all voxels, or as expected from the blocks."""
    n_unannotated: int
    """Voxels outside the valid mask, or missing."""
    share_read: float
    """Share of the voxels that were read, 0 to 1."""


@dataclass(frozen=True, slots=True)
class SampledImage:
    """Intensities in the blocks of an image."""

    conditions: tuple[ChannelCondition, ...]
    foreground: tuple[Sketch | None, ...]
    """For each channel the intensities of voxels that are certainly foreground; None without."""
    n_foreground: int
    """Number of foreground voxels, as expected from the blocks."""
    in_slices: float
    """Share, 0 to 1, of annotated voxels in slices that are annotated as a whole, as far as blocks show it."""


def sample_labels(annotation: VolumeAnnotation) -> SampledLabels:
    """Count the file values of a case."""
    total = math.prod(annotation.shape)
    is_read = total <= READ_LABELS
    boxes = blocks(Box.whole(annotation.shape), LABEL_BLOCK) if is_read else sample_boxes(annotation.shape)
    counts: Counter[int] = Counter()
    n_read = n_unannotated = 0
    for box in boxes:
        drawn, valid, _ = annotation.drawn(box)
        n_read += box.n_voxels
        counts.update(count_values(drawn if valid is None else drawn[valid]))
        n_unannotated += 0 if valid is None else box.n_voxels - int(np.count_nonzero(valid))
    factor = total / max(n_read, 1)
    expected = {value: max(1, round(number * factor)) for value, number in sorted(counts.items())}
    return SampledLabels(expected, round(n_unannotated * factor), n_read / max(total, 1))


def sample_image(image: StoredArray, annotation: VolumeAnnotation | None, n_knots: int) -> SampledImage:
    """Measure the blocks of an image, and their annotation; sketches have ``n_knots`` points at most."""
    ranges = [_Range() for _ in range(image.shape[0])]
    sketchers = [Sketcher(n_knots) for _ in ranges]
    n_read = n_foreground = 0
    drawn, in_slices = 0, 0.0
    for box in sample_boxes(image.spatial_shape):
        values, known = image.read(box), image.known(box)
        n_read += box.n_voxels
        for channel, limits in zip(values, ranges, strict=True):
            limits.add(channel, known, box)
        if annotation is None:
            continue
        target = annotation.target(box)
        foreground = foreground_codes(target.label_sets)[target.codes]
        n_foreground += int(np.count_nonzero(foreground))
        for channel, sketcher in zip(values, sketchers, strict=True):
            if foreground.any():
                sketcher.add(channel[foreground])
        is_drawn = annotated_codes(target.label_sets, target.undrawn)
        here = int(np.count_nonzero(is_drawn[target.codes]))
        drawn += here
        in_slices += here * share_in_slices(target.codes, is_drawn)
    return SampledImage(
        tuple(limits.finish() for limits in ranges),
        tuple(sketcher.finish() for sketcher in sketchers),
        round(n_foreground * math.prod(image.spatial_shape) / max(n_read, 1)),
        in_slices / drawn if drawn else 0.0,
    )


def sample_body(files: CaseFiles, n_knots: int) -> tuple[Sketch | None, ...]:
    """Return the sketch of each channel in the blocks: of voxels that are not 0 in all channels, or of all voxels."""
    image = open_volume(files.images)
    inside, everywhere = ([Sketcher(n_knots) for _ in range(image.shape[0])] for _ in range(2))
    for box in sample_boxes(image.spatial_shape):
        values, known = image.read(box), image.known(box)
        body = known & (values != 0).any(axis=0)
        for channel, in_body, of_all in zip(values, inside, everywhere, strict=True):
            in_body.add(channel[body])
            of_all.add(channel[known])
    return tuple(body.finish() or of_all.finish() for body, of_all in zip(inside, everywhere, strict=True))


def sample_boxes(shape: Shape3) -> Iterator[Box]:
    """Yield the blocks, at most ``N_BLOCKS``, that stand for a volume of ``shape`` (z, y, x)."""
    for index in spread(n_blocks(shape, BLOCK), N_BLOCKS):
        yield block_at(index, shape, BLOCK)


class _Range:
    """Condition of a channel, from its intensities in boxes."""

    def __init__(self) -> None:
        self._nan = self._infinite = 0
        self._low, self._high = math.inf, -math.inf
        self._first = ""

    def add(self, channel: NDArray[Any], known: BoolArray, box: Box) -> None:
        """Take in the known intensities (*box) of a box."""
        values = channel[known]
        if values.dtype.kind == "f":
            is_finite = np.isfinite(values)
            if not self._first and not is_finite.all():
                self._first = str(bounding_box(known & ~np.isfinite(channel), box))
            n_nan = int(np.count_nonzero(np.isnan(values)))
            self._nan += n_nan
            self._infinite += values.size - int(np.count_nonzero(is_finite)) - n_nan
            values = values[is_finite]
        if values.size:
            self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))

    def finish(self) -> ChannelCondition:
        low = self._low if self._low <= self._high else math.nan
        return ChannelCondition(
            self._nan, self._infinite, is_constant=not self._low < self._high, value=low, first=self._first
        )
