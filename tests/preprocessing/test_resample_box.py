"""A box of a resampled image has the intensities of that box in the image that is resampled as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.boxes import Box, blocks
from autoseg.preprocessing.axes import operator, operator_rows
from autoseg.preprocessing.label_set_unions import LabelSetUnions
from autoseg.preprocessing.resample_box import (
    divided,
    measured_limits,
    resample_box,
    resample_codes_box,
    source_box,
)
from autoseg.preprocessing.resample_codes import resample_codes
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


SETS = np.eye(4, dtype=bool)[:, :3] | np.array([[False], [False], [False], [True]])  # three classes, 3: unknown
UNKNOWN = 3


def _drawn(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return codes (z, y, x): every voxel annotated, scribbles, or single voxels of several classes side by side."""
    coarse = rng.integers(0, 3, [-(-edge // 5) for edge in shape])
    for axis in range(3):
        coarse = coarse.repeat(5, axis=axis)
    codes = coarse[tuple(map(slice, shape))].astype(np.uint8)
    if kind == "dense":
        return codes
    share = 0.02 if kind == "scribbles" else 0.4
    if kind == "crumbs":
        codes = rng.integers(0, 3, shape).astype(np.uint8)
    return np.where(rng.random(shape) < share, codes, np.uint8(UNKNOWN))


@pytest.mark.parametrize("kind", ["dense", "scribbles", "crumbs"])
@pytest.mark.parametrize(
    ("before", "after", "separate_axis"),
    [
        ((1, 150, 133), (1, 97, 170), None),
        ((40, 44, 51), (27, 60, 31), None),
        ((9, 70, 80), (14, 90, 41), 0),
        ((25, 60, 62), (25, 23, 24), None),
    ],
    ids=["2d", "3d", "thick slices", "smaller in plane"],
)
def test_boxes_of_codes_are_those_of_the_whole(kind, before, after, separate_axis):
    codes = _drawn(kind, before, np.random.default_rng(0))
    unknown = None if kind == "dense" else UNKNOWN
    of_whole, of_boxes = LabelSetUnions(SETS), LabelSetUnions(SETS)
    whole = resample_codes(codes, after, unknown=unknown, separate_axis=separate_axis, unions=of_whole)
    sets, found_sets = of_whole.label_sets, None
    found = np.zeros_like(whole)
    for box in blocks(Box.whole(after), (10, 25, 30)):
        found[box.slices] = resample_codes_box(
            lambda part: codes[part.slices], before, after, box, unknown=unknown, separate_axis=separate_axis,
            unions=of_boxes,
        )  # fmt: skip
    found_sets = of_boxes.label_sets
    np.testing.assert_array_equal(found_sets[found], sets[whole])


def test_a_box_is_divided_until_its_sources_fit():
    box = Box((0, 0, 0), (8, 64, 64))
    parts = list(divided(box, lambda part: part.grown((8, 8, 8)), 24 * 32 * 48))
    assert {part.shape for part in parts} == {(8, 16, 32)}
    assert len({*parts}) == len(parts) == 8
    assert list(divided(box, lambda part: part, 1 << 20)) == [box]
