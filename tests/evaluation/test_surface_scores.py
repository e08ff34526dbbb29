"""Surface scores of heads follow from the masks that label sets decide."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from autoseg.cli.evaluation_table import print_tables
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Head, Labels
from autoseg.evaluation import evaluate_folder
from autoseg.evaluation.surface import surface_distances
from autoseg.evaluation.surface_scores import SurfaceScores, mean_surface_scores, surface_scores
from autoseg.io.images import read_header, write_labels

HEADS = (Head("background", (0,), (0,), is_background=True), Head("a", (1,), (1,)), Head("b", (2,), (2,)))
LABELS = Labels((0, 1, 2), ("background", "a", "b"), HEADS, ignore=3, set_values={4: frozenset({1, 2})})
SPACING = (2.0, 1.0, 0.5)


def maps(shape, seed=0):
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 3, (max(1, shape[0] // 4), *(edge // 4 for edge in shape[1:])))
    blocks = np.kron(coarse, np.ones((min(shape[0], 4), 4, 4), dtype=int))
    return blocks, np.roll(blocks, 1, axis=2)


@pytest.mark.parametrize("shape", [(1, 24, 24), (8, 16, 16)], ids=["2d", "3d"])
def test_scores_are_those_of_the_masks_of_each_head(shape):
    reference, prediction = maps(shape)
    scores = surface_scores(reference, prediction, LABELS, SPACING, 0.6)
    for value in (1, 2):
        expected = surface_distances(prediction == value, reference == value, None, SPACING)
        assert scores[str(value)] == SurfaceScores.of(expected, 0.6)
        assert scores[str(value)].NSD > 0


def test_undecided_voxels_do_not_count_for_a_head():
    reference, prediction = maps((8, 16, 16))
    reference[:, :6], reference[:, 6:9] = 3, 4
    other = prediction.copy()
    other[:, :6] = 2 - other[:, :6]
    other[:, 6:9] = np.where(other[:, 6:9] == 1, 2, other[:, 6:9])  # the set excludes background only
    first, second = (surface_scores(reference, maps_, LABELS, SPACING, 1.0) for maps_ in (prediction, other))
    assert first == second


def test_means_count_cases_without_one_of_the_surfaces():
    both = SurfaceScores(HD95=2.0, ASSD=1.0, NSD=0.5)
    missed = SurfaceScores(HD95=None, ASSD=None, NSD=0.0)
    nowhere = SurfaceScores(HD95=None, ASSD=None, NSD=None)
    means = mean_surface_scores([{"1": both}, {"1": missed}, {"1": nowhere}, {}], ["1", "2"])
    assert (means["1"].HD95, means["1"].ASSD, means["1"].NSD) == (2.0, 1.0, 0.25)
    assert (means["1"].n_cases, means["1"].n_one_sided) == (1, 1)
    assert means["2"].HD95 is None and means["2"].n_cases == 0


@pytest.mark.parametrize("shape", [(1, 24, 24), (8, 16, 16)], ids=["2d", "3d"])
def test_a_folder_is_scored_with_surfaces(tmp_path, shape, capsys):
    reference, prediction = maps(shape)
    sparse = reference.copy()
    sparse[:, :8] = 3
    geometry = Geometry(spacing=SPACING, ndim=2 if shape[0] == 1 else 3)
    ending = ".tif" if shape[0] == 1 else ".nii.gz"
    for case, values in (("dense", reference), ("sparse", sparse)):
        write_labels(tmp_path / "reference" / f"{case}{ending}", values.astype(np.uint8), geometry)
        write_labels(tmp_path / "prediction" / f"{case}{ending}", prediction.astype(np.uint8), geometry)
    content = {
        "channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3},
        "numTraining": 2, "file_ending": ending,
    }  # fmt: skip
    plain = evaluate_folder(tmp_path / "reference", tmp_path / "prediction", content)
    assert plain.surface == {} and plain.tolerance_mm is None
    summary = evaluate_folder(tmp_path / "reference", tmp_path / "prediction", content, tolerance_mm=0.6)
    dense, partial = summary.metric_per_case
    spacing = read_header(tmp_path / "reference" / f"dense{ending}")[1].spacing
    labels = Labels((0, 1, 2), ("background", "a", "b"), HEADS, ignore=3)
    for found, values in ((dense, reference), (partial, sparse)):
        assert found.surface == surface_scores(values, prediction, labels, spacing, 0.6)
    assert summary.surface["dense"]["1"].HD95 == dense.surface["1"].HD95
    assert summary.surface["annotated voxels"]["1"].NSD == partial.surface["1"].NSD
    summary.write(tmp_path / "summary.json")
    summary.to_csv(tmp_path / "scores.csv")
    assert json.loads((tmp_path / "summary.json").read_text())["surface"]["dense"]["1"]["n_cases"] == 1
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["HD95"]) == dense.surface["1"].HD95
    assert "HD95" in (tmp_path / "scores_means.csv").read_text()
    print_tables(summary)
    assert "surface Dice at 0.6 mm" in capsys.readouterr().out
