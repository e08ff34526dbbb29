"""The tables of a batch are those of its samples."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import numpy as np
import torch

from autoseg.cases.code_table import CodeTable
from autoseg.sampling.batch import Batch, BatchTable

SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 1, 0]], bool)


def table(n_codes=5, undrawn=3):
    return CodeTable.of_sets(SETS[:n_codes], SETS[:n_codes], undrawn)


def test_each_sample_has_its_own_rows_and_missing_ones_are_unannotated():
    large = table(5, 4).with_extra_codes(np.array([1, 0, 0, 0, 0], bool), 2)
    stacked = BatchTable.stack([table(4), large])
    assert stacked.drawn.shape == (2, 12, 3) and stacked.undrawn.tolist() == [3, 4]
    for name in ("drawn", "learnt", "base", "held_out", "zone"):
        np.testing.assert_array_equal(getattr(stacked.of_sample(1), name), getattr(large, name))
    small = stacked.of_sample(0)
    assert small.drawn[4:].all() and small.learnt[4:].all() and not small.held_out.any()
    assert (small.base[4:] == 3).all() and (small.zone == -1).all()
    assert not small.annotated[4:].any()


def test_training_does_not_see_held_out_annotation():
    stacked = BatchTable.stack([table().with_extra_codes(np.array([1, 0, 0, 0, 0], bool), 0)])
    assert stacked.drawn[0, 5].tolist() == [True, False, False]
    assert stacked.visible[0, 5].all() and torch.equal(stacked.visible[0, :5], stacked.drawn[0, :5])


def test_an_open_code_comes_last_and_says_nothing():
    stacked = BatchTable.stack([table(5, 4), table(5, 3)]).with_open_code()
    assert stacked.drawn.shape == (2, 6, 3) and stacked.drawn[:, 5].all() and stacked.learnt[:, 5].all()
    assert (
        stacked.base[:, 5].tolist() == [4, 3] and not stacked.held_out[:, 5].any() and (stacked.zone[:, 5] == -1).all()
    )


def weighted_table():
    return replace(table(5, 3), weight=np.array([1, 1, 0.5, 1, 1], dtype=np.float32))


def test_a_table_is_the_same_in_another_process():
    for stacked in (BatchTable.stack([table(5, 4), table(5, 3)]), BatchTable.stack([weighted_table()])):
        received = ForkingPickler.loads(ForkingPickler.dumps(stacked))
        for one, other in zip(stacked, received, strict=True):
            assert (one is None) == (other is None)
            assert one is None or (torch.equal(one, other) and one.dtype == other.dtype)


def test_a_table_has_weights_only_if_one_is_below_1():
    assert BatchTable.stack([table(5, 3), table(4)]).weight is None
    stacked = BatchTable.stack([weighted_table(), table(4)])
    assert stacked.weight.tolist() == [[1, 1, 0.5, 1, 1], [1] * 5]
    assert stacked.with_open_code().weight[:, 5].tolist() == [1, 1]
    assert stacked.of_sample(0).weight.tolist() == [1, 1, 0.5, 1, 1]


def test_a_batch_moves_with_its_table():
    batch = Batch(
        torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8), BatchTable.stack([weighted_table()])
    )
    moved = batch.to("meta")
    assert {moved.images.device.type, moved.codes.device.type, *(part.device.type for part in moved.table)} == {"meta"}
