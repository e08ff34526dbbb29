"""Cases with the masks of experts are cases with a label file for everything that opens the data set."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from toy import toy_case

import autoseg
from autoseg.cases.cache import CaseCache
from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.interop import mask_votes
from autoseg.interop.expert_labels import labels_for_check, open_dataset, with_fused_labels
from autoseg.io.images import read_header, read_labels, write_labels, write_values
from autoseg.planning.check_dataset import check_dataset
from autoseg.preprocessing.runner import stale_cases

SHAPES = pytest.mark.parametrize("shape", [(1, 24, 20), (8, 16, 14)], ids=["2d", "3d"])
LABELS = {"background": 0, "bright": 1, "brighter": 2}


def write(folder, shape=(1, 24, 20), *, n_cases=3, labelled=1, n_experts=3, fusion=None, **keys):
    """Write cases, the first ``labelled`` with a label file, the others with noisy masks of experts."""
    is_2d = shape[0] == 1
    ending = ".png" if is_2d else ".nii.gz"
    geometry = Geometry(spacing=(999.0, 1.0, 1.0) if is_2d else (2.0, 1.0, 1.0), ndim=2 if is_2d else 3)
    cases = {}
    for number in range(n_cases):
        image, truth = toy_case(shape, number)
        write_labels(folder / "imagesTr" / f"c{number}_0000{ending}", image, geometry)
        if number < labelled:
            write_labels(folder / "labelsTr" / f"c{number}{ending}", truth, geometry)
            continue
        experts = {}
        for expert in range(n_experts):
            rng = np.random.default_rng((number, expert))
            noise = rng.integers(0, 3, shape).astype(np.uint8)
            path = folder / "experts" / f"e{expert}" / f"c{number}{ending}"
            write_labels(path, np.where(rng.random(shape) < 0.15, noise, truth), geometry)
            experts[f"e{expert}"] = str(path.relative_to(folder))
        cases[f"c{number}"] = {"experts": experts}
    write_json(folder, ending, cases, n_cases, fusion, **keys)
    return folder


def write_json(folder, ending, cases, n_cases, fusion=None, **keys):
    content = {"channel_names": {"0": "MR"}, "labels": LABELS, "numTraining": n_cases, "file_ending": ending}
    content |= {"cases": cases} | ({} if fusion is None else {"expert_fusion": fusion}) | keys
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def change(folder, **keys):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | keys), encoding="utf-8")


def masks_of(folder, case, ending=".png"):
    return np.stack([read_labels(folder / "experts" / f"e{expert}" / f"{case}{ending}")[0] for expert in range(3)])


@SHAPES
def test_a_case_with_experts_is_one_with_a_label_file(tmp_path, shape):
    folder = write(tmp_path / "raw" / "D", shape, fusion={"method": "majority"})
    dataset = open_dataset(folder, Workspace(tmp_path))
    assert not any(case.experts for case in dataset.cases) and dataset.case_names == ("c0", "c1", "c2")
    assert dataset.case("c0").label == folder / "labelsTr" / f"c0{dataset.file_ending}"
    masks = masks_of(folder, "c1", dataset.file_ending)
    tally = np.stack([(masks == index).sum(axis=0) for index in range(3)])
    expected = np.where((tally == tally.max(axis=0)).sum(axis=0) == 1, tally.argmax(axis=0), dataset.labels.ignore)
    np.testing.assert_array_equal(read_labels(dataset.case("c1").label)[0], expected)
    beside = json.loads((tmp_path / "preprocessed/D/experts/dataset.json").read_text(encoding="utf-8"))
    assert Dataset.from_json(beside, name="x", folder=None).labels == dataset.labels
    assert beside == dict(dataset.json) and "experts" not in json.dumps(beside)
    geometry = read_header(dataset.case("c1").label)[1]
    write_labels(tmp_path / "predicted" / f"c1{dataset.file_ending}", tally.argmax(axis=0).astype(np.uint8), geometry)
    scores = autoseg.evaluate(dataset.case("c1").label.parent, tmp_path / "predicted")
    assert scores.foreground_mean["Dice"] == 1


@pytest.mark.parametrize("fusion", [None, {"undecided": "background"}, {"method": "sets"}, {"soft": True}])
def test_all_ways_to_fuse_give_declared_values(tmp_path, fusion):
    folder = write(tmp_path / "raw" / "D", fusion=fusion)
    dataset = open_dataset(folder, Workspace(tmp_path))
    report = check_dataset(dataset, (), tmp_path / "preprocessed" / "D", 1)
    assert not report.integrity.faults
    has_sets = any(len(members) > 1 for members in dataset.labels.set_values.values())
    assert has_sets == (fusion == {"method": "sets"}) and bool(dataset.labels.value_weights) == (
        fusion == {"soft": True}
    )
    assert (tmp_path / "preprocessed/D/experts/experts.csv").read_text().count("\n") == 7


def test_masks_are_read_only_if_something_changed(tmp_path, monkeypatch):
    folder = write(tmp_path / "raw" / "D")
    opened = []

    def counting(path, **options):
        opened.append(path)
        return read_labels(path, **options)

    monkeypatch.setattr(mask_votes, "read_labels", counting)
    space = Workspace(tmp_path)
    first = open_dataset(folder, space)
    assert len(opened) == 6
    stamps = {case.name: case.label.stat().st_mtime_ns for case in first.cases}
    assert open_dataset(folder, space) == first and len(opened) == 6
    mask = folder / "experts" / "e0" / "c1.png"
    write_labels(mask, 2 - read_labels(mask)[0], Geometry(spacing=(999.0, 1.0, 1.0), ndim=2))
    second = open_dataset(folder, space)
    changed = {case.name for case in second.cases if case.label.stat().st_mtime_ns != stamps[case.name]}
    assert len(opened) == 12 and changed == {"c1"}
    change(folder, expert_fusion={"method": "majority"})
    open_dataset(folder, space)
    first.case("c2").label.unlink()
    assert open_dataset(folder, space).case("c2").label.is_file() and len(opened) == 24


@SHAPES
def test_the_whole_way_to_a_fresh_cache_and_a_stale_one(tmp_path, shape):
    folder = write(tmp_path / "raw" / "D", shape, fusion={"soft": True})
    space = Workspace(tmp_path)
    plan = autoseg.plan(folder, root=tmp_path, planner="small")
    name = "2d" if shape[0] == 1 else "3d_fullres"
    assert autoseg.preprocess(folder, root=tmp_path, configurations=[name]) == (name,)
    cache = tmp_path / "preprocessed" / "D" / name
    names = ["c0", "c1", "c2"]
    dataset = open_dataset(folder, space)
    assert not stale_cases(dataset, plan, name, CaseCache.read(cache, names), names)
    ending = dataset.file_ending
    for expert in range(3):
        path = folder / "experts" / f"e{expert}" / f"c2{ending}"
        labels, geometry = read_labels(path)
        write_labels(path, np.where(labels == 1, 2, labels).astype(np.uint8), geometry)
    stale = stale_cases(open_dataset(folder, space), plan, name, CaseCache.read(cache, names), names)
    assert "label file changed" in stale["c2"]


def test_checking_writes_nothing_and_finds_the_same(tmp_path):
    folder = write(tmp_path / "raw" / "D")
    for part in [folder, *folder.rglob("*")]:
        part.chmod(part.stat().st_mode & ~0o222)
    report = autoseg.check(folder, root=tmp_path / "work")
    assert not report.integrity.faults and set(report.integrity.cases) == {"c0", "c1", "c2"}
    assert not (tmp_path / "work").exists()
    open_dataset(folder, Workspace(tmp_path / "work"))
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "work").rglob("*"))
    assert autoseg.check(folder, root=tmp_path / "work").as_json() == report.as_json()
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "work").rglob("*")) == before
    for part in [folder, *folder.rglob("*")]:
        part.chmod(part.stat().st_mode | 0o200)


def test_valid_masks_and_statements_hold_for_fused_labels(tmp_path):
    folder = write(tmp_path / "raw" / "D", labelled=0, valid_mask_folder="valid")
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    content["cases"]["c1"]["absent"] = ["brighter"]
    path.write_text(json.dumps(content))
    valid = np.zeros((1, 24, 20), dtype=np.uint8)
    valid[:, :12] = 1
    for case in ("c0", "c1", "c2"):
        write_labels(folder / "valid" / f"{case}.png", valid, Geometry(spacing=(999.0, 1.0, 1.0), ndim=2))
    dataset = open_dataset(folder, Workspace(tmp_path))
    assert dataset.case("c0").valid_mask is not None and dataset.labels.statements["c1"].absent == {2}


def test_values_and_files_that_do_not_fit_are_said_with_case_and_expert(tmp_path):
    folder = write(tmp_path / "raw" / "D", label_sets={"5": ["bright", "brighter"]})
    flat = Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)
    write_labels(folder / "experts" / "e0" / "c1.png", np.full((1, 24, 20), 255, np.uint8), flat)
    write_labels(folder / "experts" / "e1" / "c1.png", np.full((1, 24, 20), 5, np.uint8), flat)
    (folder / "experts" / "e2" / "c2.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"c2\.png"):
        open_dataset(folder, Workspace(tmp_path))
    write_labels(folder / "experts" / "e2" / "c2.png", np.zeros((1, 24, 20), np.uint8), flat)
    with pytest.raises(DatasetError) as raised:
        open_dataset(folder, Workspace(tmp_path))
    texts = [str(fault) for fault in raised.value.faults]
    assert len(texts) == 2 and "'c1', expert 'e0'" in texts[0] and "undeclared values 255" in texts[0]
    assert "'c1', expert 'e1'" in texts[1] and "values of label sets 5" in texts[1]
    write_labels(folder / "experts" / "e0" / "c1.png", np.zeros((1, 24, 21), np.uint8), flat)
    with pytest.raises(DatasetError, match=r"'c1', expert 'e0'.*shape \(1, 24, 21\)"):
        open_dataset(folder, Workspace(tmp_path))
    report = autoseg.check(folder, root=tmp_path)
    assert any("expert 'e0'" in str(fault) for fault in report.integrity.faults)
    assert not (tmp_path / "preprocessed").exists()


def test_what_dataset_json_says_wrong_of_experts(tmp_path):
    def faults_of(**keys):
        folder = write(tmp_path / "raw" / "D", **keys)
        return [str(fault) for fault in Dataset.examine(folder)[1]]

    (fault,) = faults_of(fusion={"undecided": "brigt"})
    assert "expert_fusion.undecided" in fault and "Did you mean 'bright'" in fault
    (fault,) = faults_of(fusion={"method": "sets", "soft": True})
    assert "decides nothing" in fault
    folder = write(tmp_path / "raw" / "D")
    (folder / "experts" / "e1" / "c2.png").unlink()
    described, faults = Dataset.examine(folder)
    assert len(faults) == 1 and "cases.c2.experts.e1" in str(faults[0])
    with labels_for_check(described, faults, tmp_path / "p") as (checked, found):
        assert found == faults and not check_dataset(checked, (), tmp_path / "p", 1).integrity.faults
    described = Dataset.examine(write(tmp_path / "raw" / "E", n_experts=1, fusion={}))[0]
    assert any("one expert only" in text and "c1" in text for text in described.warnings)
    described = Dataset.examine(write(tmp_path / "raw" / "F", labelled=3, fusion={}))[0]
    assert any("no case has experts" in text for text in described.warnings)


def test_a_label_file_beside_experts_is_not_read_and_a_warning_says_so(tmp_path):
    folder = write(tmp_path / "raw" / "D")
    _, truth = toy_case((1, 24, 20), 1)
    write_labels(folder / "labelsTr" / "c1.png", truth, Geometry(spacing=(999.0, 1.0, 1.0), ndim=2))
    described, faults = Dataset.examine(folder)
    assert not faults and any("not read" in text and "c1" in text for text in described.warnings)
    assert with_fused_labels(described, tmp_path / "p").case("c1").label.parent.parent.name == "experts"


def test_listed_cases_need_no_label_if_they_have_experts(tmp_path):
    folder = write(tmp_path / "raw" / "D", labelled=0)
    listed = {f"c{number}": {"images": [f"imagesTr/c{number}_0000.png"]} for number in range(3)}
    change(folder, dataset=listed)
    dataset = open_dataset(folder, Workspace(tmp_path))
    assert all(case.label is not None for case in dataset.cases)
    cases = json.loads((folder / "dataset.json").read_text())["cases"]
    change(folder, cases={case: entry for case, entry in cases.items() if case != "c1"})
    (fault,) = Dataset.examine(folder)[1]
    assert "dataset.c1" in str(fault) and "no label" in str(fault)


def test_a_case_without_experts_any_more_leaves_no_label_behind(tmp_path):
    folder = write(tmp_path / "raw" / "D")
    place = tmp_path / "preprocessed" / "D" / "experts" / "labelsTr"
    open_dataset(folder, Workspace(tmp_path))
    cases = json.loads((folder / "dataset.json").read_text())["cases"]
    os.link(folder / "experts" / "e0" / "c1.png", folder / "labelsTr" / "c1.png")
    change(folder, cases={"c2": cases["c2"]})
    assert open_dataset(folder, Workspace(tmp_path)).case("c1").label.parent == folder / "labelsTr"
    assert [path.name for path in place.iterdir()] == ["c2.png"]


def test_opened_data_sets_have_no_experts_left(tmp_path):
    folder = write(tmp_path / "raw" / "D")
    dataset = open_dataset(folder, Workspace(tmp_path))
    assert open_dataset(dataset, Workspace(tmp_path)) is dataset
    raw = Dataset.load(folder)
    assert open_dataset(raw, Workspace(tmp_path)) == dataset
    assert replace(raw, cases=raw.cases[:1]).cases[0].experts == ()


REGIONS = {"labels": {"background": 0, "all": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}


@SHAPES
@pytest.mark.parametrize("fusion", [{"method": "majority", "soft": True}, {"method": "sets"}])
def test_regions_are_fused_by_their_classes(tmp_path, shape, fusion):
    folder = write(tmp_path / "raw" / "D", shape, fusion=fusion, **REGIONS)
    dataset = open_dataset(folder, Workspace(tmp_path))
    assert dataset.labels.has_regions and dataset.labels.set_values
    values = read_labels(dataset.case("c1").label)[0]
    codes, sets = dataset.labels.encode(values, "c1")
    masks = masks_of(folder, "c1", dataset.file_ending)
    for index in range(3):
        is_voted = (masks == index).any(axis=0)
        if fusion["method"] == "sets":
            np.testing.assert_array_equal(sets[codes][..., index], is_voted | sets[codes].all(axis=-1))
        else:
            assert is_voted[(sets[codes].sum(axis=-1) == 1) & sets[codes][..., index]].all()


@pytest.mark.parametrize(("unlabelled", "unknown"), [(0, 0), (-1, 4), ("nan", 4)])
def test_undecided_voxels_get_a_value_that_a_file_can_hold(tmp_path, unlabelled, unknown):
    first = 1 if unlabelled == 0 else 0
    folder = tmp_path / "raw" / "D"
    labels = {"background": first, "bright": first + 1, "brighter": first + 2}
    write(folder, (8, 16, 14), labels=labels | ({} if first else {"third": 3}), unlabelled=unlabelled)
    geometry = Geometry(spacing=(2.0, 1.0, 1.0), ndim=3)
    for expert in range(2):
        mask = np.full((1, 8, 16, 14), first + expert, np.float32)
        mask[..., :4, :] = float(unlabelled)
        write_values(folder / "experts" / f"e{expert}" / "c1.nii.gz", mask, geometry)
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    del content["cases"]["c1"]["experts"]["e2"]
    change(folder, cases=content["cases"], expert_fusion={"method": "majority"})
    dataset = open_dataset(folder, Workspace(tmp_path))
    assert (read_labels(dataset.case("c1").label)[0] == unknown).all()
    assert dataset.labels.ignore == (None if unknown == 0 else unknown)
