"""Weights of annotated voxels reach the cache, and change nothing else of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autoseg.cases.cache import CaseCache, open_case
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import weight_levels
from autoseg.evaluation import score_folder
from autoseg.io.images import write_labels
from autoseg.preprocessing.merge_weights import weigh
from autoseg.preprocessing.runner import preprocess_dataset, stale_cases

IGNORE = 5
LABELS = {"background": 0, "cell": 1, "fibre": 2}
WEIGHTS = {"3": {"label": "cell", "weight": 0.6}, "4": {"label": "fibre", "weight": 0.25}}
SHAPES = pytest.mark.parametrize(("shape", "ndim"), [((1, 20, 22), 2), ((5, 16, 18), 3)], ids=["2d", "3d"])


def write(folder, values, ndim, *, weights=None, ignore=True):
    geometry = Geometry(spacing=(999.0, 1.0, 1.0) if ndim == 2 else (3.0, 1.0, 1.0), ndim=ndim)
    image = np.random.default_rng(0).integers(1, 200, values.shape).astype(np.uint8)
    write_labels(folder / "imagesTr" / "a_0000.nii.gz", image, geometry)
    write_labels(folder / "labelsTr" / "a.nii.gz", values.astype(np.uint8), geometry)
    content = {
        "channel_names": {"0": "MR"}, "labels": LABELS | ({"ignore": IGNORE} if ignore else {}), "numTraining": 1,
        "file_ending": ".nii.gz",
    }  # fmt: skip
    if weights:
        content["label_weights"] = weights
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return Dataset.load(folder)


def cached(dataset, plan, cache, ndim):
    name = "2d" if ndim == 2 else "3d_fullres"
    report = preprocess_dataset(dataset, plan, name, cache)
    assert not report.failed
    return open_case(cache, "a")


def drawn_values(shape, seed=1):
    values = np.random.default_rng(seed).choice([0, 1, 2, 3, 4, IGNORE], shape, p=[0.3, 0.15, 0.1, 0.15, 0.1, 0.2])
    return np.repeat(np.repeat(values, 2, axis=1), 2, axis=2)[:, : shape[1], : shape[2]]


def as_classes(values):
    return np.select([values == 3, values == 4], [1, 2], values)


@SHAPES
@pytest.mark.parametrize("spacing", [1.0, 0.7, 1.9])
def test_weights_change_no_class_and_no_image_of_the_cache(shape, ndim, spacing, make_plan, tmp_path):
    plan = make_plan(spacing=(3.0, spacing, spacing))
    values = drawn_values(shape)
    weighted = cached(write(tmp_path / "w", values, ndim, weights=WEIGHTS), plan, tmp_path / "cw", ndim)
    plain = cached(write(tmp_path / "p", as_classes(values), ndim), plan, tmp_path / "cp", ndim)
    one, other = weighted.entry.table, plain.entry.table
    np.testing.assert_array_equal(one.drawn[weighted.codes], other.drawn[plain.codes])
    np.testing.assert_array_equal(weighted.image, plain.image)
    np.testing.assert_array_equal(one.annotated[weighted.codes], other.annotated[plain.codes])
    weight = one.weight[weighted.codes]
    assert (weight[~one.annotated[weighted.codes]] == 1).all()
    assert set(np.unique(weight)) == {np.float32(0.25), np.float32(0.6), np.float32(1)}
    np.testing.assert_array_equal(one.drawn[one.base], one.drawn)
    if spacing == 1.0:
        np.testing.assert_array_equal(weight, np.select([values == 3, values == 4], [0.6, 0.25], 1).astype(np.float32))


@SHAPES
def test_weights_of_1_are_no_weights_and_0_is_unknown(shape, ndim, make_plan, tmp_path):
    plan, values = make_plan(spacing=(3.0, 1.4, 1.4)), drawn_values(shape)
    trivial = {"3": {"label": "cell", "weight": 1}, "4": {"label": ["fibre"], "weight": 0}}
    weighted = cached(write(tmp_path / "w", values, ndim, weights=trivial), plan, tmp_path / "cw", ndim)
    as_plain = np.select([values == 3, values == 4], [1, IGNORE], values)
    plain = cached(write(tmp_path / "p", as_plain, ndim), plan, tmp_path / "cp", ndim)
    np.testing.assert_array_equal(weighted.codes, plain.codes)
    keys = {"label_sets", "weights", "undrawn", "locations", "code_counts"}
    assert weighted.entry.model_dump(include=keys) == plain.entry.model_dump(include=keys)


def test_a_weighted_dense_data_set_is_dense_and_its_padding_background(tmp_path):
    values = drawn_values((1, 20, 22))
    values[values == IGNORE] = 0
    labels = write(tmp_path / "w", values, 2, weights=WEIGHTS, ignore=False).labels
    assert labels.is_dense and labels.outside == 0 and weight_levels(labels) == (1.0, 0.25, 0.6)


def test_other_weights_make_a_cached_case_stale(make_plan, tmp_path):
    plan, values = make_plan(spacing=(3.0, 1.0, 1.0)), drawn_values((1, 20, 22))
    cached(write(tmp_path / "w", values, 2, weights=WEIGHTS), plan, tmp_path / "c", 2)
    other = write(tmp_path / "w", values, 2, weights=WEIGHTS | {"3": {"label": "cell", "weight": 0.7}})
    assert stale_cases(other, plan, "2d", CaseCache.read(tmp_path / "c", ["a"]), ["a"]).keys() == {"a"}


@SHAPES
def test_scores_take_a_weighted_voxel_for_its_class(shape, ndim, tmp_path):
    values = drawn_values(shape)
    dataset = write(tmp_path / "w", values, ndim, weights=WEIGHTS)
    plain = write(tmp_path / "p", as_classes(values), ndim)
    prediction = np.random.default_rng(3).integers(0, 3, shape).astype(np.uint8)
    geometry = Geometry(spacing=(999.0, 1.0, 1.0) if ndim == 2 else (3.0, 1.0, 1.0), ndim=ndim)
    write_labels(tmp_path / "predicted" / "a.nii.gz", prediction, geometry)
    scores = [
        score_folder(data.folder / "labelsTr", tmp_path / "predicted", data.folder / "dataset.json").as_json()
        for data in (dataset, plain)
    ]
    assert scores[0]["mean"] == scores[1]["mean"] and scores[0]["foreground_mean"] == scores[1]["foreground_mean"]


def test_voxels_without_a_level_count_1_and_unannotated_ones_are_left_alone():
    codes = np.array([[0, 1, 1, 2, 2]], dtype=np.uint8)
    levels = np.array([[1, 1, 2, 1, 0]], dtype=np.uint8)
    weighted = weigh(codes, np.array([True, True, False]), levels, (1.0, 0.5))
    assert weighted.codes.tolist() == [[3, 4, 1, 2, 2]]
    assert weighted.code_before.tolist() == [0, 1, 2, 0, 1] and weighted.weights == (1, 1, 1, 0.5, 0.5)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"1": {"label": "cell", "weight": 0.5}}, "declared already"),
        ({"3": {"label": "cel", "weight": 0.5}}, "Did you mean 'cell'"),
        ({"3": {"label": "cell", "weight": 1.5}}, "0 to 1"),
        ({"3": {"label": "cell"}}, "0 to 1"),
        ({"3": 0.5}, "0 to 1"),
        ({"x": {"label": "cell", "weight": 0.5}}, "label value"),
        ([], "an object"),
    ],
)
def test_faulty_weights_are_said(entry, message, tmp_path):
    values = np.zeros((1, 8, 8), dtype=np.uint8)
    write(tmp_path, values, 2)
    content = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"label_weights": entry}))
    faults = [str(fault) for fault in Dataset.examine(tmp_path)[1]]
    assert len(faults) == 1 and message in faults[0] and "label_weights" in faults[0]
