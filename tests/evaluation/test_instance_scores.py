"""Scores of objects in files: per class, over decided voxels, for no object and for 70,000."""

from __future__ import annotations

import csv
import json
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from autoseg import Dataset
from autoseg.cli.evaluation_table import print_tables
from autoseg.core.geometry import Geometry
from autoseg.evaluation import evaluate_files, evaluate_folder
from autoseg.evaluation.summary import Summary
from autoseg.io.images import write_labels

FLAT = Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)
ONE = {
    "channel_names": {"0": "a"}, "task": "instances", "labels": {"background": 0, "cell": 1}, "unlabelled": 65535,
    "numTraining": 1, "file_ending": ".tif",
}  # fmt: skip
TWO = {**ONE, "labels": {"background": 0, "cell": 1, "nucleus": 2}, "instances_per_class": 1000}


def scored(folder: Path, content: dict[str, object], *cases: tuple[np.ndarray, np.ndarray]):
    for index, maps in enumerate(cases):
        for part, values in zip(("reference", "prediction"), maps, strict=True):
            (folder / part).mkdir(exist_ok=True)
            write_labels(folder / part / f"c{index}.tif", values[None].astype(np.uint32), FLAT)
    return evaluate_folder(folder / "reference", folder / "prediction", content)


def squares(*numbers: int) -> np.ndarray:
    values = np.zeros((8, 6 * max(1, len(numbers))), dtype=np.uint32)
    for index, number in enumerate(numbers):
        values[2:6, 6 * index + 1 : 6 * index + 5] = number
    return values


def test_scores_are_those_of_each_class_and_add_up_over_cases(tmp_path):
    reference, prediction = squares(1005, 1002, 2001, 2002), squares(1001, 0, 2009, 1777)
    summary = scored(tmp_path, TWO, (reference, prediction), (squares(1001), squares(1003)))
    cell, nucleus = summary.instances["dense"]["1"], summary.instances["dense"]["2"]
    assert (cell.pooled.n_ref, cell.pooled.n_pred, cell.pooled.AP50) == (3, 3, pytest.approx(2 / 4))
    assert (nucleus.pooled.n_ref, nucleus.pooled.n_pred, nucleus.pooled.PQ) == (2, 1, pytest.approx(1 / 1.5))
    assert cell.mean["AP50"] == pytest.approx((1 / 3 + 1) / 2) and (cell.n_cases, nucleus.n_cases) == (2, 1)
    assert summary.metric_per_case[0].metrics["1"].Dice == pytest.approx(1 / 2)  # nnU-Net's keys are as for classes
    written = json.loads(json.dumps(summary.as_json(), allow_nan=False))
    assert written["metric_per_case"][1]["instances"]["1"]["AP"] == 1 and "foreground_mean" in written
    summary.to_csv(tmp_path / "scores.csv")
    columns = (tmp_path / "scores_means.csv").read_text().splitlines()[0].split(",")
    assert {"AP50", "VI_split", "VI_merge", "rand_error", "rand_precision", "rand_recall"} <= {*columns}


def test_divisions_are_scored_by_class_over_cases_and_over_all_voxels(tmp_path):
    merged = (squares(1001, 1002, 2001), squares(1001, 1001, 2001))
    summary = scored(tmp_path, TWO, merged, (squares(1003, 2001), squares(1007, 0)), (squares(0), squares(0)))
    cell, nucleus = summary.instances["dense"]["1"], summary.instances["dense"]["2"]
    assert cell.pooled.VI_merge == pytest.approx(32 * 1 / (8 * (18 + 12 + 6))) and cell.pooled.VI_split == 0
    assert cell.mean["VI_merge"] == pytest.approx(32 * 1 / (8 * 18) / 2) and cell.mean["rand_recall"] == 1
    alone, together = 16 * 15 / 2, 32 * 31 / 2
    assert cell.pooled.rand_precision == pytest.approx(3 * alone / (together + alone))
    assert (nucleus.pooled.rand_recall, nucleus.pooled.rand_precision) == (0.5, 1)
    assert nucleus.mean["rand_error"] == 0.5 and nucleus.mean["rand_precision"] == 1  # null where none is predicted
    assert Summary.model_validate_json(json.dumps(summary.as_json(), allow_nan=False)) == summary


