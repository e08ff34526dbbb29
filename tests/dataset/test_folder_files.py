"""No file of a folder vanishes: it is in a case or in a fault; and faults of names say how to mend them."""

from __future__ import annotations

import json
import subprocess
import unicodedata
from pathlib import Path

import pytest

from autoseg.dataset.case_files import find_image_cases
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folder_files import folders_with_images, hidden_images, passed_over, strays


def lay_out(folder: Path, images: list[str], labels: list[str], n_channels: int = 1) -> Path:
    for place, names in (("imagesTr", images), ("labelsTr", labels)):
        (folder / place).mkdir(parents=True)
        for name in names:
            (folder / place / name).touch()
    content = {
        "channel_names": {str(number): f"c{number}" for number in range(n_channels)},
        "labels": {"background": 0, "organ": 1},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def faults_of(folder: Path) -> list[str]:
    return [str(fault) for fault in Dataset.examine(folder)[1]]


def mend(fault: str) -> None:
    """Run the command that a fault ends with."""
    command = fault[fault.index("cd ") :]
    subprocess.run(["bash", "-c", command], check=True)


def test_every_image_of_a_folder_is_a_case_or_in_a_fault(tmp_path):
    for name in ("a_0000.nii.gz", "b_0000.NII.GZ", "c_0000.nrrd", "d_0000.nii", "e.nii.gz", "f_0001.nii.gz"):
        (tmp_path / name).touch()
    (tmp_path / "g_0000.nii.gz").symlink_to(tmp_path / "gone")
    (tmp_path / "h_0000.mha").symlink_to(tmp_path / "gone")
    (tmp_path / "i_0000.nii.gz").mkdir()
    (tmp_path / "j_0000.dcm").touch()
    (tmp_path / "k_0000.zarr").mkdir()
    for name in ("dataset.json", "Thumbs.db", "a_0000.json", "a.json", "overview.png", "README", "._a_0000.nii.gz"):
        (tmp_path / name).touch()
    cases, faults = find_image_cases(tmp_path, ".nii.gz", 1)
    named = [case for fault in (*faults, *strays(tmp_path, ".nii.gz")) for case in fault.cases]
    assert list(cases) == ["a", "b"]
    assert sorted(named) == ["c", "d", "e.nii.gz", "f", "g", "h", "i", "j", "k"]
    assert all(case.split(".")[0] in str(fault) for fault in faults for case in fault.cases)


def test_copies_and_sidecars_of_an_image_that_is_there_are_no_strays(tmp_path):
    for name in ("a_0000.mhd", "a_0000.raw", "a_0000.zraw", "a_0000.nrrd", "b_0000.mhd", "b_0000.raw"):
        (tmp_path / name).touch()
    assert strays(tmp_path, ".mhd") == []
    assert [fault.cases for fault in strays(tmp_path, ".nrrd")] == [("b",)]


def test_two_files_of_one_name_are_a_fault_and_not_a_choice(tmp_path):
    for name in ("a_0000.nii.gz", "a_0000.NII.gz", "b_0000.nii.gz"):
        (tmp_path / name).touch()
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "Müller_0000.nii.gz")).touch()
    cases, faults = find_image_cases(tmp_path, ".nii.gz", 1)
    assert list(cases) == ["b"]
    assert sorted(case for fault in faults for case in fault.cases) == ["Müller", "a"]


def test_what_is_passed_over_is_said(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "empty").mkdir()
    for name in (".c_0000.nii.gz", "._c_0000.nii.gz", ".12.tmp.d_0000.nii.gz", "a_0000.nii.gz", ".a_0000.nii.gz",
                 "deep/x_0000.nii.gz"):  # fmt: skip
        (tmp_path / name).touch()
    assert hidden_images(tmp_path, ".nii.gz") == [".c_0000.nii.gz"]
    assert folders_with_images(tmp_path, ".nii.gz") == ["deep"]
    assert len(passed_over(tmp_path, ".nii.gz")) == 2


def test_a_folder_whose_images_lie_deeper_is_told_where(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x_0000.nii.gz").touch()
    (fault,) = find_image_cases(tmp_path, ".nii.gz", 1)[1]
    assert str(tmp_path / "deep") in fault.fix


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a_0000.nii.gz").touch()
    (fault,) = find_image_cases(tmp_path / "a_0000.nii.gz", ".nii.gz", 1)[1]
    assert (fault.found, str(tmp_path) in fault.fix) == ("a file", True)


NAMES = ["p1", "p2", "p3", "p10"]
MANNERS: list[tuple[str, list[str], list[str]]] = [
    ("channel number behind labels", ["{}_0000"], ["{}_0000"]),
    ("a word behind labels", ["{}_0000"], ["{}_seg"]),
    ("a word in front of labels", ["img-{}_0000"], ["label-{}"]),
    ("capital letters", ["{}_0000"], ["P{}"]),
    ("three digits", ["{}_000", "{}_001"], ["{}"]),
    ("two digits", ["{}_00", "{}_01"], ["{}"]),
    ("five digits", ["{}_00000", "{}_00001"], ["{}"]),
    ("no number", ["{}"], ["{}"]),
]


@pytest.mark.parametrize(("images", "labels"), [item[1:] for item in MANNERS], ids=[item[0] for item in MANNERS])
@pytest.mark.parametrize("names", [NAMES, NAMES[:2]], ids=["many", "two"])
def test_names_that_are_wrong_in_one_way_are_one_fault_whose_command_mends_them(
    tmp_path, images: list[str], labels: list[str], names: list[str]
):
    def files(patterns: list[str]) -> list[str]:
        made = [f"{pattern.format(name)}.nii.gz" for pattern in patterns for name in names]
        return [name.replace("Pp", "P") for name in made]

    folder = lay_out(tmp_path / "toy", files(images), files(labels), len(images))
    faults = faults_of(folder)
    assert len(faults) == (2 if images == ["{}"] and len(names) == 2 else 1)
    for fault in faults:
        mend(fault)
    assert faults_of(folder) == []
    assert len(Dataset.load(folder).cases) == len(names)


def test_a_renaming_leaves_labels_alone_that_are_right(tmp_path):
    folder = lay_out(
        tmp_path / "toy",
        [f"{name}_0000.nii.gz" for name in ("a", "b", "c", "d_0000")],
        [f"{name}_0000.nii.gz" for name in "abcd"],
    )
    (fault,) = faults_of(folder)
    mend(fault)
    assert Dataset.load(folder).case_names == ("a", "b", "c", "d_0000")


def test_names_that_look_alike_are_alike(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    folder = lay_out(tmp_path / "toy", [f"{decomposed}_0000.nii.gz"], [f"{composed}.NII.GZ"])
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | {"cases": {decomposed: {"group": "x"}}}))
    dataset = Dataset.load(folder)
    assert dataset.case_names == (composed,)
    assert dataset.cases[0].group == "x"


def test_links_into_nothing_are_named_in_a_training_set(tmp_path):
    folder = lay_out(tmp_path / "toy", ["a_0000.nii.gz", "b_0000.nii.gz"], ["a.nii.gz"])
    for place, name in (("imagesTr", "c_0000.nii.gz"), ("labelsTr", "c.nii.gz"), ("labelsTr", "b.nii.gz")):
        (folder / place / name).symlink_to("/nowhere/" + name)
    faults = faults_of(folder)
    assert [Path(fault.split(": found")[0]).name for fault in faults] == ["c_0000.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert all("a link to /nowhere" in fault for fault in faults)
