from __future__ import annotations

import numpy as np
import pytest

from autoseg.dataset.dataset import Dataset
from autoseg.report.contact_sheet import Tile, draw_contact_sheet


def labels():
    content = {
        "channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1, "ignore": 2}, "numTraining": 1,
        "file_ending": ".nii.gz",
    }  # fmt: skip
    return Dataset.from_json(content, name="toy", folder=None).labels


def make_tile(**changes):
    shape = (20, 30)
    predicted = np.zeros(shape, dtype=np.uint8)
    predicted[5:15, 5:20] = 1
    values = {
        "title": "1. case, z = 3",
        "image": np.random.default_rng(0).normal(size=shape).astype(np.float32),
        "labels": predicted,
        "entropy": np.zeros(shape, dtype=np.float32),
        "is_open": np.ones(shape, dtype=bool),
        "spacing": (1.0, 1.0),
    }
    return Tile(**(values | changes))


@pytest.mark.parametrize(("n", "rows"), [(1, 1), (3, 1), (4, 2)])
def test_tiles_are_laid_out_in_rows_of_three(n, rows):
    height = draw_contact_sheet([make_tile()], labels()).shape[0]
    picture = draw_contact_sheet([make_tile()] * n, labels(), title="suggestions")
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert (picture.shape[0] > height) == (rows > 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"entropy": np.full((20, 30), 0.9, dtype=np.float32)},
        {"is_open": np.zeros((20, 30), dtype=bool)},
        {"labels": np.zeros((20, 30), dtype=np.uint8)},
        {"box": (2, 2, 9, 9)},
        {"spacing": (3.0, 1.0)},
    ],
    ids=["entropy", "annotated", "prediction", "box", "aspect"],
)
def test_all_that_is_given_is_to_be_seen(changes):
    plain = draw_contact_sheet([make_tile()], labels())
    changed = draw_contact_sheet([make_tile(**changes)], labels())
    assert plain.shape != changed.shape or (plain != changed).any()


def test_entropy_is_hidden_where_nothing_is_to_be_annotated():
    closed = np.zeros((20, 30), dtype=bool)
    loud = make_tile(is_open=closed, entropy=np.ones((20, 30), dtype=np.float32))
    np.testing.assert_array_equal(
        draw_contact_sheet([make_tile(is_open=closed)], labels()), draw_contact_sheet([loud], labels())
    )
