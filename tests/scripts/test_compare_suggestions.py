from __future__ import annotations

import json

import numpy as np
import pytest
from compare_suggestions import Simulation, markdown, write_sparse
from toy import write_toy_dataset

from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels
from autoseg.training.run_config import RunOptions


@pytest.mark.parametrize("axis", [0, 2])
def test_only_the_named_slices_keep_their_labels(tmp_path, axis):
    source = Dataset.load(write_toy_dataset(tmp_path / "Dataset900_Dense", sparse=False))
    simulation = Simulation(source, tmp_path / "work", RunOptions("all"), "small", axis, 1, 4)
    slices = {"toy_000": {3, 7}, "toy_002": {5}, "toy_004": set()}
    write_sparse(simulation, tmp_path / "sparse", slices)
    sparse = Dataset.load(tmp_path / "sparse")
    assert sparse.case_names == tuple(slices)
    for name, kept in slices.items():
        drawn, _ = read_labels(sparse.case(name).label)
        dense, _ = read_labels(source.case(name).label)
        annotated = drawn != sparse.labels.ignore
        others = tuple(other for other in range(3) if other != axis)
        assert set(np.flatnonzero(annotated.all(axis=others)).tolist()) == kept
        assert annotated.sum() == len(kept) * drawn.size / drawn.shape[axis]
        np.testing.assert_array_equal(drawn[annotated], dense[annotated])
    folds = json.loads((tmp_path / "sparse" / "splits_final.json").read_text())
    assert [set(fold["train"]) & set(fold["val"]) for fold in folds] == [set(), set()]
    assert {name for fold in folds for name in fold["val"]} == set(slices)


def test_the_table_has_a_row_per_method_and_a_column_per_seed():
    dice = {"slices": 5, "foreground": 0.5}
    table = markdown({"start": {1: dice, 2: dice | {"foreground": 0.7}}, "clasp": {1: dice | {"foreground": None}}})
    assert table.splitlines()[0] == "| method | slices | seed 1 | seed 2 | mean |"
    assert table.splitlines()[2] == "| start | 5 | 0.500 | 0.700 | 0.600 |"
    assert table.splitlines()[3] == "| clasp | 5 | - | - | - |"
