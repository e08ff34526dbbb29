"""One reading of the files gives what checking and measuring them one after the other gave."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toy import write_toy_dataset

from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.integrity import check_dataset
from autoseg.inspection.measure import extract_fingerprint, fingerprint_of
from autoseg.inspection.survey import survey_dataset
from autoseg.inspection.survey_cache import load_survey, save_survey
from autoseg.io import file_formats
from autoseg.io.images import write_labels


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(12, 20, 18), (1, 40, 50)], ids=["3d", "2d"])
def test_it_finds_and_measures_what_two_passes_do(tmp_path, shape, workers):
    dataset = Dataset.load(write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=3, shape=shape))
    seen = []
    survey = survey_dataset(dataset, workers=workers, progress=lambda *step: seen.append(step))
    assert survey.report == check_dataset(dataset)
    assert fingerprint_of(dataset, survey.measures) == extract_fingerprint(dataset)
    assert [step[:2] for step in seen] == [(1, 3), (2, 3), (3, 3)]


def test_cases_with_faults_or_without_annotation_are_not_measured(tmp_path):
    folder = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=4)
    geometry = Geometry(spacing=(2.0, 1.0, 1.0))
    write_labels(folder / "labelsTr" / "toy_000.nii.gz", np.full((12, 20, 18), 3, np.uint8), geometry)  # ignore
    write_labels(folder / "labelsTr" / "toy_001.nii.gz", np.full((12, 20, 18), 9, np.uint8), geometry)  # undeclared
    path = folder / "imagesTr" / "toy_002_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    survey = survey_dataset(Dataset.load(folder))
    assert list(survey.measures) == ["toy_003"]
    assert survey.report.uninformative == ("toy_000", "toy_001")
    assert [fault.where.split(":")[0] for fault in survey.report.faults] == ["image of case 'toy_002'", "label value 9"]


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the files that are read from now on."""
    names: list[str] = []

    def reading(path):
        names.append(path.name)
        return file_formats.read_nifti(path)

    counted = file_formats._NIFTI._replace(read=reading)
    monkeypatch.setitem(file_formats.FORMATS, ".nii.gz", counted)
    return names


def files_of(*cases: str) -> list[str]:
    return sorted(name for case in cases for name in (f"{case}.nii.gz", f"{case}_0000.nii.gz"))


def test_every_file_is_read_once(tmp_path, read):
    dataset = Dataset.load(write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=2, shape=(20, 30, 30), sparse=False))
    fingerprint_of(dataset, survey_dataset(dataset).measures)
    assert sorted(read) == files_of(*dataset.case_names)


@pytest.mark.parametrize("sparse", [True, False])
def test_only_changed_cases_are_read_again_and_nothing_else_differs(tmp_path, read, sparse):
    folder = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=4, sparse=sparse)
    survey_dataset(Dataset.load(folder), cache=tmp_path / "kept.npz")
    changed = folder / "labelsTr" / "toy_002.nii.gz"
    write_labels(changed, np.ones((12, 20, 18), np.uint8), Geometry(spacing=(2.0, 1.0, 1.0)))
    read.clear()
    dataset = Dataset.load(folder)
    again = survey_dataset(dataset, cache=tmp_path / "kept.npz")
    assert sorted(read) == files_of("toy_002")
    fresh = survey_dataset(dataset)
    assert again.report == fresh.report
    assert fingerprint_of(dataset, again.measures) == fingerprint_of(dataset, fresh.measures)
    read.clear()
    assert survey_dataset(dataset, cache=tmp_path / "kept.npz").report == fresh.report
    assert read == []


def test_an_interrupted_survey_keeps_the_cases_that_it_has_read(tmp_path, read):
    dataset = Dataset.load(write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=3))

    def interrupt(done, *_):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey_dataset(dataset, cache=tmp_path / "kept.npz", progress=interrupt)
    read.clear()
    survey_dataset(dataset, cache=tmp_path / "kept.npz")
    assert sorted(read) == files_of("toy_002")


def test_the_kept_file_does_not_depend_on_the_order_in_which_cases_end(tmp_path):
    dataset = Dataset.load(write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=2))
    survey_dataset(dataset, cache=tmp_path / "kept.npz")
    kept = load_survey(tmp_path / "kept.npz")
    save_survey(tmp_path / "turned.npz", {name: kept[name] for name in reversed(dataset.case_names)})
    assert (tmp_path / "turned.npz").read_bytes() == (tmp_path / "kept.npz").read_bytes()


@pytest.mark.parametrize(
    ("keys", "cases"),
    [
        ({"cases": {"toy_001": {"annotated": ["bright"]}}, "numTraining": 2}, ["toy_001"]),
        ({"labels": {"background": 0, "brightest": 1, "ignore": 3}}, ["toy_000", "toy_001"]),
    ],
    ids=["one case", "all"],
)
def test_what_dataset_json_says_anew_is_held_against_the_files(tmp_path, read, keys, cases):
    folder = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=2)
    survey_dataset(Dataset.load(folder), cache=tmp_path / "kept.npz")
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | keys))
    read.clear()
    dataset = Dataset.load(folder)
    again = survey_dataset(dataset, cache=tmp_path / "kept.npz")
    assert sorted(read) == files_of(*cases)
    assert again.report == survey_dataset(dataset).report


def test_a_case_with_faults_is_read_again_and_a_damaged_file_is_no_error(tmp_path, read):
    folder = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=2)
    write_labels(
        folder / "labelsTr" / "toy_001.nii.gz", np.full((12, 20, 18), 9, np.uint8), Geometry(spacing=(2, 1, 1))
    )
    dataset, kept = Dataset.load(folder), tmp_path / "kept.npz"
    survey_dataset(dataset, cache=kept)
    read.clear()
    assert survey_dataset(dataset, cache=kept).report.faults == survey_dataset(dataset).report.faults != ()
    assert read[:2].count("toy_000.nii.gz") == 0 and sorted(read[:2]) == files_of("toy_001")
    for damage in (b"", b"not an archive", kept.read_bytes()[:200]):
        kept.write_bytes(damage)
        read.clear()
        survey_dataset(dataset, cache=kept)
        assert sorted(read) == files_of("toy_000", "toy_001")


def test_an_ending_that_cannot_be_used_ends_the_survey(tmp_path):
    for name in ("imagesTr/a_0000.jpg", "labelsTr/a.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    labels = {"background": 0, "organ": 1}
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".jpg", "numTraining": 1})
    )
    survey = survey_dataset(Dataset.load(tmp_path))
    assert survey.measures == {}
    assert "a lossy format" in str(survey.report.faults[0])
