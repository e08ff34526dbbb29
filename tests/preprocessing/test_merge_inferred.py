"""One code stands for what was drawn and for what is left of it; neither changes the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.preprocessing.merge_inferred import pair

DRAWN = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1]], bool)
INFERRED = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0]], bool)


def test_a_few_voxels_by_hand():
    codes = np.array([[[3, 3, 3, 1, 4, 4, 0]]], np.uint8)
    inferred = np.array([[[0, 1, 2, 1, 2, 1, 1]]], np.uint8)
    paired = pair(codes, DRAWN, inferred, INFERRED)
    assert paired.codes.tolist() == [[[3, 5, 6, 1, 7, 4, 0]]]
    assert paired.label_sets[5:].tolist() == DRAWN[[3, 3, 4]].tolist()
    assert paired.inferred_sets[5:].tolist() == [[True, False, False], [True, True, False], [False, True, False]]
    np.testing.assert_array_equal(paired.inferred_sets[:5], DRAWN)
    assert paired.n_conflicts == 2  # {1} with {0}, and {1, 2} with {0}: what was drawn holds


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@given(seed=st.integers(0, 10_000), is_flat=st.booleans())
def test_laws_of_pairing(dtype, seed, is_flat):
    rng = np.random.default_rng(seed)
    shape = (1, 5, 4) if is_flat else (3, 4, 5)
    codes = rng.integers(0, len(DRAWN), shape).astype(dtype)
    inferred = rng.integers(0, len(INFERRED), shape).astype(np.uint8)
    paired = pair(codes, DRAWN, inferred, INFERRED)
    drawn, left = paired.label_sets[paired.codes], paired.inferred_sets[paired.codes]
    np.testing.assert_array_equal(drawn, DRAWN[codes])
    both = DRAWN[codes] & INFERRED[inferred]
    np.testing.assert_array_equal(left, np.where(both.any(axis=-1, keepdims=True), both, DRAWN[codes]))
    assert paired.n_conflicts == (~both.any(axis=-1)).sum()
    assert (paired.inferred_sets <= paired.label_sets).all()
    rows = np.concatenate((paired.label_sets, paired.inferred_sets), axis=1)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_without_inference_nothing_changes():
    codes = np.array([[[3, 0, 4]]], np.uint8)
    paired = pair(codes, DRAWN, np.zeros_like(codes), INFERRED[:1])
    np.testing.assert_array_equal(paired.codes, codes)
    np.testing.assert_array_equal(paired.label_sets, DRAWN)
    np.testing.assert_array_equal(paired.inferred_sets, DRAWN)
    assert pair(np.zeros((0, 2, 2), np.uint8), DRAWN, np.zeros((0, 2, 2), np.uint8), INFERRED).codes.shape == (0, 2, 2)


def test_many_pairs_take_two_bytes():
    n_classes = 9
    drawn = np.ones((n_classes + 1, n_classes), bool)
    drawn[:n_classes] = np.eye(n_classes)
    subsets = np.array([[True, *map(bool, map(int, f"{number:08b}"))] for number in range(255, -1, -1)])
    codes = np.full((1, 1, 256), n_classes, np.uint8)
    inferred = np.arange(256, dtype=np.uint8).reshape(1, 1, 256)
    paired = pair(codes, drawn, inferred, subsets)
    assert paired.codes.dtype == np.uint16 and len(paired.label_sets) == n_classes + 1 + 255
    np.testing.assert_array_equal(paired.inferred_sets[paired.codes[0, 0]], subsets)
