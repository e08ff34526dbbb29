"""A data set is found as nnU-Net lays it out; files that do not belong together are named."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from autoseg.core.errors import DatasetError
from autoseg.dataset.case_files import find_image_cases
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import CaseStatement
from autoseg.dataset.protocol import AnnotationProtocol

LABELS = {"background": 0, "liver": 1, "tumour": 2, "ignore": 3}


def lay_out(folder: Path, image_files: list[str], label_files: list[str], **keys: Any) -> Path:
    """Write empty files and a dataset.json: only names matter here."""
    for name, files in (("imagesTr", image_files), ("labelsTr", label_files)):
        (folder / name).mkdir(parents=True)
        for file in files:
            (folder / name / file).touch()
    channels = {str(number): f"c{number}" for number in range(keys.pop("n_channels", 1))}
    content = {"channel_names": channels, "labels": LABELS, "file_ending": ".nii.gz", "numTraining": len(label_files)}
    (folder / "dataset.json").write_text(json.dumps(content | keys))
    return folder


def faults_of(path: Path) -> list[str]:
    with pytest.raises(DatasetError) as raised:
        Dataset.load(path)
    return [str(fault) for fault in raised.value.faults]


@pytest.fixture
def two_cases(tmp_path) -> Path:
    images = ["b_0001.nii.gz", "b_0000.nii.gz", "a_7_0000.nii.gz", "a_7_0001.nii.gz", ".a_0000.nii.gz", "notes.txt"]
    return lay_out(tmp_path / "Dataset001_Toy", images, ["a_7.nii.gz", "b.nii.gz"], n_channels=2)


def test_cases_are_sorted_and_their_channels_too(two_cases: Path):
    dataset = Dataset.load(two_cases)
    assert dataset.name == "Dataset001_Toy" and dataset.folder == two_cases and dataset.case_names == ("a_7", "b")
    assert dataset.cases[1] == CaseFiles(
        "b",
        (two_cases / "imagesTr/b_0000.nii.gz", two_cases / "imagesTr/b_0001.nii.gz"),
        two_cases / "labelsTr/b.nii.gz",
    )
    assert dataset.case("b") is dataset.cases[1]
    assert dataset.json["file_ending"] == ".nii.gz" and dataset.warnings == ()


def test_an_unknown_case_is_an_error(two_cases: Path):
    with pytest.raises(DatasetError, match=r"no case 'A_7'.* mean 'a_7'"):
        Dataset.load(two_cases).case("A_7")


def test_a_data_set_survives_the_way_to_a_worker(two_cases: Path):
    dataset = Dataset.load(two_cases)
    assert pickle.loads(pickle.dumps(dataset)) == dataset  # noqa: S301


@pytest.mark.parametrize("given", ["folder", "file", "text"])
def test_a_data_set_is_named_by_its_folder_or_file(two_cases: Path, given: str):
    path = {"folder": two_cases, "file": two_cases / "dataset.json", "text": str(two_cases)}[given]
    assert Dataset.load(path) == Dataset.load(two_cases)


def test_another_dataset_json_of_the_folder_has_its_own_name_and_label_folder(two_cases: Path):
    scribbles = two_cases / "dataset_scribble.json"
    scribbles.write_text((two_cases / "dataset.json").read_text())
    assert Dataset.load(scribbles).name == "Dataset001_Toy_scribble"
    assert Dataset.load(scribbles).cases[0].label == two_cases / "labelsTr/a_7.nii.gz"
    (two_cases / "labelsTr").rename(two_cases / "labelsTr_scribble")
    assert Dataset.load(scribbles).cases[0].label == two_cases / "labelsTr_scribble/a_7.nii.gz"


def test_a_wrong_num_training_is_logged_and_kept(tmp_path, caplog):
    folder = lay_out(tmp_path / "toy", ["a_0000.nii.gz"], ["a.nii.gz"], numTraining=7)
    with caplog.at_level(logging.WARNING):
        dataset = Dataset.load(folder)
    assert dataset.warnings == (
        "dataset.json: numTraining: 7 differs from the number of cases found, 1, which is used",
    )
    assert caplog.messages == list(dataset.warnings)


def test_from_json_has_no_cases_but_keeps_the_statements():
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".png"}
    dataset = Dataset.from_json(content | {"cases": {"gone": {"absent": ["tumour"]}}}, name="toy", folder=None)
    assert dataset.cases == () and dataset.name == "toy"
    assert dataset.labels.statements == {"gone": CaseStatement(absent=frozenset({2}))}


# what does not lie where it should


def test_a_missing_path_is_an_error(tmp_path):
    assert faults_of(tmp_path / "gone") == [
        f"{tmp_path / 'gone'}: found no such file or folder, expected a folder with a dataset.json. "
        "Check the path, and that the disk is mounted."
    ]


def test_a_folder_without_dataset_json_is_an_error(tmp_path):
    assert "found no dataset.json" in faults_of(tmp_path)[0]
    (tmp_path / "dataset_x.json").touch()
    assert str(tmp_path / "dataset_x.json") in faults_of(tmp_path)[0]


def test_missing_folders_are_both_named(tmp_path):
    folder = lay_out(tmp_path / "toy", [], [])
    (folder / "imagesTr").rmdir()
    (folder / "labelsTr").rmdir()
    first, second = faults_of(folder)
    assert first.startswith(f"{folder / 'imagesTr'}: found no such folder")
    assert second.startswith(f"{folder / 'labelsTr'}: found no such folder")


FILE_FAULTS: list[tuple[str, list[str], list[str], str]] = [
    ("no cases", [], [], r"imagesTr: found nothing, expected at least one case"),
    ("other ending", ["a_0000.nrrd"], ["a.nrrd"],
     r"imagesTr: found files ending in '.nrrd' (1), expected at least one"),
    ("no labels", ["a_0000.nii.gz", "a_0001.nii.gz"], [], r"labelsTr: found nothing, expected at least one case"),
    ("image without label", [f"{c}_000{n}.nii.gz" for c in "ab" for n in (0, 1)], ["a.nii.gz"],
     r"imagesTr/b_0000.nii.gz: found an image without label, expected a label file labelsTr/b.nii.gz"),
    ("label without image", ["a_0000.nii.gz", "a_0001.nii.gz"], ["a.nii.gz", "b.nii.gz"],
     r"labelsTr/b.nii.gz: found a label without image, expected an image file imagesTr/b_0000.nii.gz"),
    ("gap", ["a_0000.nii.gz", "a_0002.nii.gz"], ["a.nii.gz"],
     r"case 'a': found channel files 0000, 0002, expected channel numbers from 0000 without gaps. Add a_0001"),
    ("from one", ["a_0001.nii.gz"], ["a.nii.gz"], r"case 'a': found channel files 0001"),
    ("too many channels", [f"a_000{n}.nii.gz" for n in range(3)], ["a.nii.gz"], r"0002, expected 2 channels"),
    ("too few channels", ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz"], ["a.nii.gz", "b.nii.gz"],
     r"case 'b': found channel files 0000, expected 2 files, as in channel_names and as other cases have"),
    ("no channel number", ["a.nii.gz"], ["a.nii.gz"], r"imagesTr/a.nii.gz: found a name without channel number"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "labels", "text"), [item[1:] for item in FILE_FAULTS], ids=[item[0] for item in FILE_FAULTS]
)
def test_files_that_do_not_fit_give_one_fault(tmp_path, images: list[str], labels: list[str], text: str):
    (fault,) = faults_of(lay_out(tmp_path / "toy", images, labels, n_channels=2))
    assert text in fault


def test_one_file_may_hold_all_channels(tmp_path):
    folder = lay_out(tmp_path / "toy", ["a_0000.nii.gz", "b_0000.nii.gz"], ["a.nii.gz", "b.nii.gz"], n_channels=3)
    assert [len(case.images) for case in Dataset.load(folder).cases] == [1, 1]


def test_faults_of_the_json_and_of_the_files_come_together(tmp_path):
    folder = lay_out(tmp_path / "toy", ["a_0000.nii.gz"], ["b.nii.gz"], labels={"liver": 1}, cases={"z": {}})
    faults = sorted(faults_of(folder))
    assert len(faults) == 3 and "imagesTr/a_0000" in faults[0] and "no 'background'" in faults[2]


def test_prediction_input_is_found_by_the_same_rules(tmp_path):
    for name in ("x_0000.png", "x_0001.png", "y_0000.png", "z_0000.tif"):
        (tmp_path / name).touch()
    cases, faults = find_image_cases(tmp_path, ".png", 2)
    assert cases == {"x": (tmp_path / "x_0000.png", tmp_path / "x_0001.png")}
    assert [fault.where for fault in faults] == [f"{tmp_path}: case 'y'"]
    assert find_image_cases(tmp_path / "gone", ".png", 1)[1][0].found == "no such folder"


# the explicit list


def test_listed_cases_may_lie_anywhere(tmp_path, monkeypatch):
    folder = lay_out(tmp_path / "toy", [], [])
    (tmp_path / "away").mkdir()
    for name in ("toy/one.nii.gz", "away/two.nii.gz", "away/label.nii.gz"):
        (tmp_path / name).touch()
    monkeypatch.setenv("AWAY_FOLDER", str(tmp_path / "away"))
    entry = {"images": ["one.nii.gz", "$AWAY_FOLDER/two.nii.gz"], "label": str(tmp_path / "away/label.nii.gz")}
    content = json.loads((folder / "dataset.json").read_text()) | {"dataset": {"k": entry}, "numTraining": 1}
    (folder / "dataset.json").write_text(json.dumps(content))
    (case,) = Dataset.load(folder).cases
    assert case.images == (folder / "one.nii.gz", tmp_path / "away/two.nii.gz")
    assert case.label == tmp_path / "away/label.nii.gz"


@pytest.mark.parametrize(
    ("section", "texts"),
    [
        ({}, ["dataset: found {}"]),
        ([1], ["dataset: found [1], expected an object"]),
        ({"k": {"images": []}}, ["dataset.k: found {'images': []}, expected an object"]),
        ({"k": {"images": ["x.png"], "label": "y.png"}}, ["x.png, expected an existing file", "y.png, expected an ex"]),
    ],
    ids=["empty", "list", "malformed", "missing files"],
)
def test_a_wrong_list_of_cases_is_named(tmp_path, section: Any, texts: list[str]):
    faults = faults_of(lay_out(tmp_path / "toy", [], [], dataset=section))
    assert len(faults) == len(texts)
    assert all(text in fault for text, fault in zip(texts, faults, strict=True))


# label_sets and cases


def load_with(folder: Path, **keys: Any) -> Dataset:
    return Dataset.load(lay_out(folder / "toy", ["a_0000.nii.gz", "b_0000.nii.gz"], ["a.nii.gz", "b.nii.gz"], **keys))


def test_statements_about_cases_reach_labels_and_files(tmp_path):
    dataset = load_with(
        tmp_path,
        label_sets={"5": ["liver", "tumour"], "9": ["background", "liver"]},
        cases={
            "a": {"annotated": ["liver"], "absent": ["tumour"], "priority": 2, "group": "patient 1"},
            "b": {"annotated": ["background", "liver"], "group": 7},
        },
    )
    assert dataset.labels.set_values == {5: frozenset({1, 2}), 9: frozenset({0, 1})}
    both = CaseStatement(frozenset({1}), frozenset({2}))
    assert dataset.labels.statements == {"a": both, "b": CaseStatement(frozenset({0, 1}))}
    assert [(case.priority, case.group) for case in dataset.cases] == [(2.0, "patient 1"), (1.0, "7")]


def test_priority_and_group_leave_a_dense_data_set_dense(tmp_path):
    labels = {"background": 0, "liver": 1}
    assert load_with(tmp_path, labels=labels, cases={"a": {"priority": 3, "group": "g"}}).labels.is_dense


def test_a_region_may_be_named_in_statements(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    dataset = load_with(
        tmp_path,
        labels=labels,
        regions_class_order=[1, 2],
        cases={"a": {"absent": ["whole"]}},
        label_sets={"8": ["whole"]},
    )
    assert dataset.labels.statements["a"].absent == {1, 2} and dataset.labels.set_values == {8: frozenset({1, 2})}


STATEMENT_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("sets not an object", {"label_sets": ["liver"]}, "label_sets: found ['liver']"),
    ("set key", {"label_sets": {"five": ["liver"]}}, "label_sets.five: found 'five', expected a label value"),
    ("set declared", {"label_sets": {"2": ["liver"]}}, "label_sets.2: found the value 2, which is declared already"),
    ("set ignore", {"label_sets": {"3": ["liver"]}}, "label_sets.3: found the value 3, which is declared already"),
    ("set unknown", {"label_sets": {"5": ["Livr"]}}, "found the name 'Livr', expected a name declared in labels. "
     "Choose among background, liver, tumour. Did you mean 'liver'?"),
    ("set empty", {"label_sets": {"5": []}}, "label_sets.5: found []"),
    ("set text", {"label_sets": {"5": "liver"}}, "label_sets.5: found 'liver', expected"),
    ("cases a list", {"cases": []}, "cases: found []"),
    ("case unknown", {"cases": {"c": {}}}, "cases.c: found a case without files"),
    ("case a list", {"cases": {"a": ["liver"]}}, "cases.a: found ['liver'], expected an object"),
    ("case key", {"cases": {"a": {"abscent": ["liver"]}}}, "cases.a.abscent: found an unknown key"),
    ("class unknown", {"cases": {"a": {"absent": ["ignore"]}}}, "cases.a.absent: found the name 'ignore'"),
    ("all absent", {"cases": {"a": {"absent": ["background", "liver", "tumour"]}}}, "absent: found all classes"),
    ("priority text", {"cases": {"a": {"priority": "high"}}}, "cases.a.priority: found 'high'"),
    ("priority negative", {"cases": {"a": {"priority": -1}}}, "cases.a.priority: found -1"),
    ("priority bool", {"cases": {"a": {"priority": True}}}, "cases.a.priority: found True"),
    ("priority 0", {"cases": {"a": {"priority": 0}, "b": {"priority": 0}}}, "cases: found priority 0 for every case"),
    ("group", {"cases": {"a": {"group": ["p"]}}}, "cases.a.group: found ['p']"),
    ("experts", {"cases": {"a": {"experts": {"x": "y.nii.gz"}}}}, "expected the expert's mask of the case"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "text"), [item[1:] for item in STATEMENT_FAULTS], ids=[item[0] for item in STATEMENT_FAULTS]
)
def test_a_wrong_statement_gives_one_fault(tmp_path, keys: dict[str, Any], text: str):
    with pytest.raises(DatasetError) as raised:
        load_with(tmp_path, **keys)
    (fault,) = raised.value.faults
    assert text in str(fault)


def test_seed_semantics_without_a_lazy_case_are_a_warning(tmp_path):
    dataset = load_with(tmp_path, lazy_semantics="seed", cases={"a": {"absent": ["liver"]}})
    assert dataset.labels.lazy_semantics == "seed"
    assert dataset.warnings == (
        "dataset.json: lazy_semantics: has no effect, because no case lists its annotated classes",
    )


def test_a_protocol_is_part_of_the_data_set(tmp_path):
    dataset = load_with(tmp_path, annotation_protocol={"reach_mm": {"liver": 20}})
    assert dataset.protocol == AnnotationProtocol(reach_mm={1: 20.0}) and dataset.warnings == ()


# valid masks


def lay_out_masked(folder: Path, masks: list[str], **keys: Any) -> Path:
    lay_out(folder, ["a_0000.nii.gz", "b_0000.nii.gz"], ["a.nii.gz", "b.nii.gz"], valid_mask_folder="masksTr", **keys)
    (folder / "masksTr").mkdir()
    for name in masks:
        (folder / "masksTr" / name).touch()
    return folder


def test_each_case_has_its_mask(tmp_path):
    folder = lay_out_masked(tmp_path / "toy", ["a.nii.gz", "b.nii.gz", "notes.txt"])
    assert [case.valid_mask for case in Dataset.load(folder).cases] == [
        folder / "masksTr/a.nii.gz", folder / "masksTr/b.nii.gz"
    ]  # fmt: skip


def test_masks_make_a_data_set_sparse_though_nothing_is_ignored(tmp_path):
    labels = {"background": 0, "liver": 1}
    dataset = Dataset.load(lay_out_masked(tmp_path / "toy", ["a.nii.gz", "b.nii.gz"], labels=labels))
    assert dataset.labels.has_masks and not dataset.labels.is_dense
    again = Dataset.from_json(dataset.json, name="model", folder=None)
    assert again.labels.has_masks


@pytest.mark.parametrize(
    ("masks", "text"),
    [
        (["a.nii.gz"], "masksTr/b.nii.gz of case 'b': found no mask, expected one mask per case, named as its label"),
        (["a.nii.gz", "b.nii.gz", "c.nii.gz"], "masksTr/c.nii.gz: found a mask without case"),
    ],
    ids=["missing", "surplus"],
)
def test_masks_that_do_not_fit_give_one_fault(tmp_path, masks: list[str], text: str):
    (fault,) = faults_of(lay_out_masked(tmp_path / "toy", masks))
    assert text in fault


def test_a_mask_folder_must_be_there_and_be_another_one(tmp_path):
    images, labels = ["a_0000.nii.gz"], ["a.nii.gz"]
    (fault,) = faults_of(lay_out(tmp_path / "none", images, labels, valid_mask_folder="masks"))
    assert "valid_mask_folder: found 'masks', no folder, expected a folder with one mask per case" in fault
    (fault,) = faults_of(lay_out(tmp_path / "same", images, labels, valid_mask_folder="imagesTr/../labelsTr"))
    assert "found 'imagesTr/../labelsTr', the folder of the label files" in fault


def test_listed_cases_whose_label_files_share_a_name_cannot_have_masks(tmp_path):
    folder = lay_out_masked(tmp_path / "toy", ["seg.nii.gz"])
    listed = {}
    for case in "ab":
        (folder / case).mkdir()
        (folder / case / "seg.nii.gz").touch()
        listed[case] = {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"{case}/seg.nii.gz"}
    content = json.loads((folder / "dataset.json").read_text()) | {"dataset": listed}
    (folder / "dataset.json").write_text(json.dumps(content))
    faults = faults_of(folder)
    assert len(faults) == 2 and "found 2 cases whose label files have this name" in faults[0]


def test_real_data_sets_are_read_unchanged(real_data: Path):
    hippocampus = Dataset.load(real_data / "Dataset004_Hippocampus")
    assert len(hippocampus.cases) == 130 and hippocampus.labels.is_dense
    acdc = Dataset.load(real_data / "Dataset027_ACDC" / "dataset_scribble.json")
    assert acdc.labels.ignore == 4 and acdc.cases[0].label is not None
    assert acdc.cases[0].label.parent.name == "labelsTr_scribble"
    assert Dataset.load(real_data / "Dataset021_ISBI2012").file_ending == ".png"


def test_numbers_too_large_for_a_float_are_faults(tmp_path):
    with pytest.raises(DatasetError) as caught:
        load_with(tmp_path, cases={"a": {"priority": 10**400}}, annotation_protocol={"reach_mm": 10**400})
    assert {fault.where for fault in caught.value.faults} >= {
        "dataset.json: cases.a.priority", "dataset.json: annotation_protocol.reach_mm",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["patient/1", "../out", ".hidden", ""])
def test_a_listed_case_has_a_name_that_files_can_have(tmp_path, name):
    folder = lay_out(tmp_path / "toy", ["a_0000.nii.gz"], ["a.nii.gz"])
    content = json.loads((folder / "dataset.json").read_text())
    content["dataset"] = {name: {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    (folder / "dataset.json").write_text(json.dumps(content))
    assert any(
        f"dataset: found the case name {name!r}, expected a name that files can" in text for text in faults_of(folder)
    )
