"""The box of a large case is the one that holds most of its annotation, whatever its grid and the order of its axes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.cases.case import CaseRecord
from autoseg.cases.entry import CacheEntry
from autoseg.cases.store import ArrayStore
from autoseg.core.boxes import Box
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import VoxelOrder
from autoseg.preprocessing.annotated_box import annotated_box
from autoseg.preprocessing.locations import find_locations
from autoseg.preprocessing.resample_codes import resample_codes

UNKNOWN = 3
SETS = np.vstack([np.eye(3, dtype=bool), np.ones((1, 3), dtype=bool)])
SHAPE, SPACING = (24, 40, 48), (2.0, 1.0, 1.0)


def store_of(codes, *, order=VoxelOrder(), context=(0, 0, 0), shape=None) -> ArrayStore:  # noqa: B008 (frozen)
    """Return the preprocessed case of codes (z, y, x) in the axes of its files, with unknown voxels around it."""
    own = order.apply(codes)
    padded = np.pad(own, [(edge, edge) for edge in context], constant_values=UNKNOWN)
    made = padded if shape is None else resample_codes(padded, shape, unknown=UNKNOWN)
    found = find_locations(made, SETS)
    record = CaseRecord(
        case="a", geometry=Geometry(spacing=SPACING), transpose=order.axes, flipped=order.flipped,
        shape_before_crop=own.shape, crop_low=(0, 0, 0), crop_high=own.shape, context_low=context,
        context_high=context, spacing_before=SPACING, spacing=SPACING, shape=made.shape,
    )  # fmt: skip
    entry = CacheEntry(
        record=record, label_sets=tuple(tuple(np.flatnonzero(row).tolist()) for row in SETS), undrawn=UNKNOWN,
        n_classes=3, locations=found.slices, code_counts=found.counts, fingerprint="",
    )  # fmt: skip
    return ArrayStore(np.zeros((1, *made.shape), np.float32), made, found.indices, entry)


def annotated(*parts) -> np.ndarray:
    """Return codes (z, y, x), unknown but for (box, code) parts."""
    codes = np.full(SHAPE, UNKNOWN, dtype=np.uint8)
    for box, code in parts:
        codes[box.slices] = code
    return codes


def contents(codes, box) -> list[int]:
    return [int((codes[box.slices] == code).sum()) for code in range(3)]


ORDERS = [VoxelOrder(), VoxelOrder((2, 0, 1), (True, False, True)), VoxelOrder((0, 2, 1), (False, True, False))]


@pytest.mark.parametrize("order", ORDERS, ids=["as stored", "turned", "flipped"])
@pytest.mark.parametrize(("context", "ratio"), [((0, 0, 0), 1), ((3, 5, 2), 1), ((4, 4, 4), 2)])
def test_the_box_holds_the_annotation_wherever_it_lies(order, context, ratio):
    drawn = Box((10, 4, 28), (18, 12, 44))
    codes = annotated((drawn, 0), (Box((12, 6, 30), (16, 10, 34)), 1), (Box((12, 6, 36), (16, 10, 40)), 2))
    turned = order.permuted(SHAPE)
    shape = None if ratio == 1 else tuple((edge + 8) // 2 for edge in turned)
    store = store_of(codes, order=order, context=context, shape=shape)
    box = annotated_box(store, SHAPE, SPACING, 16 * 20 * 24)
    assert box.is_within(SHAPE) and box.n_voxels <= 16 * 20 * 24
    assert contents(codes, box) == contents(codes, Box.whole(SHAPE))


def test_the_most_classes_come_first_and_then_their_shares():
    few, all_of_them = Box((0, 0, 0), (8, 12, 12)), Box((16, 28, 36), (24, 40, 48))
    codes = annotated(
        (few, 1), (all_of_them, 0), (Box((20, 32, 40), (21, 33, 41)), 1), (Box((18, 30, 38), (19, 31, 39)), 2)
    )
    box = annotated_box(store_of(codes), SHAPE, SPACING, 8 * 12 * 12 * 4)
    assert all(contents(codes, box))
    codes = annotated((few, 1), (all_of_them, 0), (few, 1), (Box((20, 32, 40), (24, 40, 48)), 1))
    codes[few.slices][:4] = 0
    box = annotated_box(store_of(codes), SHAPE, SPACING, 8 * 12 * 12 * 4)
    counts = [contents(codes, part) for part in (few, all_of_them)]
    totals = contents(codes, Box.whole(SHAPE))
    shares = [sum(n / total for n, total in zip(of_part, totals, strict=True) if total) for of_part in counts]
    assert (box.intersection(few).n_voxels > 0) == (shares[0] > shares[1])


def test_of_dense_labels_it_is_as_large_as_allowed_and_equally_long_in_mm():
    codes = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    for most in (100, 2000, 10_000, math.prod(SHAPE)):
        box = annotated_box(store_of(codes), SHAPE, SPACING, most)
        assert most / 4 < box.n_voxels <= most
        assert box.is_within(SHAPE)
        z, y, x = (n * edge for n, edge in zip(box.shape, SPACING, strict=True))
        if most <= 2000:
            assert max(z, y, x) - min(z, y, x) <= 8
        assert annotated_box(store_of(codes), SHAPE, SPACING, most) == box


def test_parts_without_annotation_are_cut_off():
    drawn = Box((2, 30, 3), (6, 36, 9))
    box = annotated_box(store_of(annotated((drawn, 0))), SHAPE, SPACING, 20 * 32 * 32)
    assert box.intersection(drawn) == drawn
    assert box.n_voxels < 20 * 32 * 32 / 2


@pytest.mark.parametrize("shape", [(1, 40, 48), (24, 1, 1), (1, 1, 1)])
def test_flat_and_unannotated_cases_have_a_box(shape):
    codes = np.full(shape, UNKNOWN, dtype=np.uint8)
    assert annotated_box(store_of(codes), shape, SPACING, 30).n_voxels in range(1, 31)
    codes[-1:, -1:, -1:] = 1
    box = annotated_box(store_of(codes), shape, SPACING, 30)
    assert box.is_within(shape) and contents(codes, box)[1] == 1
