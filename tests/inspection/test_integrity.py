"""Broken files are found, all of them in one run, and named with their case."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the name that its documentation gives it)

from autoseg.core.errors import DatasetError, Fault, WorkerError
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.case_check import CaseCheck
from autoseg.inspection.integrity import IntegrityReport, check_dataset

SHAPES = {"2d": (6, 7), "3d": (4, 6, 7)}
LABELS = {"background": 0, "liver": 1, "tumour": 2, "ignore": 9}


def write(path: Path, array: np.ndarray, change: Callable[[sitk.Image], None] | None = None) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5)[: array.ndim])
    image.SetOrigin((-120.3, 45.1, 1002.7)[: array.ndim])
    if change is not None:
        change(image)
    sitk.WriteImage(image, str(path))


@pytest.fixture(params=["2d", "3d"])
def folder(request, tmp_path) -> Path:
    """Three sound cases, a b c, of two channels, in MetaImage files."""
    return lay_out(tmp_path / "Dataset001_Toy", SHAPES[request.param])


def lay_out(folder: Path, shape: tuple[int, ...], ending: str = ".mha", **keys: Any) -> Path:
    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in "abc":
        for channel in range(2):
            write(folder / f"imagesTr/{case}_000{channel}{ending}", rng.normal(size=shape).astype(np.float32))
        write(folder / f"labelsTr/{case}{ending}", rng.choice([0, 1, 2, 9], shape).astype(np.uint8))
    content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": LABELS, "file_ending": ending, "numTraining": 3}
    (folder / "dataset.json").write_text(json.dumps(content | keys))
    return folder


def array_of(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def check(folder: Path, **options: Any) -> IntegrityReport:
    return check_dataset(Dataset.load(folder), **options)


def only_fault(folder: Path) -> str:
    report = check(folder)
    assert len(report.faults) == 1, [str(fault) for fault in report.faults]
    return str(report.faults[0])


def test_a_sound_data_set_has_no_faults(folder: Path):
    report = check(folder)
    assert report.faults == () and report.warnings == () and report.uninformative == ()
    assert list(report.cases) == ["a", "b", "c"] and report.heads == ("background", "liver", "tumour")
    labels = array_of(folder / "labelsTr/a.mha")
    assert report.cases["a"].voxels == labels.size
    assert report.cases["a"].positive["liver"] == (labels == 1).sum()
    assert report.cases["a"].annotated_fraction == (labels != 9).mean()
    report.raise_if_faulty()


def test_the_report_is_valid_json(folder: Path):
    value = json.loads(json.dumps(check(folder).as_json(), allow_nan=False))
    assert value["faults"] == [] and set(value["cases"]) == {"a", "b", "c"}
    assert value["cases"]["a"]["positive_fraction"].keys() == {"background", "liver", "tumour"}


@pytest.mark.slow
def test_workers_and_progress_change_nothing(tmp_path):
    folder = lay_out(tmp_path / "toy", SHAPES["3d"])
    seen: list[tuple[int, int, str]] = []
    report = check(folder, workers=2, progress=lambda *step: seen.append(step))
    assert report == check(folder)
    assert [step[:2] for step in seen] == [(1, 3), (2, 3), (3, 3)] and {step[2] for step in seen} == set("abc")


# images


def test_nan_and_infinity_are_counted(folder: Path):
    image = array_of(folder / "imagesTr/b_0001.mha")
    image.flat[:3] = np.nan
    image.flat[5:7] = [np.inf, -np.inf]
    write(folder / "imagesTr/b_0001.mha", image)
    fault = only_fault(folder)
    assert "case 'b' (b_0000.mha, b_0001.mha): found 3 NaN and 2 infinite voxels in channel 1, expected finite" in fault


def test_an_image_that_is_constant_in_all_channels_is_empty(folder: Path):
    for channel in range(2):
        image = array_of(folder / "imagesTr/b_0000.mha")
        write(folder / f"imagesTr/b_000{channel}.mha", np.zeros_like(image))
    assert "case 'b' (b_0000.mha, b_0001.mha): found an empty image: every voxel is 0" in only_fault(folder)


def test_one_constant_channel_of_several_is_a_warning(folder: Path):
    write(folder / "imagesTr/b_0001.mha", np.full_like(array_of(folder / "imagesTr/b_0001.mha"), 4))
    report = check(folder)
    assert report.faults == () and report.warnings == ("image of case 'b': channel 1 is constant (4 everywhere)",)


def test_a_wrong_number_of_channels_is_found(folder: Path):
    content = json.loads((folder / "dataset.json").read_text()) | {"channel_names": {str(n): "x" for n in range(3)}}
    (folder / "dataset.json").write_text(json.dumps(content))
    report = check(folder)
    assert [fault.found for fault in report.faults] == ["2 channels"] * 3
    assert report.faults[0].expected == "3, as in channel_names" and "case 'a'" in report.faults[0].where


def test_channel_files_that_disagree_are_found(folder: Path):
    image = array_of(folder / "imagesTr/b_0001.mha")
    write(folder / "imagesTr/b_0001.mha", image[..., 1:])
    report = check(folder)
    assert [fault for fault in report.faults if "'b'" in fault.where and "shape" in fault.found] == list(report.faults)
    assert len(report.faults) == 1


@pytest.mark.parametrize("part", ["image", "label file"])
def test_a_truncated_file_is_found_and_the_other_file_still_checked(tmp_path, part: str):
    folder = lay_out(tmp_path / "toy", SHAPES["3d"], ".nii.gz")
    path = folder / ("imagesTr/b_0000.nii.gz" if part == "image" else "labelsTr/b.nii.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()))[:-40])
    fault = only_fault(folder)
    assert fault.startswith(f"{part} of case 'b': {path}: found ")
    assert ("b" in check(folder).cases) == (part == "image")


# labels


def test_another_shape_is_found(folder: Path):
    write(folder / "labelsTr/b.mha", array_of(folder / "labelsTr/b.mha")[..., :-1])
    fault = only_fault(folder)
    assert str(folder / "labelsTr/b.mha") in fault and "6) (z, y, x), expected" in fault and "as b_0000.mha" in fault


def turned(image: sitk.Image) -> None:
    direction = np.eye(image.GetDimension())
    direction[:2, :2] = [[0, -1], [1, 0]]
    image.SetDirection(direction.ravel().tolist())


CHANGES: dict[str, Callable[[sitk.Image], None]] = {
    "spacing": lambda image: image.SetSpacing([edge * 1.01 for edge in image.GetSpacing()]),
    "origin": lambda image: image.SetOrigin([edge + 0.5 for edge in image.GetOrigin()]),
    "direction": turned,
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_geometry_is_found(folder: Path, name: str):
    write(folder / "labelsTr/b.mha", array_of(folder / "labelsTr/b.mha"), CHANGES[name])
    fault = only_fault(folder)
    assert fault.startswith(f"{folder / 'labelsTr/b.mha'}: found {name} (") and ", as b_0000.mha. " in fault


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labelsTr", "masksTr"])
@pytest.mark.parametrize("code", ["RAS", "LSP", "PIR"])
def test_labels_in_another_order_of_voxels_are_told_from_a_wrong_header(tmp_path, code: str, kind: str):
    folder = lay_out(tmp_path / "toy", (6, 6, 6))
    if kind == "masksTr":
        add_masks(folder)
    path = folder / kind / "b.mha"
    before = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.DICOMOrient(before, code), str(path))
    fault = only_fault(folder)
    assert f"b.mha: found the voxels in the order {code}, expected LPS, as b_0000.mha. " in fault
    remedy = re.search(r"In Python: (.*)\.$", fault)[1]
    subprocess.run([sys.executable, "-c", remedy], check=True)  # it works as it is written
    assert check(folder).faults == ()
    np.testing.assert_array_equal(array_of(path), sitk.GetArrayFromImage(before))


def rounded(image: sitk.Image) -> None:
    """Round the header as a file in float32 does."""
    for get, put in (
        (image.GetSpacing, image.SetSpacing),
        (image.GetOrigin, image.SetOrigin),
        (image.GetDirection, image.SetDirection),
    ):
        put([float(np.float32(number)) for number in get()])


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_rounding_of_headers_is_no_fault(tmp_path, scale: float):
    folder = lay_out(tmp_path / "toy", SHAPES["3d"])

    def scaled(image: sitk.Image) -> None:
        image.SetSpacing([edge * scale for edge in image.GetSpacing()])
        image.SetOrigin([1.23456789e5 * scale, -7.7777777e4 * scale, 0.1 * scale])
        cosine, sine = np.cos(0.3), np.sin(0.3)
        image.SetDirection([cosine, -sine, 0, sine, cosine, 0, 0, 0, 1])

    for path in folder.glob("*Tr/*.mha"):
        write(path, array_of(path), scaled)
    for path in folder.glob("labelsTr/*.mha"):
        write(path, array_of(path), lambda image: (scaled(image), rounded(image)))
    assert check(folder).faults == ()


def test_undeclared_values_are_named_with_counts_and_cases(folder: Path):
    for case, n_voxels in (("a", 2), ("c", 5)):
        labels = array_of(folder / f"labelsTr/{case}.mha")
        labels.flat[:n_voxels] = 7
        write(folder / f"labelsTr/{case}.mha", labels)
    assert only_fault(folder) == (
        "label value 7: found 7 voxels in 2 cases: c (5 voxels), a (2 voxels), expected only declared values "
        "[0, 1, 2, 9]. Declare it in dataset.json (as a class, or as ignore), or correct the label files."
    )


def test_a_flood_of_undeclared_values_is_summed_up(folder: Path):
    labels = array_of(folder / "labelsTr/b.mha")
    labels.flat[:20] = np.arange(20, 40)
    write(folder / "labelsTr/b.mha", labels)
    faults = check(folder).faults
    assert [fault.where for fault in faults[:2]] == ["label value 20", "label value 21"] and len(faults) == 11
    assert faults[10].found == "10 further undeclared values in 1 cases: b"


def test_labels_that_are_no_whole_numbers_are_found(folder: Path):
    write(folder / "labelsTr/b.mha", array_of(folder / "labelsTr/b.mha").astype(np.float32) + 0.25)
    assert only_fault(folder).startswith(f"label file of case 'b': {folder / 'labelsTr/b.mha'}: found ")


def test_a_class_declared_absent_but_drawn_is_found_with_its_first_voxel(tmp_path):
    folder = lay_out(tmp_path / "toy", SHAPES["3d"], cases={"b": {"absent": ["tumour"]}})
    labels = array_of(folder / "labelsTr/b.mha")
    labels[labels == 2] = 0
    labels[1, 2, 3] = labels[3, 0, 0] = 2
    write(folder / "labelsTr/b.mha", labels)
    fault = only_fault(folder)
    assert fault.startswith(f"{folder / 'labelsTr/b.mha'} of case 'b': found 2 voxels of 'tumour', which is declared")
    assert "the first at (1, 2, 3) (z, y, x), expected none. Correct cases.b.absent in dataset.json" in fault


def test_a_class_completely_drawn_and_absent_is_one_statement(tmp_path):
    said = {"b": {"annotated": ["liver", "tumour"], "absent": ["tumour"]}}
    folder = lay_out(tmp_path / "toy", SHAPES["3d"], cases=said)
    labels = array_of(folder / "labelsTr/b.mha")
    write(folder / "labelsTr/b.mha", np.where(labels == 2, 0, labels).astype(np.uint8))
    report = check(folder)
    assert report.faults == () and report.warnings == ()


@pytest.mark.parametrize(
    ("semantics", "meaning"),
    [("marginal", "they count as that class"), ("seed", 'lazy_semantics "seed"')],
)
def test_a_class_drawn_though_it_is_not_annotated_is_a_warning(tmp_path, semantics: str, meaning: str):
    said = {"lazy_semantics": semantics, "cases": {"b": {"annotated": ["liver"]}}}
    folder = lay_out(tmp_path / "toy", SHAPES["3d"], **said)
    report = check(folder)
    voxels = (array_of(folder / "labelsTr/b.mha") == 2).sum()
    (warning,) = report.warnings
    assert report.faults == () and meaning in warning
    assert warning.startswith(f"case 'b': {voxels} voxels are annotated as 'tumour', which cases.b.annotated omits: ")


def test_priorities_must_leave_a_case_that_says_something(folder: Path):
    content = json.loads((folder / "dataset.json").read_text())
    silent = {"cases": {"b": {"priority": 0}, "c": {"priority": 0}}}
    (folder / "dataset.json").write_text(json.dumps(content | silent))
    assert check(folder).faults == ()
    write(folder / "labelsTr/a.mha", np.full_like(array_of(folder / "labelsTr/a.mha"), 9))
    assert "dataset.json: cases: found priority 0 for every annotated case (b, c)" in only_fault(folder)


def add_masks(folder: Path) -> np.ndarray:
    """Give each case a mask of half its voxels; return it."""
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | {"valid_mask_folder": "masksTr"}))
    mask = np.zeros_like(array_of(folder / "labelsTr/a.mha"))
    mask[..., :3, :] = 1
    (folder / "masksTr").mkdir()
    for case in "abc":
        write(folder / f"masksTr/{case}.mha", mask)
    return mask != 0


def test_nothing_outside_a_mask_is_annotated_or_wrong(folder: Path):
    valid = add_masks(folder)
    labels = array_of(folder / "labelsTr/b.mha")
    labels[~valid] = 77
    write(folder / "labelsTr/b.mha", labels)
    report = check(folder)
    assert report.faults == () and report.cases["b"].voxels == labels.size
    assert report.cases["b"].informative == (valid & (labels != 9)).sum()
    assert report.cases["b"].positive["liver"] == (labels == 1).sum()


def test_a_mask_of_another_shape_is_found(folder: Path):
    valid = add_masks(folder)
    write(folder / "masksTr/b.mha", valid[..., :-1].astype(np.uint8))
    assert f"valid mask of case 'b': {folder / 'masksTr/b.mha'}: found shape (" in only_fault(folder)


def test_a_mask_of_another_geometry_is_found(folder: Path):
    valid = add_masks(folder)
    write(folder / "masksTr/b.mha", valid.astype(np.uint8), CHANGES["spacing"])
    assert only_fault(folder).startswith(f"{folder / 'masksTr/b.mha'}: found spacing (")


def test_a_mask_that_is_zero_everywhere_is_found(folder: Path):
    write(folder / "masksTr/b.mha", np.zeros_like(add_masks(folder), dtype=np.uint8))
    assert "b.mha: found 0 everywhere, expected voxels above 0" in only_fault(folder)


def test_a_mask_of_fractions_is_found(folder: Path):
    write(folder / "masksTr/b.mha", add_masks(folder).astype(np.float32) * 0.5)
    fault = only_fault(folder)
    assert fault.startswith(f"valid mask of case 'b': {folder / 'masksTr/b.mha'}: found ") and "0.5" in fault


def test_a_case_that_says_nothing_is_a_warning_with_its_name(folder: Path):
    write(folder / "labelsTr/b.mha", np.full_like(array_of(folder / "labelsTr/b.mha"), 9))
    report = check(folder)
    assert report.uninformative == ("b",) and report.faults == ()
    assert report.warnings == ("case 'b': no voxel is annotated; the case is not used for training",)


def test_a_class_that_never_occurs_is_a_warning(folder: Path):
    for case in "abc":
        labels = array_of(folder / f"labelsTr/{case}.mha")
        labels[labels == 2] = 9
        write(folder / f"labelsTr/{case}.mha", labels)
    report = check(folder)
    assert report.never_annotated == ("tumour",)
    assert report.warnings == ("Dataset001_Toy: 'tumour' has no annotated voxel in any case and cannot be learnt",)


@pytest.mark.parametrize(("promise", "n_warnings"), [({}, 1), ({"annotation_protocol": {"reach_mm": 5}}, 0)])
def test_where_no_case_is_annotated_is_a_warning_unless_promises_settle_it(tmp_path, promise, n_warnings):
    folder = lay_out(tmp_path / "Dataset001_Toy", SHAPES["3d"], **promise)
    for case in "abc":
        labels = array_of(folder / f"labelsTr/{case}.mha")
        labels[:, 3:] = 9
        write(folder / f"labelsTr/{case}.mha", labels)
    said = [warning for warning in check(folder).warnings if "no case is annotated" in warning]
    assert len(said) == n_warnings
    assert all("50 to 100 % of the length of axis 1 (y)" in warning for warning in said)


def test_all_faults_come_in_one_run_in_the_order_of_the_cases(folder: Path):
    write(folder / "labelsTr/a.mha", array_of(folder / "labelsTr/a.mha"), CHANGES["origin"])
    labels = array_of(folder / "labelsTr/b.mha")
    labels.flat[0] = 5
    write(folder / "labelsTr/b.mha", labels)
    (folder / "imagesTr/c_0000.mha").write_bytes(b"no image")
    report = check(folder)
    assert [fault.where.split("/")[-1] for fault in report.faults] == ["a.mha", "c_0000.mha", "label value 5"]
    with pytest.raises(DatasetError) as raised:
        report.raise_if_faulty()
    assert raised.value.faults == report.faults and str(raised.value).count("\n") == 2


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("labels", {"background": 0, "liver": 1, "Ignore": 9}, "labels.Ignore"),
        ("channel_names", ["T1"], "channel_names"),
    ],
)
def test_files_are_looked_into_even_when_dataset_json_is_wrong(folder: Path, key: str, value: Any, named: str):
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | {key: value}))
    (folder / "labelsTr/a.mha").unlink()
    array = array_of(folder / "imagesTr/b_0000.mha")
    array.flat[0] = np.nan
    write(folder / "imagesTr/b_0000.mha", array)
    dataset, known = Dataset.examine(folder)
    faults = list(map(str, check_dataset(dataset, known_faults=known).faults))
    assert named in faults[0]
    assert sum("an image without label" in fault for fault in faults) == 1
    assert "1 NaN" in faults[-1]
    with pytest.raises(DatasetError, match=named):
        Dataset.load(folder)


@pytest.mark.parametrize(("ending", "found"), [(".dcm", "'.dcm'"), (".jpg", "'.jpg', a lossy format")])
def test_an_ending_that_cannot_be_used_is_one_fault(tmp_path, ending: str, found: str):
    for name in ("imagesTr/a_0000", "imagesTr/b_0000", "labelsTr/a", "labelsTr/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}{ending}").touch()
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ending}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert only_fault(tmp_path).startswith(f"dataset.json: file_ending: found {found}")


def test_a_lost_worker_names_its_case(folder: Path, monkeypatch):
    lost = [(0, WorkerError(Fault("item 0", "its worker process dead", "a result", "Use fewer workers.")))]
    rest = [(index, CaseCheck()) for index in (1, 2)]
    monkeypatch.setattr("autoseg.core.parallel.map_unordered", lambda *_, **__: iter([*rest, *lost]))
    assert only_fault(folder) == ("case 'a': found its worker process dead, expected a result. Use fewer workers.")


@pytest.mark.slow
def test_real_scribbles_pass_and_are_as_sparse_as_they_are_said_to_be(real_data: Path):
    dataset = Dataset.load(real_data / "Dataset027_ACDC" / "dataset_scribble.json")
    report = check_dataset(dataset)
    assert report.faults == () and report.uninformative == () and report.never_annotated == ()
    fractions = [case.annotated_fraction for case in report.cases.values()]
    assert len(fractions) == 40 and 0.004 < min(fractions) < max(fractions) < 0.02


def test_a_data_set_in_which_nothing_is_drawn_has_one_fault(folder: Path):
    for case in "abc":
        path = folder / f"labelsTr/{case}.mha"
        write(path, np.full_like(array_of(path), 9))
    fault = only_fault(folder)
    assert "labels: found no annotated voxel in 3 cases, expected at least one case with an annotated voxel" in fault
