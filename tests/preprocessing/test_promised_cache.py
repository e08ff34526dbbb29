"""With promises the cache says more, and of what was drawn exactly the same."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from autoseg.cases.cache import CaseCache, open_case
from autoseg.cases.case import Case, Target
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.io.images import read_labels, write_labels
from autoseg.preprocessing.read_case import infer_case
from autoseg.preprocessing.runner import preprocess_dataset, stale_cases

IGNORE, COARSE = 4, 5
PROMISES = {"classes_complete_in": "slice", "reach_mm": {"bright": 6.0, "dim": "auto"}, "background_encloses": True}
SHAPES = {"2d": ((1, 24, 26), 2), "3d": ((6, 24, 26), 3)}


def write_scribbled(folder, shape, ndim):
    """Three cases with a stroke of each class in most slices, some of them coarse."""
    geometry = Geometry(spacing=(999.0, 1.0, 1.0) if ndim == 2 else (4.0, 1.0, 1.0), ndim=ndim)
    for seed, name in enumerate("abc"):
        rng = np.random.default_rng(seed)
        labels = np.full(shape, IGNORE, np.uint8)
        for number in range(0, shape[0], 2):
            row = int(rng.integers(4, 8))
            labels[number, row, 3:9] = 1
            labels[number, row + 4, 5:8] = 2
            labels[number, row + 6, 6] = COARSE
            labels[number, 20, 1:20] = 0
        for path, array in (("imagesTr", rng.integers(1, 255, shape).astype(np.uint8)), ("labelsTr", labels)):
            ending = f"{name}_0000.nii.gz" if path == "imagesTr" else f"{name}.nii.gz"
            (folder / path).mkdir(parents=True, exist_ok=True)
            write_labels(folder / path / ending, array, geometry)
    write_json(folder, None)
    return folder


def write_json(folder, protocol):
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "bright": 1, "dim": 2, "ignore": IGNORE},
        "label_sets": {str(COARSE): ["bright", "dim"]},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    } | ({} if protocol is None else {"annotation_protocol": protocol})
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(params=list(SHAPES))
def folder(request, tmp_path):
    return write_scribbled(tmp_path / "Dataset001_Toy", *SHAPES[request.param])


@pytest.fixture
def plan(make_plan):
    return make_plan(spacing=(3.0, 0.7, 1.3))


def run(folder, plan, cache, protocol, **options):
    write_json(folder, protocol)
    dataset = Dataset.load(folder)
    name = "2d" if read_labels(folder / "labelsTr" / "a.nii.gz")[0].shape[0] == 1 else "3d_fullres"
    report = preprocess_dataset(dataset, plan, name, cache, **options)
    assert not report.failed
    return dataset, name, report


def test_drawn_sets_are_what_they_are_without_a_protocol(folder, plan, tmp_path):
    run(folder, plan, tmp_path / "plain", None)
    run(folder, plan, tmp_path / "promised", PROMISES)
    for name in "abc":
        plain, promised = open_case(tmp_path / "plain", name), open_case(tmp_path / "promised", name)
        assert plain.entry.inferred_sets is None
        np.testing.assert_array_equal(plain.entry.table.learnt, plain.entry.table.drawn)
        drawn, left = promised.entry.table.drawn[promised.codes], promised.entry.table.learnt[promised.codes]
        np.testing.assert_array_equal(drawn, plain.entry.table.drawn[plain.codes])
        np.testing.assert_array_equal(promised.image, plain.image)
        assert (left <= drawn).all() and left.any(axis=-1).all()
        assert (left.sum(axis=-1) < drawn.sum(axis=-1)).mean() > 0.3
        is_single = drawn.sum(axis=-1) == 1
        np.testing.assert_array_equal(left[is_single], drawn[is_single])


def test_only_what_was_drawn_has_locations(folder, plan, tmp_path):
    run(folder, plan, tmp_path / "plain", None)
    run(folder, plan, tmp_path / "promised", PROMISES)
    plain, promised = open_case(tmp_path / "plain", "a"), open_case(tmp_path / "promised", "a")
    assert set(promised.entry.locations) <= set(np.flatnonzero(promised.entry.table.informative).tolist())
    assert sorted(promised.locations.tolist()) == sorted(plain.locations.tolist())
    assert sum(promised.entry.code_counts.values()) == promised.codes.size


def test_a_protocol_makes_old_caches_stale_and_none_leaves_them_fresh(folder, plan, tmp_path):
    dataset, name, _ = run(folder, plan, tmp_path / "cache", None)
    before = open_case(tmp_path / "cache", "a").entry.fingerprint
    assert "protocol" not in before
    run(folder, plan, tmp_path / "cache", {"instances_touched": True})
    assert open_case(tmp_path / "cache", "a").entry.fingerprint == before  # not inferred before training

    write_json(folder, PROMISES)
    dataset = Dataset.load(folder)
    reason = "annotation_protocol, or what is estimated for it, changed"
    assert set(stale_cases(dataset, plan, name, CaseCache.read(tmp_path / "cache", "abc"), "abc").values()) == {reason}
    dataset = replace(dataset, protocol=replace(dataset.protocol, reach_mm={1: 6.0, 2: 5.0}))
    preprocess_dataset(dataset, plan, name, tmp_path / "cache")
    assert stale_cases(dataset, plan, name, CaseCache.read(tmp_path / "cache", "abc"), "abc") == {}
    for change in ({"reach_mm": {1: 6.0, 2: 5.5}}, {"slice_axis": 1}, {"gap_mm": 2.0}, {"background_encloses": False}):
        changed = replace(dataset, protocol=replace(dataset.protocol, **change))
        assert stale_cases(changed, plan, name, CaseCache.read(tmp_path / "cache", "a"), "a") == {"a": reason}
    write_json(folder, None)
    assert stale_cases(Dataset.load(folder), plan, name, CaseCache.read(tmp_path / "cache", "a"), "a") == {"a": reason}


def test_sets_keep_all_their_classes_when_they_are_resampled(folder, plan, tmp_path):
    run(folder, plan, tmp_path / "tight", {"classes_complete_in": "slice", "reach_mm": 1.0})
    for name in "abc":
        case = open_case(tmp_path / "tight", name)
        drawn, left = case.entry.table.drawn[case.codes], case.entry.table.learnt[case.codes]
        coarse = (drawn == [False, True, True]).all(axis=-1)
        assert coarse.any() and (left[coarse] == [False, True, True]).all()
        assert (left.sum(axis=-1) < drawn.sum(axis=-1)).mean() > 0.5


def test_dense_data_and_empty_protocols_infer_nothing(toy_folder):
    dataset = Dataset.load(toy_folder)
    label_sets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], bool)
    codes = np.full((2, 3, 3), 3, np.uint8)
    codes[0, 0, 0] = 1
    case = Case("x", np.ones((1, 2, 3, 3), np.float32), Geometry(spacing=(4.0, 1.0, 1.0)), Target(codes, label_sets, 3))
    promise = AnnotationProtocol(classes_complete_in="slice")
    assert infer_case(case, dataset.labels, AnnotationProtocol()) is None
    assert infer_case(case, dataset.labels, AnnotationProtocol(instances_touched=True)) is None
    assert infer_case(case, dataset.labels, promise) is not None
    dense = Case("x", case.image, case.geometry, Target(np.zeros_like(codes), label_sets, 3))
    assert infer_case(dense, dataset.labels, promise) is None
