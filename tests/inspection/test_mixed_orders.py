"""A data set whose files are stored in several orders is planned, cached and checked as if it were one order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autoseg.cases.cache import CaseCache, open_case
from autoseg.cases.case import Case
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import VoxelOrder, order_towards
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.integrity import check_dataset
from autoseg.io.images import read_image, read_labels, write_labels
from autoseg.planning import extract_fingerprint, plan
from autoseg.preprocessing import preprocess, restore
from autoseg.preprocessing.runner import preprocess_dataset, stale_cases

LPS = Geometry(spacing=(3.0, 1.2, 1.0), origin=(2.0, 3.0, -4.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
ORDERS = {
    "a": VoxelOrder(),
    "b": VoxelOrder(flipped=(False, True, True)),  # RAS
    "c": VoxelOrder(),
    "d": VoxelOrder((1, 0, 2), (False, True, False)),  # coronal slices
    "e": VoxelOrder((2, 0, 1), (True, False, False)),  # sagittal slices
    "f": VoxelOrder(),
}
SHAPE = (6, 14, 12)


def lay_out(folder: Path, *, mixed: bool, ending: str = ".nii.gz", sparse: bool = False, reach_mm: int = 0) -> Dataset:
    for seed, (name, order) in enumerate(ORDERS.items()):
        rng = np.random.default_rng(seed)
        order = order if mixed else VoxelOrder()
        truth = np.zeros(SHAPE, np.uint8)
        truth[1:4, 2:7, 1:5], truth[2:5, 5:12, 7:11] = 1, 2
        image = (rng.integers(1, 60, SHAPE) + 70 * truth).astype(np.uint8)
        image[:, :, :2] = 0  # something to crop
        truth[:, :, :2] = 0
        if sparse:
            truth[:, :7] = 3
        geometry = order.turned(LPS, SHAPE)
        write_labels(folder / f"imagesTr/{name}_0000{ending}", order.apply(image).copy(), geometry)
        write_labels(folder / f"labelsTr/{name}{ending}", order.apply(truth).copy(), geometry)
    labels = {"background": 0, "right": 1, "left": 2} | ({"ignore": 3} if sparse else {})
    content = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 6, "file_ending": ending}
    if sparse:  # promises are held against the file's own axes, where its slices lie
        content["annotation_protocol"] = {"classes_complete_in": "slice"} | ({"reach_mm": reach_mm} if reach_mm else {})
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_mixed_orders_give_the_plan_and_the_caches_of_one_order(tmp_path, ending, sparse):
    one = lay_out(tmp_path / "x" / "Toy", mixed=False, ending=ending, sparse=sparse, reach_mm=6)
    mixed = lay_out(tmp_path / "y" / "Toy", mixed=True, ending=ending, sparse=sparse, reach_mm=6)
    first, second = extract_fingerprint(one), extract_fingerprint(mixed)
    assert first.turned == {}
    assert second.turned.keys() == {"b", "d", "e"}
    assert second.turned["b"] == "RAS"
    assert second.model_copy(update={"source_hash": first.source_hash, "turned": {}}) == first
    assert plan(mixed, second, "small") == plan(one, first, "small")
    planned = plan(one, first, "small")
    for name in planned.configurations:
        for dataset, folder in ((one, tmp_path / "one" / name), (mixed, tmp_path / "mixed" / name)):
            assert not preprocess_dataset(dataset, planned, name, folder).failed
        for case in ORDERS:
            mine, theirs = (open_case(tmp_path / which / name, case) for which in ("mixed", "one"))
            for array in ("image", "codes", "locations"):
                np.testing.assert_array_equal(getattr(mine, array), getattr(theirs, array))
            assert mine.entry.label_sets == theirs.entry.label_sets
            assert mine.entry.inferred_sets == theirs.entry.inferred_sets
            assert (mine.entry.inferred_sets is not None) == sparse


def test_a_prediction_goes_back_to_the_order_of_its_file(tmp_path):
    dataset = lay_out(tmp_path / "Toy", mixed=True)
    planned = plan(dataset, extract_fingerprint(dataset), "small")
    for case in dataset.cases:
        image, geometry = read_image(case.images)
        record = preprocess(Case(case.name, image, geometry), planned, planned.configuration("2d"), unknown=None).record
        truth, _ = read_labels(case.label)
        cropped = record.voxel_order.apply(truth)[tuple(map(slice, record.crop_low, record.crop_high))]
        np.testing.assert_array_equal(restore(cropped, record), truth)


def test_the_check_says_how_many_cases_are_stored_in_which_order(tmp_path):
    report = check_dataset(lay_out(tmp_path / "y", mixed=True))
    assert report.faults == ()
    (warning,) = [line for line in report.warnings if "orders" in line]
    assert "4 different voxel orders: 3 as LPS (a, c, f); 1 as" in warning
    assert "1 as RAS (b)" in warning
    assert "Each is brought to LPS" in warning
    assert not [line for line in check_dataset(lay_out(tmp_path / "x", mixed=False)).warnings if "orders" in line]


def test_places_without_annotation_are_those_of_the_common_order(tmp_path):
    warnings = check_dataset(lay_out(tmp_path, mixed=True, sparse=True)).warnings
    (warning,) = [line for line in warnings if "no case is annotated" in line]
    assert "0 to 50 % of the length of axis 1 (y)" in warning


def test_files_without_directions_have_no_order(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        for kind in (f"imagesTr/{name}_0000", f"labelsTr/{name}"):
            write_labels(
                tmp_path / f"{kind}.png", rng.integers(0, 2, (1, 9, 8), np.uint8), Geometry(spacing=(999, 1, 1), ndim=2)
            )
    content = {
        "channel_names": {"0": "x"},
        "labels": {"background": 0, "a": 1},
        "numTraining": 3,
        "file_ending": ".png",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    dataset = Dataset.load(tmp_path)
    fingerprint = extract_fingerprint(dataset)
    assert fingerprint.direction is None
    assert plan(dataset, fingerprint, "small").direction is None


def test_a_cache_from_before_is_stale_only_where_a_case_is_turned_now(tmp_path):
    dataset = lay_out(tmp_path / "Toy", mixed=True)
    planned = plan(dataset, extract_fingerprint(dataset), "small")
    old = planned.model_copy(update={"direction": None})
    preprocess_dataset(dataset, old, "2d", tmp_path / "2d")
    assert stale_cases(dataset, old, "2d", CaseCache.read(tmp_path / "2d", ORDERS), ORDERS) == {}
    stale = stale_cases(dataset, planned, "2d", CaseCache.read(tmp_path / "2d", ORDERS), ORDERS)
    assert stale == dict.fromkeys("bde", "plan changed")
    assert preprocess_dataset(dataset, planned, "2d", tmp_path / "2d").done == ("b", "d", "e")
    assert stale_cases(dataset, planned, "2d", CaseCache.read(tmp_path / "2d", ORDERS), ORDERS) == {}
    assert order_towards(LPS, planned.direction).is_identity