def test_nothing_depends_on_what_is_predicted_where_nothing_is_annotated(tmp_path):
    reference = squares(3, 4, 5)
    reference[:, 9:] = 65535  # half of the second object, and the third
    prediction = squares(7, 8, 9)
    other = prediction.copy()
    other[:, 9:] = np.arange(other[:, 9:].size).reshape(8, -1)
    for name, values in (("a", prediction), ("b", other)):
        (tmp_path / name).mkdir()
        scores = scored(tmp_path / name, ONE, (reference, values)).instances["annotated voxels"]["1"].pooled
        assert (scores.rand_error, scores.VI_split, scores.VI_merge) == (0, 0, 0)
        assert (scores.AP50, scores.n_ref, scores.n_pred) == (1, 2, 2)


def test_a_valid_mask_says_the_same_as_unannotated_voxels(tmp_path):
    reference, prediction = squares(3, 4, 5), squares(7, 8, 9)
    marked = reference.copy()
    marked[:, 9:] = 65535
    for name, values in (("reference.tif", reference), ("marked.tif", marked), ("prediction.tif", prediction)):
        write_labels(tmp_path / name, values[None], FLAT)
    write_labels(tmp_path / "mask.tif", (marked != 65535).astype(np.uint8)[None], FLAT)
    labels, guess = Dataset.from_json(ONE, name="d", folder=None).labels, tmp_path / "prediction.tif"
    masked = evaluate_files({"c": (tmp_path / "reference.tif", guess)}, labels, masks={"c": tmp_path / "mask.tif"})
    assert masked.instances == evaluate_files({"c": (tmp_path / "marked.tif", guess)}, labels).instances
    assert masked.instances["annotated voxels"]["1"].pooled.n_pred == 2


def test_objects_of_dense_and_sparse_references_are_never_mixed(tmp_path):
    sparse, only_background = squares(3, 4), squares(0, 0)
    sparse[:, 7:] = only_background[:, 7:] = 65535
    dense, both = squares(3, 4), squares(7, 8)
    summary = scored(tmp_path, ONE, (dense, squares(7, 0)), (sparse, both), (only_background, both))
    assert [*summary.instances] == ["dense", "annotated voxels"]
    on_dense, on_sparse = (of["1"].pooled for of in summary.instances.values())
    assert (on_dense.n_ref, on_dense.n_pred, on_dense.AP50) == (2, 1, 0.5)
    assert (on_sparse.n_ref, on_sparse.n_pred, on_sparse.AP50) == (1, 2, 0.5)  # a false one where background was drawn
    summary.to_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores_means.csv").open() as file:
        rows = {row["scored_on"]: row for row in csv.DictReader(file) if row["key"] == "1"}
    assert {kind: row["n_ref objects"] for kind, row in rows.items()} == {"dense": "2", "annotated voxels": "1"}
    assert (
        {kind: float(row["rand_error"]) for kind, row in rows.items()}
        == {kind: of["1"].pooled.rand_error for kind, of in summary.instances.items()}
        == {"dense": pytest.approx(1 / 3), "annotated voxels": 0}
    )  # a false object is none of pairs of the reference
    shown = Console(record=True, width=200, file=StringIO())
    print_tables(summary, shown)
    assert shown.export_text().count("division of voxels into objects, scored on") == 2


def test_no_object_anywhere_has_no_score(tmp_path):
    summary = scored(tmp_path, ONE, (squares(0), squares(0)))
    scores = summary.instances["dense"]["1"]
    assert scores.pooled.VI_split is scores.mean["rand_error"] is None
    assert scores.pooled.AP50 is None and scores.n_cases == 0
    assert json.dumps(summary.as_json(), allow_nan=False)


def test_seventy_thousand_objects_are_scored_within_a_minute(tmp_path):
    n = 265
    tile = np.zeros((5, 5), dtype=np.uint32)
    tile[1:4, 1:4] = 1
    reference = np.kron(np.arange(1, n * n + 1, dtype=np.uint32).reshape(n, n), tile)
    prediction = np.where(reference > 0, n * n + 1 - reference, 0)
    prediction[reference == 1] = 0
    started = time.process_time()
    scores = scored(tmp_path, {**ONE, "unlabelled": None}, (reference, prediction)).instances["dense"]["1"].pooled
    assert (scores.n_ref, scores.n_pred, scores.AP50) == (n * n, n * n - 1, pytest.approx(1 - 1 / n**2))
    assert time.process_time() - started < 60


def test_a_prediction_with_numbers_of_no_class_is_a_fault_that_names_the_file(tmp_path):
    summary = scored(tmp_path, TWO, (squares(1001), squares(5)), (squares(1001), squares(1001)))
    assert summary.n_cases == 1 and "prediction/c0.tif" in summary.faults[0] and "5" in summary.faults[0]
