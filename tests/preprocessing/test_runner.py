"""The cache is complete, resumed, refreshed case by case, and clean after a killed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.cases.cache import CaseCache, open_case
from autoseg.core.errors import DatasetError, FileFormatError, PlanError
from autoseg.dataset.dataset import Dataset
from autoseg.preprocessing import preprocess
from autoseg.preprocessing.read_case import read_case
from autoseg.preprocessing.runner import preprocess_dataset, stale_cases

NAMES = ("a", "b", "c")


def _write(path, array):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 2.0))
    sitk.WriteImage(image, str(path))


def _write_json(folder, labels):
    content = {
        "channel_names": {"0": "MR"},
        "labels": labels,
        "numTraining": len(NAMES),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    raw = tmp_path / "Dataset001_Toy"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        _write(raw / "imagesTr" / f"{name}_0000.nii.gz", rng.normal(10, 3, (6, 8, 9)).astype(np.float32))
        _write(raw / "labelsTr" / f"{name}.nii.gz", rng.integers(0, 3, (6, 8, 9)).astype(np.uint8))
    _write_json(raw, {"background": 0, "organ": 1, "ignore": 2})
    return raw


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "preprocessed" / "3d_fullres"


@pytest.fixture
def plan(make_plan):
    return make_plan(spacing=(1.5, 1.2, 1.2))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_cache_holds_what_preprocess_gives(folder, cache, plan, workers):
    dataset = Dataset.load(folder)
    seen = []
    report = preprocess_dataset(
        dataset, plan, "3d_fullres", cache, workers=workers, progress=lambda *step: seen.append(step)
    )
    assert (report.done, report.kept, report.failed) == (NAMES, (), {})
    assert [step[:2] for step in seen] == [(1, 3), (2, 3), (3, 3)]
    assert {step[2] for step in seen} == set(NAMES)
    for files in dataset.cases:
        cached = open_case(cache, files.name)
        case = read_case(files, dataset.labels)
        expected = preprocess(case, plan, plan.configuration("3d_fullres"), unknown=2)
        np.testing.assert_array_equal(cached.image, expected.image)
        np.testing.assert_array_equal(cached.codes, expected.codes)
        np.testing.assert_array_equal(cached.entry.table.drawn, case.target.label_sets)
        np.testing.assert_array_equal(cached.locations_of(1), np.flatnonzero(expected.codes == 1))
        assert cached.entry.record == expected.record
        assert 2 not in cached.entry.locations


def _run(folder, plan, cache, **options):
    return preprocess_dataset(Dataset.load(folder), plan, "3d_fullres", cache, **options)


def test_a_second_run_keeps_everything_and_a_changed_label_file_redoes_one_case(folder, cache, plan):
    _run(folder, plan, cache)
    stamps = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert _run(folder, plan, cache).kept == NAMES
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == stamps

    _write(folder / "labelsTr" / "b.nii.gz", np.ones((6, 8, 9), np.uint8))
    assert stale_cases(Dataset.load(folder), plan, "3d_fullres", CaseCache.read(cache, NAMES), NAMES) == {
        "b": "label file changed"
    }
    report = _run(folder, plan, cache)
    assert (report.done, report.kept) == (("b",), ("a", "c"))
    assert set(np.unique(open_case(cache, "b").codes)) == {1}


def test_the_number_of_workers_may_depend_on_what_is_to_be_done(folder, cache, plan):
    asked = []

    def workers(names):
        asked.append(list(names))
        return 1

    _run(folder, plan, cache, workers=workers)
    _run(folder, plan, cache, workers=workers)
    os.utime(folder / "imagesTr" / "b_0000.nii.gz", ns=(1, 1))
    _run(folder, plan, cache, workers=workers)
    assert asked == [list(NAMES), ["b"]]


def test_the_reason_of_staleness_is_told(folder, cache, plan, make_plan):
    dataset = Dataset.load(folder)
    assert set(stale_cases(dataset, plan, "3d_fullres", CaseCache.read(cache, NAMES), NAMES).values()) == {
        "never preprocessed"
    }
    _run(folder, plan, cache)
    assert stale_cases(dataset, plan, "3d_fullres", CaseCache.read(cache, ["z"]), ["z"]) == {"z": "never preprocessed"}
    other = make_plan(spacing=(1.5, 1.2, 1.3))
    assert stale_cases(dataset, other, "3d_fullres", CaseCache.read(cache, ["a"]), ["a"]) == {"a": "plan changed"}
    os.utime(folder / "imagesTr" / "a_0000.nii.gz", ns=(1, 1))
    assert stale_cases(dataset, plan, "3d_fullres", CaseCache.read(cache, NAMES), NAMES) == {"a": "image file changed"}
    _write_json(folder, {"background": 0, "organ": 1, "vessel": 2})
    reason = "dataset.json changed what the labels mean"
    assert stale_cases(Dataset.load(folder), plan, "3d_fullres", CaseCache.read(cache, ["b"]), ["b"]) == {"b": reason}
    (cache / "c.image.npy").write_bytes(b"short")
    assert stale_cases(dataset, plan, "3d_fullres", CaseCache.read(cache, ["c"]), ["c"]) == {"c": "never preprocessed"}


def test_a_mask_and_a_statement_about_another_case_reach_the_cache(folder, cache, plan):
    _write_json(folder, {"background": 0, "organ": 1, "extra": 2})
    _run(folder, plan, cache)
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | {"cases": {"c": {"absent": ["extra"]}}}))
    stale = stale_cases(
        Dataset.load(folder), plan, "3d_fullres", CaseCache.read(cache, NAMES), NAMES
    )  # padding of all cases is unknown now
    assert stale == dict.fromkeys(NAMES, "dataset.json changed what the labels mean")

    (folder / "masksTr").mkdir()
    for name in NAMES:
        _write(folder / "masksTr" / f"{name}.nii.gz", np.ones((6, 8, 9), np.uint8))
    (folder / "dataset.json").write_text(json.dumps(content | {"valid_mask_folder": "masksTr"}))
    assert _run(folder, plan, cache).done == NAMES
    os.utime(folder / "masksTr" / "b.nii.gz", ns=(1, 1))
    stale = stale_cases(Dataset.load(folder), plan, "3d_fullres", CaseCache.read(cache, NAMES), NAMES)
    assert stale == {"b": "valid mask changed"}
    said = {"valid_mask_folder": "masksTr", "cases": {"a": {"absent": ["extra"]}}}  # no value means "not extra"
    (folder / "dataset.json").write_text(json.dumps(content | said))
    stale = stale_cases(Dataset.load(folder), plan, "3d_fullres", CaseCache.read(cache, ["a", "c"]), ["a", "c"])
    assert stale == {"a": "dataset.json changed what the labels mean"}


def test_what_does_not_reach_the_cache_makes_nothing_stale(folder, cache, plan):
    _run(folder, plan, cache)
    configuration = plan.configuration("3d_fullres").model_copy(update={"batch_size": 7, "patch_size": (4, 4, 4)})
    intensities = tuple(item.model_copy(update={"mean": 1.0}) for item in plan.intensities)  # not used by z-score
    update = {"configurations": {"3d_fullres": configuration}, "intensities": intensities}
    other = plan.model_copy(update=update)
    assert stale_cases(Dataset.load(folder), other, "3d_fullres", CaseCache.read(cache, NAMES), NAMES) == {}


def test_a_broken_case_does_not_stop_the_others(folder, cache, plan):
    path = folder / "imagesTr" / "a_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    _write(folder / "labelsTr" / "c.nii.gz", np.ones((6, 8, 8), np.uint8))
    report = _run(folder, plan, cache)
    assert report.done == ("b",)
    assert isinstance(report.failed["a"], FileFormatError)
    assert isinstance(report.failed["c"], DatasetError)
    assert "case 'c': c.nii.gz: found labels of shape (6, 8, 8), expected the shape of the image, (6, 8, 9)" in str(
        report.failed["c"]
    )


def test_skipped_cases_are_not_written_and_their_cache_goes(folder, cache, plan):
    _run(folder, plan, cache)
    report = _run(folder, plan, cache, skip={"b"})
    assert (report.done, report.kept) == ((), ("a", "c"))
    assert not list(cache.glob("b.*"))


def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_kept(folder, cache, plan):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    cache.mkdir(parents=True)
    leftover, alive = cache / f".{dead.pid}.tmp.a.image.npy", cache / f".{os.getppid()}.tmp.b.image.npy"
    leftover.write_bytes(b"x")
    alive.write_bytes(b"x")
    _run(folder, plan, cache)
    assert not leftover.exists()
    assert alive.exists()


def test_an_unknown_configuration_is_named(folder, cache, plan):
    with pytest.raises(PlanError, match="no configuration '3d_lowres'"):
        preprocess_dataset(Dataset.load(folder), plan, "3d_lowres", cache)


def test_a_case_without_label_file_is_named(folder):
    files = Dataset.load(folder).cases[0]
    bare = type(files)(name="a", images=files.images)
    with pytest.raises(DatasetError, match="case 'a': found no label file"):
        read_case(bare, Dataset.load(folder).labels)
