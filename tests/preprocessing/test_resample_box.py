"""A box of a resampled image has the intensities of that box in the image that is resampled as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.boxes import Box, blocks
from autoseg.preprocessing.axes import operator, operator_rows
from autoseg.preprocessing.resample_box import measured_limits, resample_box, source_box
from autoseg.preprocessing.resample_image import resample_image


@pytest.mark.parametrize(
    ("before", "after", "separate_axis"),
    [
        ((1, 150, 133), (1, 97, 170), None),
        ((60, 44, 51), (41, 60, 51), None),
        ((9, 70, 80), (14, 90, 61), 0),
        ((70, 8, 50), (50, 8, 66), 1),
        ((33, 20, 20), (33, 20, 20), None),
    ],
    ids=["2d", "3d", "thick slices", "thick rows", "same"],
)
def test_boxes_are_those_of_the_whole(before, after, separate_axis):
    rng = np.random.default_rng(0)
    image = rng.normal(1000, 3, (2, *before)).astype(np.float32)
    image[0, :, 10:12] = 1100  # an edge, at which the spline overshoots
    whole = resample_image(image, after, separate_axis=separate_axis)
    limits = measured_limits(image, separate_axis)
    span = np.ptp(image)
    for box in blocks(Box.whole(after), (16, 33, 40)):
        found = resample_box(
            lambda part: image[(slice(None), *part.slices)], before, after, box, limits=limits,
            separate_axis=separate_axis,
        )  # fmt: skip
        assert found.dtype == np.float32 and found.flags["C_CONTIGUOUS"]
        np.testing.assert_allclose(found, whole[(slice(None), *box.slices)], rtol=0, atol=1e-5 * span)


def test_limits_that_are_too_narrow_cut_nothing_that_is_there():
    image = np.zeros((1, 8, 8, 8), np.float32)
    image[0, 4, 4, 4] = 7
    box = Box((0, 0, 0), (8, 8, 16))
    found = resample_box(lambda part: image[(slice(None), *part.slices)], (8, 8, 8), (8, 8, 16), box,
                         limits=np.zeros((1, 2)))  # fmt: skip
    assert found.max() > 6 and found.min() == 0


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("n", "m"), [(300, 211), (100, 257), (5, 300), (300, 7), (1, 4)])
def test_rows_of_an_operator_are_those_of_the_whole(n, m, order):
    whole = np.zeros((m, n), np.float32)
    for block in operator(n, m, order):
        whole[block.start : block.stop, block.low : block.high] = block.weights
    for start in range(0, m, 50):
        rows = operator_rows(n, m, order, start, min(start + 50, m))
        found = np.zeros((rows.stop - rows.start, n), np.float32)
        found[:, rows.low : rows.high] = rows.weights
        np.testing.assert_allclose(found, whole[rows.start : rows.stop], rtol=0, atol=2e-9)


def test_a_small_box_of_a_long_volume_needs_little_of_it():
    needed = source_box((2000, 64000, 64000), (1000, 32000, 48000), Box((500, 16000, 24000), (532, 16064, 24064)))
    assert max(needed.shape) < 170
